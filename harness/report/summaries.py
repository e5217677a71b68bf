"""Summaries of runs and benchmarks: totals of a form, durabilities under SIGKILL, noise of a measurement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from harness.report.records import PATTERNS, Benchmark, Exploration, Outcome, Pattern, Run

if TYPE_CHECKING:
    from harness.report.comparisons import Comparison

NOISE = 0.15
"""Maximum range of the plain form relative to itself; beyond it, a difference means nothing."""


@dataclass(frozen=True)
class Totals:
    """Totals of the runs of one pattern; latencies and bytes are maxima.

    :ivar repeated_most: maximum number of items that one run repeated. :ivar outcomes: number of runs with
        each outcome. :ivar not_hit: runs that the interruption did not reach.
    """

    pattern: Pattern
    runs: int
    exactly_once: int
    not_hit: int
    interruptions: int
    lost: int
    duplicated: int
    duplicated_by_key: int | None
    repeated: int
    repeated_most: int
    outcomes: Mapping[Outcome, int]
    stop_latency_s: float | None
    resume_latency_s: float | None
    progress_bytes: int | None

    @property
    def harmed(self) -> int:
        """Runs whose verdict is not exactly once."""
        return self.runs - self.exactly_once - self.not_hit


def add_up(pattern: Pattern, runs: Sequence[Run]) -> Totals:
    """Add up runs of one pattern."""
    outcomes: dict[Outcome, int] = dict.fromkeys(get_args(Outcome), 0)
    for run in runs:
        outcomes[run.outcome] += 1
    return Totals(
        pattern=pattern,
        runs=len(runs),
        exactly_once=outcomes["exactly once"],
        not_hit=outcomes["not hit"],
        interruptions=sum(run.interruptions for run in runs),
        lost=sum(run.lost for run in runs),
        duplicated=sum(run.duplicated for run in runs),
        duplicated_by_key=_sum(run.duplicated_by_key for run in runs),
        repeated=sum(run.repeated for run in runs),
        repeated_most=max((run.repeated for run in runs), default=0),
        outcomes=outcomes,
        stop_latency_s=_largest(run.stop_s for run in runs),
        resume_latency_s=_largest(run.resume_latency_s for run in runs),
        progress_bytes=_largest(run.progress_bytes for run in runs),
    )


@dataclass(frozen=True)
class Durable:
    """One form under one durability.

    :ivar cost: cost in the scenario with the most measured durabilities; None if not measured. :ivar killed:
        number of runs in which SIGKILL hit the job. :ivar repeated_most: maximum number of items that one of
        them repeated. :ivar duplicated_most: maximum number of items that one of them did twice. :ivar
        by_key: duplicated items of all these runs that remain when copies with the same idempotency key are
        removed; None without such effects. :ivar explored_most: most items that a crash repeated in an
        exploration; None if not explored.
    """

    durability: str
    pattern: Pattern
    cost: Benchmark | None
    killed: int
    repeated_most: int
    duplicated_most: int
    by_key: int | None
    explored_most: int | None


def durables(comparison: Comparison) -> list[Durable]:
    """Return each form under each durability that was killed, explored or measured, the plain form first."""
    killed: dict[tuple[str, Pattern], list[Run]] = {}
    for run in comparison.runs:
        if run.killed and run.hit:
            killed.setdefault((run.durability, run.pattern), []).append(run)
    explored: dict[tuple[str, Pattern], int] = {}
    for each in comparison.explorations:
        name = each.durability, each.pattern
        explored[name] = max(explored.get(name, 0), each.repeated_most)
    costs = _costs(comparison)
    in_order = sorted(
        killed.keys() | costs.keys() | explored.keys(),
        key=lambda name: (name[0] != "none", name[0], PATTERNS.index(name[1])),
    )
    return [_durable(killed.get(name, []), costs.get(name), explored.get(name), *name) for name in in_order]


Tried = tuple[str, str]
"""Kind of the evidence, ``killed`` or ``explored``, and scenario."""


def most_repeated(comparison: Comparison) -> dict[str, dict[Tried, int]]:
    """Return the most items that a SIGKILL or an explored crash repeated, by durability, without the plain form."""
    found: dict[str, dict[Tried, int]] = {}
    killed = [run for run in comparison.runs if run.killed and run.hit]
    both: list[Run | Exploration] = [*killed, *comparison.explorations]
    for each in both:
        if each.pattern == "plain":
            continue
        tried = found.setdefault(each.durability, {})
        if isinstance(each, Run):
            key, most = ("killed", each.scenario), max(each.repeated, each.duplicated)
        else:
            key, most = ("explored", each.scenario), each.repeated_most
        tried[key] = max(tried.get(key, 0), most)
    return found


def safest(found: Mapping[str, Mapping[Tried, int]]) -> list[str]:
    """Return the durabilities that repeat the least: no other one repeats less where both were tried in the same way.

    Of several, prefer those that were explored, and then killed, in most scenarios, because a small figure
    means less if less was tried.
    """

    def beaten(name: str) -> bool:
        return any(_less(found[other], found[name]) for other in found)

    def evidence(name: str) -> tuple[int, int]:
        kinds = [kind for kind, _ in found[name]]
        return kinds.count("explored"), kinds.count("killed")

    best = [name for name in found if not beaten(name)] or [*found]
    return [name for name in best if evidence(name) == max(map(evidence, best))]


def _less(one: Mapping[Tried, int], other: Mapping[Tried, int]) -> bool:
    """Return whether the first repeats less than the second in the scenarios where both were tried."""
    common = one.keys() & other.keys()
    return sum(one[key] for key in common) < sum(other[key] for key in common)


def noisy(comparison: Comparison) -> dict[str, Benchmark]:
    """Return the plain forms whose range relative to themselves is larger than :data:`NOISE`, by scenario."""
    return {
        each.scenario: each
        for each in comparison.on_work
        if each.pattern == "plain"
        and any(end is not None and abs(end - 1) > NOISE for end in (each.ratio_low, each.ratio_high))
    }


def _costs(comparison: Comparison) -> dict[tuple[str, Pattern], Benchmark]:
    measured: dict[str, dict[tuple[str, Pattern], Benchmark]] = {}
    for each in comparison.on_work:
        if each.durability is not None and each.ratio_to_plain is not None:
            measured.setdefault(each.scenario, {})[each.durability, each.pattern] = each
    return max(measured.values(), key=len, default={})


def _durable(
    runs: list[Run], cost: Benchmark | None, explored: int | None, durability: str, pattern: Pattern
) -> Durable:
    return Durable(
        durability,
        pattern,
        cost,
        len(runs),
        max((run.repeated for run in runs), default=0),
        max((run.duplicated for run in runs), default=0),
        _sum(run.duplicated_by_key for run in runs),
        explored,
    )


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _largest(values: Iterable[Any]) -> Any:
    return max((value for value in values if value is not None), default=None)
