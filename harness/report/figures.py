"""Figures by name, for gates and reports of changes.

========================  ======================================================================================
``ratio``                 cost of an item against plain: the median; ``ratio_low`` and ``ratio_high`` are its range
``per_item_us``           cost of an item in microseconds
``lost``, ``duplicated``, ``duplicated_by_key``, ``repeated``   items, summed over all runs
``repeated_most``         items that one run repeated
``harmed``                runs with another verdict than exactly once
``runs``                  how many there were
``stop_latency_s``, ``resume_latency_s``, ``progress_bytes``   the largest
``untried``               external states that the explorer did not crash in
========================  ======================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.report.totals import add_up

if TYPE_CHECKING:
    from harness.report.comparisons import Comparison
    from harness.report.records import Pattern

OF_BENCHMARKS = ("ratio", "ratio_low", "ratio_high", "per_item_us")
OF_RUNS = (
    "lost", "duplicated", "duplicated_by_key", "repeated", "repeated_most", "harmed", "runs", "stop_latency_s",
    "resume_latency_s", "progress_bytes",
)  # fmt: skip
OF_EXPLORATIONS = ("untried",)
NAMES = (*OF_BENCHMARKS, *OF_RUNS, *OF_EXPLORATIONS)


def figure(comparison: Comparison, scenario: str | None, pattern: Pattern, name: str) -> float | None:
    """Return a figure of a pattern, the worst of all scenarios if none is given; None if there is none.

    :param name: one of :data:`NAMES`.
    """

    def wanted(each: object) -> bool:
        return getattr(each, "pattern") == pattern and scenario in {None, getattr(each, "scenario")}  # noqa: B009

    if name in OF_BENCHMARKS:
        field = "ratio_to_plain" if name == "ratio" else name
        found = [getattr(each, field) for each in comparison.benchmarks if wanted(each)]
        return max((value for value in found if value is not None), default=None)
    if name in OF_EXPLORATIONS:
        return max(
            (each.states - each.tried for each in comparison.explorations if wanted(each)), default=None
        )
    runs = [run for run in comparison.runs if wanted(run)]
    if not runs:
        return None
    totals = add_up(pattern, runs)
    value: float | None = totals.runs - totals.exactly_once if name == "harmed" else getattr(totals, name)
    return value
