"""Comparison as tables for a terminal; 80 columns are enough for scenarios with short names."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from harness.boundary.texts import printable
from harness.report import formatting, tables
from harness.report.queues import queues

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.report.changes import Change
    from harness.report.comparisons import Comparison

WIDTH = 80
TOTALS = ("scenario", "form", "runs", "exactly once", "not hit", "lost", "duplicated", "repeated")
COST = ("scenario", "form", "durability", *formatting.BENCHMARK_COLUMNS)


def text(comparison: Comparison, changes: Sequence[Change] | None = None) -> str:
    """Return the totals of each scenario and form, then the finding, the costs, and the changes.

    :param changes: changes since another comparison; None if there is no other.
    """
    parts = [_table(tables.totals(comparison), TOTALS)] if comparison.runs else []
    parts.append(_wrapped(comparison.finding))
    if found := queues(comparison):
        names = [each.name for each in found.columns if not each.drawn]
        parts += [f"{each.title}:\n{_table(found, names, each.rows)}" for each in found.parts]
    if own := tables.patterns(comparison):
        parts.append("Cost of the pattern itself:\n" + _table(own, [each.name for each in own.columns]))
    if cost := tables.cost(comparison):
        parts.append("Cost on real work:\n" + _table(cost, COST))
        if noise := formatting.noise(comparison):
            parts.append(_wrapped(noise))
    if changes is not None:
        told = [printable(str(change)) for change in changes] or ["none"]
        parts.append("\n".join(["Changes beyond noise:", *told]))
    return "\n\n".join(parts)


def _wrapped(sentence: str) -> str:
    return "\n".join(wrap(printable(sentence), WIDTH))


def _table(table: tables.Table, names: Sequence[str], of: Iterable[tables.Row] | None = None) -> str:
    index = {column.name: number for number, column in enumerate(table.columns)}
    shown = [index[name] for name in names]
    rows = [list(names)]
    rows += ([printable(row[number].text) for number in shown] for row in of or table.rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        " ".join(
            cell.rjust(width) if table.columns[number].number else cell.ljust(width)
            for cell, width, number in zip(row, widths, shown, strict=True)
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
