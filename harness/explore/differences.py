"""Descriptions of the differences between two outcomes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.explore.cells import is_number
from harness.explore.matching import Pattern
from harness.explore.pairing import closest
from harness.explore.tables import Table

if TYPE_CHECKING:
    from harness.explore.matching import Mask, Rest, Sheet

RANK = ("lost", "wrong total", "duplicated")
"""Kinds of differences, from the worst to the mildest."""
MAX_COLUMNS = 5
"""Number of columns of a row that are shown."""
MAX_CHARACTERS = 80
"""Length of a value that is shown."""

Project = Callable[[Any, "Mask"], tuple[Any, ...]]


@dataclass(frozen=True)
class Difference:
    """Row that differs from the clean run.

    :ivar kind: ``lost``, ``duplicated`` or ``wrong total``. :ivar text: text of the row. :ivar table: its
        table. :ivar times: number of such rows that are missing or extra.
    :ivar more: whether a number is too large, as after repeated work. :ivar row: identity of the row:
        ``known`` by its key, or ``new`` by its cells.
    """

    kind: str
    table: str
    text: str
    times: int = 1
    more: bool = False
    row: tuple[str, Any] = ("", None)

    def __str__(self) -> str:
        return self.text


def shown(table: Table, row: Any) -> str:
    """Return the text of a row: a single value, or values with the names of their columns."""
    if table.unnamed and len(row) == 1:
        return _short(str(row[0]))
    named = [
        f"{column}={_value(value)}" for column, value in zip(table.columns, row, strict=True) if value != "…"
    ]
    text = f"{', '.join(named[:MAX_COLUMNS])}{', …' if len(named) > MAX_COLUMNS else ''}"
    return text if len(table.columns) == 1 else f"({text})"


def named(table: Table, key: Any) -> str:
    """Return the text of a key."""
    return ", ".join(
        f"{table.columns[index]}={_value(value)}" for index, value in zip(table.key, key, strict=True)
    )


def changed(table: Table, name: str, key: Any, cells: list[tuple[str, Any, Any]]) -> Difference:
    """Return the difference of a row with wrong cells.

    :param cells: for each, its column, the expected and the found value.
    """
    cells = [each for cell in cells for each in _inside(*cell)]
    words = ", ".join(f"{column} is {_value(other)}, not {_value(one)}" for column, one, other in cells)
    text = f"{name}({named(table, key)}): {words}"
    numbers = [(one, other) for _, one, other in cells if is_number(one) and is_number(other)]
    if not numbers:
        return Difference("lost", name, text, row=("known", key))
    more = all(other > one for one, other in numbers)
    return Difference("wrong total", name, text, more=more, row=("known", key))


def missing_table(name: str, rows: Table, *, lost: bool) -> list[Difference]:
    """Return the differences of a missing or an extra table."""
    kind = "lost" if lost else "duplicated"
    if not rows.rows:
        return [Difference(kind, name, f"{name}: {'missing' if lost else 'there, and should not be'}")]
    return [
        Difference(kind, name, f"{name}: {'no row ' if lost else ''}{shown(rows, row)}", row=("new", row))
        for row in rows.rows
    ]


def rows_differ(
    sheet: Sheet, wanted: Counter[Pattern], rest: Rest, project: Project, all_extra: Counter[Any]
) -> list[Difference]:
    """Return the differences of rows without a key.

    :param wanted: all expected rows. :param rest: missing and extra rows. :param project: returns the
        compared part of a row, under a mask. :param all_extra: extra rows, including allowed ones.
    """
    name, table, (missing, extra) = sheet.name, sheet.table, rest
    found, others = [], Counter[Any]()
    for row, times in extra.items():
        pattern = next((each for each in _patterns(sheet, row, project) if each in wanted), None)
        if pattern is None:
            others[row] = times
            continue
        there = wanted[pattern]
        text = f"{name}: {shown(table, pattern.cells)}, {_instead(there + all_extra[row], there)}"
        found.append(Difference("duplicated", name, text, times, row=("new", pattern)))
    found += _mistaken(sheet, missing, others, project)
    for pattern, times in (+missing).items():
        left = wanted[pattern] - times
        text = f"{name}: no row {shown(table, pattern.cells)}"
        if left:
            text = f"{name}: {shown(table, pattern.cells)}, {_instead(left, wanted[pattern])}"
        found.append(Difference("lost", name, text, times, row=("new", pattern)))
    for row, times in (+others).items():
        pattern = _patterns(sheet, row, project)[0]
        text = f"{name}: one row more, {shown(table, pattern.cells)}"
        found.append(Difference("duplicated", name, text, times, row=("new", pattern)))
    return found


def _patterns(sheet: Sheet, row: Any, project: Project) -> list[Pattern]:
    """Return the masks of a row; the mask that hides the fewest cells comes first."""
    return [Pattern(mask, project(row, mask)) for mask in sheet.all_masks()]


def _mistaken(
    sheet: Sheet, missing: Counter[Pattern], extra: Counter[Any], project: Project
) -> list[Difference]:
    """Return the differences of rows with wrong cells, and remove them from the remaining rows."""
    ours = {pattern.cells: pattern for pattern in missing}
    theirs = {_patterns(sheet, row, project)[0].cells: row for row in extra}
    pairs = closest(
        sorted((pattern.cells for pattern in missing.elements()), key=repr),
        sorted((_patterns(sheet, row, project)[0].cells for row in extra.elements()), key=repr),
    )
    found = []
    for one, other in pairs:
        if not _belong(one, other):
            continue
        cells = [(w, o) for w, o in zip(one, other, strict=True) if w not in (o, "…")]
        more = all(is_number(w) and is_number(o) and o > w for w, o in cells)
        text = f"{sheet.name}: {shown(sheet.table, other)}, not {shown(sheet.table, one)}"
        pattern = _patterns(sheet, theirs[other], project)[0]
        found.append(Difference("wrong total", sheet.name, text, more=more, row=("new", pattern)))
        missing[ours[one]] -= 1
        extra[theirs[other]] -= 1
    return found


def _belong(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Return whether two rows can be the same row with different cells."""
    visible = [(a, b) for a, b in zip(one, other, strict=True) if a != "…" and b != "…"]
    return len(visible) <= 1 or any(a == b for a, b in visible) or all(map(_are_numbers, visible))


def _are_numbers(pair: tuple[Any, Any]) -> bool:
    return is_number(pair[0]) and is_number(pair[1])


def _instead(number: int, wanted: int) -> str:
    """Return the text about the number of a row; empty if one is expected."""
    times = "once" if number == 1 else f"{number} times"
    return times if wanted == 1 else f"{times} instead of {wanted}"


def _inside(column: str, one: Any, other: Any) -> list[tuple[str, Any, Any]]:
    """Return the members of two JSON objects that differ, or the two values."""
    try:
        before, after = json.loads(one), json.loads(other)
    except (TypeError, ValueError):
        return [(column, one, other)]
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [(column, one, other)]
    return [
        (f"{column}.{name}", before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _value(value: Any) -> str:
    return _short(repr(value))


def _short(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 1]}…"
