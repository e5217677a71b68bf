"""Compare the forms of a job: records of trials and benchmarks become a :class:`Comparison`, and then a report.

Every output is rendered from the file that :meth:`Comparison.save` writes. The page needs Jinja2.

* Comparison: ``records`` and ``benchmarks`` read, ``comparisons`` holds all of it; ``summaries``, ``changes``,
  ``headline``, ``advice`` and ``gates`` evaluate it.
* Rendering: ``text``, ``markdown`` and ``html`` are the outputs. They show the cells of ``tables``; ``overview``,
  ``timelines`` and ``charts`` are the drawings, ``pictures`` writes them as files; ``templates`` holds the markup.
"""

from __future__ import annotations

from harness.report.advice import Advice, advice
from harness.report.changes import Change, changes
from harness.report.comparisons import Comparison, Group, comparison, made_from
from harness.report.gates import Gate, parse_gate
from harness.report.headline import counted
from harness.report.html import html
from harness.report.markdown import markdown
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
from harness.report.summaries import NOISE, Durable, Totals, durables, noisy
from harness.report.text import text
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
