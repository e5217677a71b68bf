"""A comparison as Markdown, for the summary of a CI job."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.render import words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.compare import Comparison, Group, Pattern, Run


def markdown(comparison: Comparison) -> str:
    """Put the finding first, then all verdicts, then what the forms cost."""
    parts = ["# Comparison of job forms", _escaped(comparison.finding)]
    if comparison.runs:
        parts += ["## Verdicts", _verdicts(comparison), _columns()]
    if comparison.benchmarks:
        parts += ["## Cost without interruption", _benchmarks(comparison)]
    return "\n\n".join([*parts, _environment(comparison)]) + "\n"


def _verdicts(comparison: Comparison) -> str:
    patterns = comparison.patterns
    rows = [
        [_escaped(group.scenario), _escaped(group.interruption), *(_cell(group, each) for each in patterns)]
        for group in comparison.groups
    ]
    return _table(["scenario", "interruption", *patterns], rows, right=0)


def _cell(group: Group, pattern: Pattern) -> str:
    runs = group.of(pattern)
    return "<br>".join(_verdict(run, alone=len(runs) == 1) for run in runs) or words.NOTHING


def _verdict(run: Run, *, alone: bool) -> str:
    told = f"{words.SIGNS[run.verdict]} {run.verdict}"
    if damage := words.damage(run):
        told += f" ({damage})"
    return _escaped(told if alone else f"{run.durability}: {told}")


def _columns() -> str:
    return "  \n".join(f"*{name}*: {meaning}" for name, meaning in words.COLUMNS.items())


def _benchmarks(comparison: Comparison) -> str:
    rows = [[_escaped(each.scenario), each.pattern, *words.benchmark(each)] for each in comparison.benchmarks]
    return _table(["scenario", "form", *words.BENCHMARK_COLUMNS], rows, right=len(words.BENCHMARK_COLUMNS))


def _environment(comparison: Comparison) -> str:
    return _escaped(words.environment(comparison.environment))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: int) -> str:
    rules = ["---"] * (len(header) - right) + ["--:"] * right
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rules, *rows])


def _escaped(value: str) -> str:
    """Keep what a name holds from being taken for markup."""
    return re.sub(r"[\\`*_{}\[\]<>#|~&@!$]", lambda found: f"&#{ord(found[0])};", words.printable(value))
