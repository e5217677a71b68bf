"""A comparison as Markdown, for the summary of a CI job."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.boundary.texts import printable
from harness.report import formatting
from harness.report.advice import advice
from harness.report.durabilities import durables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.report.changes import Change
    from harness.report.comparisons import Comparison, Group
    from harness.report.records import Pattern, Run


def markdown(comparison: Comparison, changes: Sequence[Change] | None = None) -> str:
    """Put the finding first, then all verdicts, what the forms cost, and when to use which.

    :param changes: what moved since another comparison; None where there is no other.
    """
    parts = ["# Comparison of job forms", _escaped(comparison.finding)]
    if changes is not None:
        parts += ["## What moved", _changes(changes)]
    if comparison.runs:
        parts += ["## Verdicts", _verdicts(comparison), _columns()]
    if comparison.benchmarks:
        parts += ["## Cost without interruption", _benchmarks(comparison)]
        if noise := formatting.noise(comparison):
            parts.append(_escaped(noise))
    if durables(comparison):
        parts += ["## Durability against cost", _durables(comparison)]
    if comparison.explorations:
        parts += ["## Interruption coverage", _explorations(comparison)]
    if given := advice(comparison):
        told = (
            f"- **{_escaped(each.question)}** {_escaped(each.answer)} *{_escaped(each.figures)}.*"
            for each in given
        )
        parts += ["## When to use which", "\n".join(told)]
    return "\n\n".join([*parts, _environment(comparison)]) + "\n"


def _verdicts(comparison: Comparison) -> str:
    patterns = comparison.patterns
    rows = [
        [
            *map(_escaped, (group.scenario, group.interruption, f"{group.broker}, {group.database}")),
            *(_cell(group, each) for each in patterns),
        ]
        for group in comparison.groups
    ]
    return _table(["scenario", "interruption", "services", *patterns], rows, right=0)


def _cell(group: Group, pattern: Pattern) -> str:
    runs = group.of(pattern)
    return "<br>".join(_verdict(run, alone=len(runs) == 1) for run in runs) or formatting.NOTHING


def _verdict(run: Run, *, alone: bool) -> str:
    told = f"{formatting.SIGNS[run.verdict]} {run.verdict}"
    if damage := formatting.damage(run):
        told += f" ({damage})"
    return _escaped(told if alone else f"{run.durability}: {told}")


def _columns() -> str:
    told = {**formatting.COLUMNS, formatting.NOTHING: formatting.NOT_TRIED}
    return "  \n".join(f"*{name}*: {meaning}" for name, meaning in told.items())


def _benchmarks(comparison: Comparison) -> str:
    rows = [
        [
            _escaped(each.scenario),
            each.pattern,
            _escaped(each.durability or formatting.NOTHING),
            *formatting.benchmark(each),
        ]
        for each in comparison.benchmarks
    ]
    head = ["scenario", "form", "durability", *formatting.BENCHMARK_COLUMNS]
    return _table(head, rows, right=len(formatting.BENCHMARK_COLUMNS))


def _durables(comparison: Comparison) -> str:
    rows = []
    for each in durables(comparison):
        figures = [f"{each.repeated_most:,}", f"{each.duplicated_most:,}", formatting.number(each.by_key)]
        ratio = each.cost.ratio_to_plain if each.cost else None
        rows.append(
            [
                _escaped(each.durability),
                each.pattern,
                f"{each.killed:,}",
                *(figures if each.killed else [formatting.NOTHING] * 3),
                formatting.NOTHING if ratio is None else f"{ratio:.2f}{formatting.TIMES}",
            ]
        )
    head = [
        "durability",
        "form",
        "runs killed",
        "repeated at most",
        "duplicated at most",
        "by key, in all",
        "to plain",
    ]
    return _table(head, rows, right=5)


def _explorations(comparison: Comparison) -> str:
    rows = [
        [
            *map(_escaped, (each.scenario, each.pattern, each.durability, each.verdict)),
            *(
                f"{part:,} of {whole:,}"
                for part, whole in ((each.tried, each.states), (each.lines_tried, each.lines))
            ),
            f"{each.repeated_most:,}",
            formatting.seconds(each.seconds),
        ]
        for each in comparison.explorations
    ]
    head = [
        "scenario",
        "form",
        "durability",
        "verdict",
        "states tried",
        "lines tried",
        "repeated at most",
        "time",
    ]
    return _table(head, rows, right=4)


def _changes(changes: Sequence[Change]) -> str:
    if not changes:
        return "Nothing moved beyond noise."
    rows = [
        list(map(_escaped, (each.direction, each.where, each.what, each.before, each.after)))
        for each in changes
    ]
    return _table(["", "where", "what", "before", "after"], rows, right=0)


def _environment(comparison: Comparison) -> str:
    return _escaped(formatting.environment(comparison.environment))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: int) -> str:
    rules = ["---"] * (len(header) - right) + ["--:"] * right
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rules, *rows])


def _escaped(value: str) -> str:
    """Keep what a name holds from being taken for markup."""
    return re.sub(r"[\\`*_{}\[\]<>#|~&@!$]", lambda found: f"&#{ord(found[0])};", printable(value))
