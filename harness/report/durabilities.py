"""Cost of each durability, and cost of a SIGKILL under it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.report.records import PATTERNS, Pattern

if TYPE_CHECKING:
    from harness.report.comparisons import Comparison
    from harness.report.records import Benchmark, Run


@dataclass(frozen=True)
class Durable:
    """One form under one durability.

    :ivar cost: in the scenario where most durabilities were measured; None if that was not.
    :ivar killed: runs that were killed. :ivar repeated_most: items that one of them repeated.
    :ivar duplicated_most: items that one of them did twice. :ivar by_key: how many of all are left when copies are
        removed by idempotency key, where there are such effects.
    """

    durability: str
    pattern: Pattern
    cost: Benchmark | None
    killed: int
    repeated_most: int
    duplicated_most: int
    by_key: int | None


def durables(comparison: Comparison) -> list[Durable]:
    """Return every form under every durability that was killed or measured: the form without any comes first."""
    killed = [run for run in comparison.runs if run.killed]
    names = {(run.durability, run.pattern) for run in killed}
    costs = _costs(comparison)
    in_order = sorted(
        names | costs.keys(), key=lambda name: (name[0] != "none", name[0], PATTERNS.index(name[1]))
    )
    return [_durable(killed, costs.get(name), *name) for name in in_order]


def _costs(comparison: Comparison) -> dict[tuple[str, Pattern], Benchmark]:
    measured: dict[str, dict[tuple[str, Pattern], Benchmark]] = {}
    for each in comparison.benchmarks:
        if each.durability is not None and each.ratio_to_plain is not None:
            measured.setdefault(each.scenario, {})[each.durability, each.pattern] = each
    return max(measured.values(), key=len, default={})


def _durable(killed: list[Run], cost: Benchmark | None, durability: str, pattern: Pattern) -> Durable:
    runs = [run for run in killed if (run.durability, run.pattern) == (durability, pattern)]
    keyed = [run.duplicated_by_key for run in runs if run.duplicated_by_key is not None]
    return Durable(
        durability,
        pattern,
        cost,
        len(runs),
        max((run.repeated for run in runs), default=0),
        max((run.duplicated for run in runs), default=0),
        sum(keyed) if keyed else None,
    )
