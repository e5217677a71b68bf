"""Gates: conditions on the figures of a comparison that make a CI job fail.

``steps.ratio > 1.2`` is met if steps cost more than 1.2 times plain in any scenario; ``orders.steps.ratio > 1.2`` looks
at one. A figure that was not measured meets no condition and satisfies none: it is an error.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.report.figures import NAMES, figure
from harness.report.records import PATTERNS, Pattern

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
ALLOWED = "[SCENARIO.]FORM.FIGURE OPERATOR NUMBER, such as 'steps.ratio > 1.2' or 'orders.iteration.lost > 0'"


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
        """Return in words what meets the condition, or None.

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


def parse(text: str) -> Gate:
    """Read a condition.

    :raises UsageError: saying what was found and what is allowed.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(f"found the condition {text!r}, allowed is {ALLOWED}")
    scenario, pattern, name, sign, number = match.groups()
    for what, found, allowed in (
        ("form", pattern, PATTERNS),
        ("figure", name, NAMES),
        ("operator", sign, tuple(_OPERATORS)),
    ):
        if found not in allowed:
            raise UsageError(
                f"condition {text!r}: found the {what} {found!r}, allowed are {', '.join(allowed)}"
            )
    return Gate(
        text.strip(), scenario, next(each for each in PATTERNS if each == pattern), name, sign, float(number)
    )
