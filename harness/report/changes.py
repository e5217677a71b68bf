"""Find the changes between two comparisons that are larger than noise.

* A cost moved if the ranges of the ratio to plain, from the nearest to the farthest quartiles, do not overlap. The
  ratio is taken within one file, so a faster machine is no change.
* A latency moved if the middle halves of all runs of a scenario and form, on one broker, do not overlap.
* A verdict, and whether anything was lost, duplicated or repeated at all, has no noise: every change is reported. The
  amount is not, because a timed interruption or a kill never hits the same item twice.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from harness.report.comparisons import Comparison
    from harness.report.records import Run

COUNTS = ("lost", "duplicated", "repeated")
LATENCIES = {"stop_s": "stop latency", "resume_latency_s": "resume latency"}


@dataclass(frozen=True)
class Change:
    """Changed figure.

    :ivar where: text for the run or the form. :ivar what: the figure. :ivar before: and :ivar after: texts of
        its values. :ivar direction: ``better``, ``worse``, ``new`` or ``gone``.
    """

    where: str
    what: str
    before: str
    after: str
    direction: Literal["better", "worse", "new", "gone"]

    def __str__(self) -> str:
        return f"{self.direction}: {self.where}, {self.what}: {self.before} -> {self.after}"


def changes(old: Comparison, new: Comparison) -> list[Change]:
    """Return the changes beyond noise, the worse ones first."""
    found = [*_of_runs(old, new), *_of_latencies(old, new), *_of_costs(old, new)]
    return sorted(found, key=lambda each: ("worse", "gone", "new", "better").index(each.direction))


def _of_runs(old: Comparison, new: Comparison) -> Iterator[Change]:
    before, after = ({_key(run): run for run in each.runs} for each in (old, new))
    for key in dict.fromkeys([*before, *after]):
        where = ", ".join(key)
        if key not in after:
            yield Change(where, "run", before[key].verdict, "not run", "gone")
        elif key not in before:
            yield Change(where, "run", "not run", after[key].verdict, "new")
        else:
            yield from _of_run(where, before[key], after[key])


def _of_run(where: str, before: Run, after: Run) -> Iterator[Change]:
    if before.outcome != after.outcome:
        good = after.outcome == "exactly once"
        bad = before.outcome == "exactly once"
        worse = bad or (not good and _damage(after) > _damage(before))
        yield Change(where, "verdict", before.outcome, after.outcome, "worse" if worse else "better")
        return
    for name in COUNTS:
        was, now = getattr(before, name), getattr(after, name)
        if bool(was) != bool(now):
            yield Change(where, name, f"{was:,}", f"{now:,}", "worse" if now else "better")


def _of_latencies(old: Comparison, new: Comparison) -> Iterator[Change]:
    for name, what in LATENCIES.items():
        before, after = _by_form(old, name), _by_form(new, name)
        for key in (each for each in before if each in after):
            (low, middle, high), (low_now, middle_now, high_now) = before[key], after[key]
            if high < low_now or high_now < low:
                direction: Any = "worse" if low_now > high else "better"
                yield Change(", ".join(key), what, f"{middle:.4g} s", f"{middle_now:.4g} s", direction)


def _of_costs(old: Comparison, new: Comparison) -> Iterator[Change]:
    before, after = (
        {(each.scenario, each.pattern, each.durability): each for each in comparison.on_work}
        for comparison in (old, new)
    )
    for key in before:
        if key[1] == "plain" or key not in after:
            continue
        was, now = before[key], after[key]
        ends = was.ratio_low, was.ratio_high, now.ratio_low, now.ratio_high
        if None in ends:
            continue
        low, high, low_now, high_now = (float(end or 0) for end in ends)
        if high < low_now or high_now < low:
            where = ", ".join(each for each in key if each)
            values = f"{was.ratio_to_plain:.2f}", f"{now.ratio_to_plain:.2f}"
            yield Change(where, "cost against plain", *values, "worse" if low_now > high else "better")


def _by_form(comparison: Comparison, name: str) -> Mapping[tuple[str, ...], tuple[float, float, float]]:
    values: dict[tuple[str, ...], list[float]] = {}
    for run in comparison.runs:
        value = getattr(run, name)
        if value is not None:
            values.setdefault((run.scenario, run.pattern, *_queue(run), run.broker), []).append(value)
    return {key: quartiles(found) for key, found in sorted(values.items()) if len(found) > 1}


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the ends of the middle half and the median of two values or more."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def _key(run: Run) -> tuple[str, ...]:
    where = *_queue(run), run.broker, run.database
    return run.scenario, run.pattern, run.interruption, run.durability, *where


def _queue(run: Run) -> tuple[str, ...]:
    """Return the queue as a part of a key; RQ, which older files do not name, is left out."""
    return () if run.queue == "rq" else (run.queue,)


def _damage(run: Run) -> tuple[bool, int, int]:
    return not run.completed, run.lost, run.duplicated
