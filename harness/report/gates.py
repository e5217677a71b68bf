"""Gates: conditions on the figures of a comparison that make a CI job fail.

``steps.ratio > 1.2`` is met if steps cost more than 1.2 times plain in any scenario; ``orders.steps.ratio > 1.2`` looks
at one. A condition on a figure that was not measured is an error.

========================  ======================================================================================
``ratio``                 cost of an item of real work to plain: the median; ``ratio_low`` and ``ratio_high``: its range
``per_item_us``           cost of an item of real work in microseconds
``overhead_ns``           cost of the pattern itself in nanoseconds an item, above a bare loop
``lost``, ``duplicated``, ``duplicated_by_key``, ``repeated``   items, summed over all runs
``repeated_most``         items that one run repeated
``harmed``                runs with another outcome than exactly once
``not_hit``               runs that the interruption did not reach; they count as neither good nor harmed
``runs``                  number of runs
``stop_latency_s``, ``resume_latency_s``, ``progress_bytes``   the largest
``untried``               external states that the explorer did not crash in
========================  ======================================================================================
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.report.records import PATTERNS, Pattern
from harness.report.summaries import add_up

if TYPE_CHECKING:
    from harness.report.comparisons import Comparison

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_FORM = re.compile(r"\s*(?:(.+)\.)?(\w+)\.(\w+)\s*([<>=!]=?)\s*([0-9]+(?:\.[0-9]+)?)\s*")
_OF_BENCHMARKS = ("ratio", "ratio_low", "ratio_high", "per_item_us")
_OF_PATTERNS = ("overhead_ns",)
_OF_RUNS = (
    "lost", "duplicated", "duplicated_by_key", "repeated", "repeated_most", "harmed", "not_hit", "runs",
    "stop_latency_s", "resume_latency_s", "progress_bytes",
)  # fmt: skip
_OF_EXPLORATIONS = ("untried",)
NAMES = (*_OF_BENCHMARKS, *_OF_PATTERNS, *_OF_RUNS, *_OF_EXPLORATIONS)
ALLOWED = "[SCENARIO.]FORM.FIGURE OPERATOR NUMBER, such as 'steps.ratio > 1.2' or 'orders.iteration.lost > 0'"


def figure(comparison: Comparison, scenario: str | None, pattern: Pattern, name: str) -> float | None:
    """Return a figure of a pattern, by default the worst of all scenarios; None if it is missing.

    :param name: one of :data:`NAMES`.
    """

    def wanted(each: object) -> bool:
        return getattr(each, "pattern") == pattern and scenario in {None, getattr(each, "scenario")}  # noqa: B009

    if name in _OF_BENCHMARKS:
        field = "ratio_to_plain" if name == "ratio" else name
        return _largest(getattr(each, field) for each in comparison.on_work if wanted(each))
    if name in _OF_PATTERNS:
        return _largest(getattr(each, name) for each in comparison.of_patterns if wanted(each))
    if name in _OF_EXPLORATIONS:
        return _largest(each.states - each.tried for each in comparison.explorations if wanted(each))
    runs = [run for run in comparison.runs if wanted(run)]
    if not runs:
        return None
    value: float | None = getattr(add_up(pattern, runs), name)
    return value


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


@dataclass(frozen=True)
class Gate:
    """Condition that fails the comparison when it is true.

    :ivar scenario: None for the worst of all.
    """

    text: str
    scenario: str | None
    pattern: Pattern
    figure: str
    operator: str
    limit: float

    def met_by(self, comparison: Comparison) -> str | None:
        """Return the text of the figure that meets the condition, or None.

        :raises UsageError: if the comparison has no such figure.
        """
        found = figure(comparison, self.scenario, self.pattern, self.figure)
        if found is None:
            known = ", ".join(dict.fromkeys(run.scenario for run in comparison.runs)) or "none"
            raise UsageError(
                f"{self.text!r}: this comparison has no such figure; its scenarios are {known}, and a ratio needs "
                "--benchmarks with the plain form"
            )
        if not _OPERATORS[self.operator](found, self.limit):
            return None
        return f"{self.text}: found {found:.6g}"


def parse_gate(text: str) -> Gate:
    """Read a condition.

    :raises UsageError: with the allowed form.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(f"got the condition {text!r}; use {ALLOWED}")
    scenario, pattern, name, sign, number = match.groups()
    for what, found, allowed in (
        ("form", pattern, PATTERNS),
        ("figure", name, NAMES),
        ("operator", sign, tuple(_OPERATORS)),
    ):
        if found not in allowed:
            raise UsageError(f"condition {text!r}: got the {what} {found!r}; use one of {', '.join(allowed)}")
    return Gate(
        text.strip(), scenario, next(each for each in PATTERNS if each == pattern), name, sign, float(number)
    )
