"""Compare the forms of a job: records of trials and benchmarks become a :class:`Comparison`, and that a report.

Standard library only. Every output is rendered from the file that :meth:`Comparison.save` writes.

* Comparison: ``records``, ``benchmarks`` and ``loading`` read the files; ``comparisons`` brings them together;
  ``totals``, ``changes``, ``headline``, ``advice``, ``durabilities`` and ``gates`` evaluate them.
* Rendering: ``text``, ``markdown`` and ``html`` are the outputs; ``tables``, ``matrix``, ``charts``, ``pictures``,
  ``svg``, ``formatting`` and ``methodology`` are their parts.
"""

from harness.report.advice import Advice, advice
from harness.report.changes import Change, changes
from harness.report.comparisons import Comparison, Group, comparison
from harness.report.durabilities import Durable, durables
from harness.report.gates import Gate
from harness.report.gates import parse as parse_gate
from harness.report.headline import counted
from harness.report.html import html
from harness.report.loading import made_from
from harness.report.markdown import markdown
from harness.report.noise import NOISE, noisy
from harness.report.pictures import pictures
from harness.report.records import (
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
from harness.report.text import text
from harness.report.totals import Totals
from harness.report.writing import write

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
    "html",
    "made_from",
    "markdown",
    "noisy",
    "parse_gate",
    "pictures",
    "text",
    "write",
]
