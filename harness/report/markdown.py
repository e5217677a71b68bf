"""Comparison as Markdown, for the summary of a CI job."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.boundary.texts import printable
from harness.report import formatting, tables
from harness.report.advice import advice
from harness.report.queues import queues

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.report.changes import Change
    from harness.report.comparisons import Comparison


def markdown(comparison: Comparison, changes: Sequence[Change] | None = None) -> str:
    """Return the finding, the advice, the results, and the costs.

    :param changes: changes since another comparison; None if there is no other.
    """
    parts = ["# Job interruption report", _escaped(comparison.finding)]
    if given := advice(comparison):
        told = (
            f"- **{_escaped(each.question)}** {_escaped(each.short)}. {_escaped(each.answer)} "
            f"*{_escaped(each.figures)}.*"
            for each in given
        )
        parts += ["## When to use which", "\n".join(told)]
    if changes is not None:
        found = tables.changes(changes)
        parts += ["## Changes", _table(found) if found else "Nothing changed beyond noise."]
    if comparison.runs:
        parts.append("## Results by interruption")
        for name, part in comparison.scenarios.items():
            parts += [f"### {_escaped(name)}", _table(tables.matrix(name, part))]
        parts.append(_columns())
    for title, table in (
        ("Queues side by side", queues(comparison)),
        ("Queues and databases side by side", tables.services(comparison)),
        ("Cost of the pattern itself", tables.patterns(comparison)),
        ("Cost on real work, without interruption", tables.cost(comparison)),
        ("Durability and its cost", tables.durability(comparison)),
        ("Crash coverage", tables.explorations(comparison)),
    ):
        if table is not None:
            parts += [f"## {title}", _table(table)]
        if title.startswith("Cost on real") and (noise := formatting.noise(comparison)):
            parts.append(_escaped(noise))
    return "\n\n".join([*parts, _escaped(formatting.environment(comparison.environment))]) + "\n"


def _table(table: tables.Table) -> str:
    shown = [index for index, column in enumerate(table.columns) if not column.drawn]
    columns = [table.columns[index] for index in shown]
    rows = [[_escaped(column.name) for column in columns]]
    rows.append(["--:" if column.number else "---" for column in columns])
    for part in table.parts:
        if part.title and len(table.parts) > 1:
            rows.append([f"**{_escaped(part.title)}**", *[""] * (len(shown) - 1)])
        rows += ([_cell(row[index]) for index in shown] for row in part.rows)
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{text}\n\n{_escaped(table.note)}" if table.note else text


def _cell(cell: tables.Cell) -> str:
    if cell.entries:
        return "<br>".join(map(_entry, cell.entries))
    return _escaped(cell.text)


def _entry(entry: tables.Entry) -> str:
    details = f" ({'; '.join(entry.details)})" if entry.details else ""
    return _escaped(f"{formatting.SIGNS[entry.outcome]} {entry.outcome}{details}")


def _columns() -> str:
    told = {**formatting.COLUMNS, "not hit": formatting.NOT_HIT, formatting.NOTHING: formatting.NOT_TRIED}
    return "  \n".join(f"*{name}*: {meaning}" for name, meaning in told.items())


def _escaped(value: str) -> str:
    """Replace the characters that would act as markup."""
    return re.sub(r"[\\`*_{}\[\]<>#|~&@!$]", lambda found: f"&#{ord(found[0])};", printable(value))
