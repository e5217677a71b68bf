"""Tables: external state as comparable rows, and the protocol of the resources that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Table:
    """Rows under one name, as tuples.

    :ivar key: indexes of the columns that identify a row. :ivar numbered: whether the key can be a number
        that the database assigns, which does not identify a new row.
    :ivar moments: the indexes of columns that hold a date or a time.
    :ivar json: the indexes of columns that hold JSON as text.
    :ivar references: pairs of a column's index and the table whose key it holds.
    :ivar transactional: whether the rows are a database's, so that a transaction can hold them and the progress.
    :ivar unnamed: whether the name of the table also describes its single column: lines, mails.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    key: tuple[int, ...] = ()
    numbered: bool = False
    moments: frozenset[int] = frozenset()
    json: frozenset[int] = frozenset()
    references: tuple[tuple[int, str], ...] = ()
    transactional: bool = False
    unnamed: bool = False


BODIES = "bodies of "
"""Prefix of tables with details of another table's rows; they count only if that table is correct."""

Contents = dict[str, Table]


class Resource(Protocol):
    """Part of the external state."""

    def changed(self) -> bool:
        """Return whether it changed since the last call."""
        ...

    def keep(self) -> Any:
        """Return a snapshot of the committed content."""
        ...

    def restore(self, kept: Any) -> None:
        """Restore a snapshot."""
        ...

    def contents(self, kept: Any = None) -> dict[str, Table]:
        """Return the comparable content, now or in a snapshot."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


def from_value(value: Any, columns: tuple[str, ...] = ("value",), *, unnamed: bool = True) -> Table:
    """Return any value as a table whose cells can differ one by one.

    A mapping becomes rows of key and value; nested values are flattened, with a path for a key. A collection of rows,
    of one length or with the same names, becomes a table with their columns. Anything else is one cell.
    """
    if isinstance(value, Mapping):
        rows = [row for key, each in value.items() for row in _leaves((key,), each)]
        return Table(("key", "value"), rows, key=(0,))
    if not isinstance(value, list | tuple | set | frozenset):
        return Table(columns, [(value,)], unnamed=unnamed)
    members = list(value)
    if members and all(isinstance(each, Mapping) for each in members):
        names = list(dict.fromkeys(name for each in members for name in each))
        return Table(tuple(map(str, names)), [tuple(each.get(name) for name in names) for each in members])
    if members and _are_rows(members):
        given = getattr(members[0], "_fields", range(1, len(members[0]) + 1))
        return Table(tuple(map(str, given)), [tuple(each) for each in members])
    return Table(columns, [(each,) for each in members], unnamed=unnamed)


def _are_rows(members: list[Any]) -> bool:
    sequences = all(
        isinstance(each, tuple | list) or (hasattr(each, "_fields") and hasattr(each, "__len__"))
        for each in members
    )
    return sequences and len({len(each) for each in members}) == 1 and len(members[0]) > 0


def _leaves(path: tuple[Any, ...], value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping) and value:
        return [row for key, each in value.items() for row in _leaves((*path, key), each)]
    if isinstance(value, list | tuple) and value:
        return [row for index, each in enumerate(value) for row in _leaves((*path, index), each)]
    return [(path[0] if len(path) == 1 else ".".join(map(str, path)), value)]
