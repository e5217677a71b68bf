"""Records of trials and a file of pytest-benchmark, brought together as one :class:`Comparison`.

Standard library only. What :meth:`Comparison.save` writes is what every report is rendered from.
"""

from harness.compare.comparisons import Comparison, Group, Totals, comparison
from harness.compare.finding import counted
from harness.compare.records import (
    PATTERNS,
    Benchmark,
    Environment,
    Execution,
    Pattern,
    Run,
    Timeline,
    Verdict,
)

__all__ = [
    "PATTERNS",
    "Benchmark",
    "Comparison",
    "Environment",
    "Execution",
    "Group",
    "Pattern",
    "Run",
    "Timeline",
    "Totals",
    "Verdict",
    "comparison",
    "counted",
]
