"""Outcomes: what a job left outside, compared with what its clean run left.

Compared are the rows of all tables, mails, keys. Left out is what may differ: columns of dates and times, but for
whether they are set; numbers that the database gave to new rows; and columns that differ between two clean runs.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError
from harness.explore.places import Table

Contents = dict[str, Table]
MAX_COLUMNS = 5
"""Number of columns of a row that are shown."""


@dataclass(frozen=True)
class Difference:
    """A row that is not as in the clean run.

    :ivar kind: ``lost``, ``duplicated`` or ``wrong total``. :ivar text: the row, in words.
    :ivar table: where; :ivar times: how many such rows there are too few or too many.
    :ivar more: whether a number is larger than it should be, as after doing something twice.
    :ivar row: how the row is known: ``known`` by its key, or ``new``, by its values.
    """

    kind: str
    table: str
    text: str
    times: int = 1
    more: bool = False
    row: tuple[str, Any] = ("", None)

    def __str__(self) -> str:
        return self.text


class Reference:
    """Outcome of the clean runs.

    :param first: the state before. :param clean: the state after a clean run; :param again: after another.
    :param new: the state after a clean run of the new version, if there is one. Differences between the versions are
        not compared.
    :ivar unseen: description of those differences.
    :raises UsageError: if the two clean runs differ in more than a column's values, or if the versions have nothing in
        common that could be compared.
    """

    def __init__(
        self, first: Contents, clean: Contents, again: Contents, new: Contents | None = None
    ) -> None:
        self._clean = clean
        self._old = {name: _keys(table) for name, table in first.items()}
        self._noise = {name: _noise(name, clean[name], again.get(name)) for name in clean}
        self._expected = {name: self._comparable(name, table) for name, table in clean.items()}
        self.unseen: list[str] = []
        self._optional: dict[str, Counter[Any]] = {}
        found = self.differences(again)
        if found or set(again) != set(clean):
            raise UsageError(
                f"two clean runs leave different outcomes ({'; '.join(map(str, found[:3]))}); the job must do the same "
                "whenever it runs on the same data: give outcome= a function that leaves out what may differ"
            )
        if new is not None:
            self._leave_out(first, new)

    def differences(self, contents: Contents) -> list[Difference]:
        """Return how the contents differ from the clean run's."""
        found: list[Difference] = []
        for name in self._clean.keys() | contents.keys():
            if name in self._optional:
                found += self._compare_common(name, contents.get(name))
                continue
            table = contents.get(name)
            clean = self._clean.get(name)
            if table is None or clean is None:
                rows = clean or table
                assert rows is not None  # noqa: S101 - it is in one of the two
                kind = "lost" if table is None else "duplicated"
                found += [
                    Difference(kind, name, f"{name}: {_shown(rows.columns, row)}", row=("new", row))
                    for row in rows.rows
                ]
            elif table.rows != clean.rows:
                found += self._compare(name, table)
        return sorted(found, key=str)

    def value(self, contents: Contents, difference: Difference) -> Any:
        """Return what the contents hold of the row that a difference is about; None for nothing."""
        table = contents.get(difference.table)
        if table is None:
            return None
        kind, row = difference.row
        return self._comparable(difference.table, table)[kind == "new"].get(row)

    def _comparable(self, name: str, table: Table) -> tuple[dict[Any, Any], Counter[Any]]:
        """Return rows that are known by their key, and a count of those that are not."""
        noise, old = self._noise.get(name, frozenset()), self._old.get(name, frozenset())
        known: dict[Any, Any] = {}
        new: Counter[Any] = Counter()
        for row in table.rows:
            key = tuple(row[index] for index in table.key)
            values = tuple(
                (value is not None) if index in table.moments else value
                for index, value in enumerate(row)
                if index not in noise
            )
            if key and (not table.numbered or key in old):
                known[key] = values
            else:
                new[tuple(_hashable(v) for v in _without(values, table, noise))] += 1
        return known, new

    # What two versions of the code have in common.

    def _leave_out(self, first: Contents, new: Contents) -> None:
        """Exclude each column and row that the two versions leave in different ways.

        :raises UsageError: if that leaves nothing to compare, or if it is unknown which rows belong together.
        """
        compared = False
        for name in sorted(self._clean.keys() | new.keys()):
            clean, other = self._clean.get(name), new.get(name)
            if clean is not None and other is not None and len(clean.rows) == len(other.rows):
                self._leave_out_columns(name, clean, other)
            else:
                self._leave_out_rows(name, clean, other)
            if clean is not None and clean != first.get(name):
                common = self._rows(name, clean) & self._rows(name, other)
                compared = compared or (bool(common) and len(self._noise[name]) < len(clean.columns))
        if not compared:
            raise UsageError(
                "the two versions leave nothing alike, so that nothing can be compared; give outcome= a function that "
                "returns what both must leave"
            )

    def _leave_out_columns(self, name: str, clean: Table, other: Table) -> None:
        if self._rows(name, clean) == self._rows(name, other):
            return
        pairs = zip(_in_order(clean), _in_order(other), strict=True)
        differing = {
            index
            for one, two in pairs
            for index, (x, y) in enumerate(zip(one, two, strict=True))
            if x != y and index not in clean.moments and not (clean.numbered and index in clean.key)
        }
        self.unseen += [f"{name}.{clean.columns[index]}" for index in sorted(differing - self._noise[name])]
        self._noise[name] |= differing
        self._expected[name] = self._comparable(name, clean)

    def _leave_out_rows(self, name: str, clean: Table | None, other: Table | None) -> None:
        old, new = self._rows(name, clean), self._rows(name, other)
        if old - new and new - old:
            raise UsageError(
                f"the two versions leave different rows in {name}, {old.total()} and {new.total()} of them, so that "
                "nobody can tell which belong together; give outcome= a function that returns what both must leave"
            )
        self._optional[name] = (old - new) + (new - old)
        number = self._optional[name].total()
        self.unseen.append(f"{number} {'row' if number == 1 else 'rows'} of {name}")

    def _compare_common(self, name: str, table: Table | None) -> list[Difference]:
        """Compare the rows that both versions leave; those that one leaves may be there."""
        optional, clean = self._optional[name], self._rows(name, self._clean.get(name))
        found = self._rows(name, table)
        columns = (self._clean.get(name) or table or Table((), [])).columns
        missing, extra = clean - found - optional, found - clean - optional
        return [
            Difference("lost", name, f"{name}: no row {_listed(columns, row)}", times, row=row)
            for row, times in missing.items()
        ] + [
            Difference("duplicated", name, f"{name}: {_listed(columns, row)}, once more", times, row=row)
            for row, times in extra.items()
        ]

    def _rows(self, name: str, table: Table | None) -> Counter[Any]:
        """Return the comparable rows, each as ``(how it is known, what it holds)``."""
        known, new = self._comparable(name, table) if table else ({}, Counter())
        rows = Counter(("known", (key, tuple(map(_hashable, values)))) for key, values in known.items())
        rows.update({("new", row): times for row, times in new.items()})
        return rows

    def _compare(self, name: str, table: Table) -> list[Difference]:
        known, new = self._comparable(name, table)
        expected, wanted = self._expected[name]
        noise = self._noise[name]
        columns = tuple(column for index, column in enumerate(table.columns) if index not in noise)
        found = []
        for key, values in expected.items():
            if key not in known:
                found.append(
                    Difference("lost", name, f"{name}: no row {_shown(columns, values)}", row=("known", key))
                )
            elif known[key] != values:
                found.append(self._changed(name, table, key, columns, (values, known[key])))
        for key, values in known.items():
            if key not in expected:
                text = f"{name}: one row more, {_shown(columns, values)}"
                found.append(Difference("duplicated", name, text, row=("known", key)))
        shown = tuple(_without(columns, table, noise))
        return found + _new_rows(name, shown, wanted, new)

    @staticmethod
    def _changed(name: str, table: Table, key: Any, columns: Any, both: tuple[Any, Any]) -> Difference:
        at = ", ".join(f"{table.columns[i]}={value!r}" for i, value in zip(table.key, key, strict=True))
        differing = [
            (column, one, other) for column, one, other in zip(columns, *both, strict=True) if one != other
        ]
        words = ", ".join(f"{column} is {other!r}, not {one!r}" for column, one, other in differing)
        numeric = [(o, w) for _, w, o in differing if _is_number(o) and _is_number(w)]
        if not numeric:
            return Difference("lost", name, f"{name}({at}): {words}", row=("known", key))
        more = all(other > one for other, one in numeric)
        return Difference("wrong total", name, f"{name}({at}): {words}", more=more, row=("known", key))


def _new_rows(name: str, columns: Any, wanted: Counter[Any], new: Counter[Any]) -> list[Difference]:
    missing, extra = wanted - new, new - wanted
    found = []
    for row in [row for row in extra if row in wanted]:
        times = extra.pop(row)
        text = f"{name}: {_shown(columns, row)}, {wanted[row] + times} times"
        found.append(Difference("duplicated", name, text, times, row=("new", row)))
    for one, other in zip(sorted(missing, key=repr), sorted(extra, key=repr), strict=False):
        pairs = [(w, o) for w, o in zip(one, other, strict=True) if w != o]
        more = all(_is_number(w) and _is_number(o) and o > w for w, o in pairs)
        text = f"{name}: {_shown(columns, other)}, not {_shown(columns, one)}"
        found.append(Difference("wrong total", name, text, more=more, row=("new", other)))
        missing[one] -= 1
        extra[other] -= 1
    for row, times in (+missing).items():
        text = f"{name}: no row {_shown(columns, row)}"
        found.append(Difference("lost", name, text, times, row=("new", row)))
    for row, times in (+extra).items():
        text = f"{name}: one row more, {_shown(columns, row)}"
        found.append(Difference("duplicated", name, text, times, row=("new", row)))
    return found


def reading(outcome: Callable[..., Any] | None, contents: Callable[[], Contents]) -> Callable[[], Contents]:
    """Return what reads the outcome: the contents of all places, or what a function of the user's own returns."""
    if outcome is None:
        return contents
    takes_contents = bool(inspect.signature(outcome).parameters)

    def read() -> Contents:
        value = outcome(contents()) if takes_contents else outcome()
        if isinstance(value, Mapping):
            return {
                "outcome": Table(("key", "value"), [(k, _hashable(v)) for k, v in value.items()], key=(0,))
            }
        if isinstance(value, list | tuple | set | frozenset):
            return {"outcome": Table(("value",), [(_hashable(each),) for each in value])}
        return {"outcome": Table(("value",), [(_hashable(value),)])}

    return read


def _keys(table: Table) -> frozenset[Any]:
    return frozenset(_by_key(table))


def _by_key(table: Table) -> dict[Any, Any]:
    return {tuple(row[index] for index in table.key): row for row in table.rows}


def _noise(name: str, one: Table, other: Table | None) -> frozenset[int]:
    """Return the columns that differ between two clean runs."""
    if other is None or len(one.rows) != len(other.rows):
        raise UsageError(
            f"two clean runs leave different numbers of rows in {name}; the job must do the same whenever it runs on "
            "the same data"
        )
    return frozenset(
        index
        for a, b in zip(one.rows, other.rows, strict=True)
        for index, (x, y) in enumerate(zip(a, b, strict=True))
        if x != y and index not in one.moments and index not in one.key
    )


def _in_order(table: Table) -> list[tuple[Any, ...]]:
    """Return the rows of a table so that those of two tables can be compared one by one."""

    def place(row: tuple[Any, ...]) -> str:
        if table.key and not table.numbered:
            return repr([row[index] for index in table.key])
        return repr([value for index, value in enumerate(row) if index not in table.moments | {*table.key}])

    return sorted(table.rows, key=place)


def _listed(columns: Any, row: tuple[str, Any]) -> str:
    kind, values = row
    values = values[1] if kind == "known" else values
    return _shown(columns, values) if len(columns) == len(values) else repr(values)


def _without(values: Any, table: Table, noise: frozenset[int]) -> list[Any]:
    """Leave out the key that the database gave."""
    kept = [index for index in range(len(table.columns)) if index not in noise]
    gone = set(table.key) if table.numbered else set()
    return [value for index, value in zip(kept, values, strict=True) if index not in gone]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value


def _shown(columns: Any, row: Any) -> str:
    named = [f"{column}={value!r}" for column, value in zip(columns, row, strict=True)]
    if len(columns) == 1:
        return str(row[0])
    return f"({', '.join(named[:MAX_COLUMNS])}{', …' if len(named) > MAX_COLUMNS else ''})"
