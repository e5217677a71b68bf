"""Noise of a measurement: the range of the plain form relative to itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.report.comparisons import Comparison
    from harness.report.records import Benchmark

NOISE = 0.15
"""The plain form may range so far about itself, as a share of its cost; beyond that, a difference says nothing."""


def noisy(comparison: Comparison) -> dict[str, Benchmark]:
    """Return the plain forms that range farther than :data:`NOISE` about themselves, by scenario."""
    return {
        each.scenario: each
        for each in comparison.benchmarks
        if each.pattern == "plain"
        and any(end is not None and abs(end - 1) > NOISE for end in (each.ratio_low, each.ratio_high))
    }
