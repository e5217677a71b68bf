"""Records of trials and a file of pytest-benchmark, brought together as one :class:`Comparison`.

Standard library only. What :meth:`Comparison.save` writes is what every report is rendered from.
"""

from harness.compare.advice import Advice, advice
from harness.compare.changes import Change, changes
from harness.compare.comparisons import Comparison, Group, comparison
from harness.compare.durabilities import Durable, durables
from harness.compare.finding import counted
from harness.compare.gates import Gate
from harness.compare.gates import parse as parse_gate
from harness.compare.noise import NOISE, noisy
from harness.compare.records import (
    PATTERNS,
    Benchmark,
    Environment,
    Execution,
    Exploration,
    Pattern,
    Run,
    Timeline,
    Verdict,
)
from harness.compare.sources import made_from
from harness.compare.totals import Totals

__all__ = [
    "NOISE",
    "PATTERNS",
    "Advice",
    "Benchmark",
    "Change",
    "Comparison",
    "Durable",
    "Environment",
    "Execution",
    "Exploration",
    "Gate",
    "Group",
    "Pattern",
    "Run",
    "Timeline",
    "Totals",
    "Verdict",
    "advice",
    "changes",
    "comparison",
    "counted",
    "durables",
    "made_from",
    "noisy",
    "parse_gate",
]
