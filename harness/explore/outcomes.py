"""Outcomes: comparison of the external state after a job with the state after its clean run.

All tables, mails and keys are compared, cell by cell. Exceptions are cells that differ between two clean
runs, numbers that the database assigned to new rows, and the time of the run: :attr:`Reference.ignored` lists
them.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from harness.errors import UsageError
from harness.explore.cells import NOW, Clock
from harness.explore.differences import (
    RANK,
    Difference,
    changed,
    missing_table,
    named,
    rows_differ,
    shown,
)
from harness.explore.matching import Links, Mask, Pattern, Rest, Sheet
from harness.explore.tables import BODIES, Contents, Table, from_value

__all__ = ["Contents", "Difference", "Reference", "Table", "reading"]

MAX_NAMED = 3
"""Maximum number of rows that are named for a column that is not compared in them."""


class Reference:
    """Outcome of the clean runs.

    :param first: the state before. :param clean: the state after a clean run; :param again: after another.
    :param new: the state after a clean run of the new version, if there is one. Differences between the versions are
        not compared.
    :param began: the time before the clean runs, in seconds since 1970.
    :param later: returns the initial contents of all resources if some were found since its last call. Resources that
        no clean run used must not change.
    :ivar unseen: description of those differences.
    :ivar ignored: description of everything else that is not compared, with the reason.
    :raises UsageError: if the two clean runs differ in more than the values of cells, or if the versions have nothing
        in common that could be compared.
    """

    def __init__(
        self,
        first: Contents,
        clean: Contents,
        again: Contents,
        new: Contents | None = None,
        *,
        began: float | None = None,
        later: Callable[[], Contents] = dict,
    ) -> None:
        late = {name: table for name, table in later().items() if name not in clean and name not in first}
        clean, first = {**late, **clean}, {**late, **first}
        self._clean, self._first, self._later = clean, first, later
        self._clock = clock = Clock(began)
        self._sheets = {name: Sheet(name, first.get(name), table, clock) for name, table in clean.items()}
        self.unseen: list[str] = []
        self.ignored: list[str] = []
        self._optional_keys: dict[str, dict[Any, tuple[Any, ...]]] = {}
        self._optional: dict[str, Counter[Pattern]] = {}
        if set(again) != set(clean):
            names = ", ".join(sorted(set(again) ^ set(clean)))
            raise UsageError(
                f"two clean runs leave different outcomes ({names} only after one of them); the job must do "
                "the same each time on the same data: give outcome= a function that leaves out what may "
                "differ"
            )
        for name, sheet in self._sheets.items():
            noise = (
                {}
                if sheet.same(again[name])
                else sheet.learn(again[name], self._links(again), self._links(clean))
            )
            self._describe_noise(sheet, noise)
            for index, rows in sorted(sheet.times(again[name]).items()):
                self.ignored.append(f"{_cells(sheet, sheet.table.columns[index], rows)}: the {NOW}")
        if new is not None:
            self._leave_out(new)

    def differences(self, contents: Contents) -> list[Difference]:
        """Return the differences from the clean run's contents, the worst first."""
        found: list[Difference] = []
        for name, table in self._later().items():
            if name not in self._clean and name not in self._first:
                self._clean[name] = self._first[name] = table
                self._sheets[name] = Sheet(name, table, table, self._clock)
        for name in sorted(self._clean.keys() | contents.keys()):
            left, clean = contents.get(name), self._clean.get(name)
            if left is None or clean is None:
                found += self._of_missing(name, clean, left)
            elif not self._sheets[name].same(left):
                found += self._compare(self._sheets[name], left, contents)
        labels = {each.table for each in found}
        found = [each for each in found if each.table.removeprefix(BODIES) not in labels - {each.table}]
        return sorted(found, key=lambda each: (RANK.index(each.kind), str(each)))

    def knows(self, name: str) -> bool:
        """Return whether a table of that name exists after the clean run."""
        return name in self._sheets

    def identified(
        self, name: str, mask: Mask | None, contents: Contents, rows: Mapping[Any, int]
    ) -> dict[Any, Any]:
        """Return the identities of rows, each with the value that shows whether the row has changed.

        :param mask: None for the rows that are known by their key; the key identifies them, and their cells must be
            the same. Otherwise the compared cells under the mask identify a row, and the number of such rows must be
            the same.
        :param contents: contents at that time. :param rows: rows at that time, with their counts.
        """
        sheet, table = self._sheets[name], contents.get(name)
        if table is None:
            return {}
        links = self._links(contents) if table.references else _none
        found: dict[Any, Any] = {}
        for row, number in rows.items():
            [cells] = sheet.plain(replace(table, rows=[row]))
            key = sheet.key_of(cells)
            known = bool(sheet.table.key) and key in sheet.keys
            if known and mask is None:
                found[key] = cells
            elif not known and mask is not None:
                identity = sheet.project(cells, mask, links)
                found[identity] = found.get(identity, 0) + number
        return found

    def in_transactions(self, name: str) -> bool:
        """Return whether a transaction could hold the rows of this table together with the progress."""
        table = self._clean.get(name) or self._first.get(name)
        return table is not None and table.transactional

    def _compare(self, sheet: Sheet, table: Table, contents: Contents) -> list[Difference]:
        name, (known, pool) = sheet.name, sheet.split(table)
        optional = self._optional_keys.get(name, {})
        columns = sheet.table.columns
        found = []
        for key, values in sheet.rows.known.items():
            if key not in known:
                if key not in optional:
                    text = f"{name}: no row {shown(sheet.table, values)}"
                    found.append(Difference("lost", name, text, row=("known", key)))
            elif known[key] != values and (wrong := sheet.changed(key, known[key])):
                cells = [(columns[index], values[index], known[key][index]) for index in wrong]
                found.append(changed(sheet.table, name, key, cells))
        for key, values in known.items():
            if key not in sheet.rows.known and optional.get(key) != values:
                text = f"{name}: one row more, {shown(sheet.table, values)}"
                found.append(Difference("duplicated", name, text, row=("known", key)))
        links, clean_links = self._links(contents), self._links(self._clean)
        rest = sheet.rest(pool, links, clean_links)
        if not rest.missing and not rest.extra:
            return found
        missing, extra = self._without_optional(sheet, rest.missing, rest.extra, links)
        wanted = sheet.patterns(clean_links)

        def project(row: Any, mask: Mask) -> tuple[Any, ...]:
            return sheet.project(row, mask, links)

        return found + rows_differ(sheet, wanted, Rest(missing, extra), project, rest.extra)

    def _of_missing(self, name: str, clean: Table | None, table: Table | None) -> list[Difference]:
        """Compare a table that only one of the two outcomes has."""
        optional, keys = self._optional.get(name), self._optional_keys.get(name, {})
        rows = clean or table
        assert rows is not None  # noqa: S101 - it is in one of the two
        if optional is None and not keys:
            return missing_table(name, rows, lost=table is None)
        sheet = self._sheets.get(name) or Sheet(name, None, replace(rows, rows=[]), Clock())
        if clean is not None:
            return self._compare(sheet, replace(clean, rows=[]), {})
        allowed = Counter({each.cells: times for each, times in (optional or Counter()).items()})
        left = Counter(sheet.project(row, (), _none) for row in sheet.plain(rows)) - allowed
        return [
            Difference("duplicated", name, f"{name}: one row more, {shown(rows, row)}", times, row=("", row))
            for row, times in left.items()
        ]

    def _links(self, contents: Contents) -> Links:
        """Return a function that resolves references to rows whose numbers the database assigned."""
        texts: dict[tuple[str, Any], str] = {}
        referring = {name: dict(table.references) for name, table in contents.items() if table.references}
        if not referring:
            return _none
        for target in {each for references in referring.values() for each in references.values()}:
            sheet, table = self._sheets.get(target), contents.get(target)
            if sheet is None or table is None or not sheet.given:
                continue
            for row in sheet.plain(table):
                key = sheet.key_of(row)
                if key not in sheet.old:
                    hidden = tuple((index, "nothing") for index in sheet.columns_hidden())
                    cells = sheet.project(row, hidden, _none)
                    texts[target, key[0]] = f"→ {target}{shown(sheet.table, cells)}"
        return lambda name, index, value: texts.get((referring.get(name, {}).get(index, ""), value), value)

    def _describe_noise(self, sheet: Sheet, noise: dict[int, list[Any]]) -> None:
        for index, rows in sorted(noise.items()):
            column = sheet.table.columns[index]
            cells = _cells(sheet, column, rows)
            parts = sheet.parts(index)
            if parts == {"blurred"}:
                self.ignored.append(f"{cells}: its times and random ids differ between two clean runs")
            elif all(isinstance(part, frozenset) or part == "blurred" for part in parts):
                self.ignored.append(f"{cells}: some of its words differ between two clean runs")
            else:
                self.ignored.append(f"{cells}: differs between two clean runs")
        if sheet.given and len(sheet.rows.pool):
            column = ", ".join(sheet.table.columns[index] for index in sheet.table.key)
            self.ignored.append(f"{sheet.name}.{column} of new rows: numbers that the database gives")

    # Comparison of two versions of the code.

    def _leave_out(self, new: Contents) -> None:
        """Exclude each cell and row in which the two versions differ.

        :raises UsageError: if nothing to compare remains, or if rows cannot be matched.
        """
        compared = False
        for name in sorted(self._clean.keys() | new.keys()):
            clean, other = self._clean.get(name), new.get(name)
            if clean is None or other is None:
                self._leave_out_table(name, clean, other)
                continue
            sheet = self._sheets[name]
            if not sheet.same(other):
                self._leave_out_cells(sheet, other, new)
            if clean != self._first.get(name):
                compared = compared or sheet.common(other, self._links(new), self._links(self._clean))
        if not compared:
            raise UsageError(
                "the two versions leave no equal results to compare; give outcome= a function that returns "
                "what both must leave"
            )

    def _leave_out_cells(self, sheet: Sheet, other: Table, new: Contents) -> None:
        name, (known, pool) = sheet.name, sheet.split(other)
        noise: set[int] = set()
        for key in known.keys() & sheet.rows.known.keys():
            noise |= sheet.hide(key, known[key])
        mine, theirs = sheet.rows.known, known
        one_sided = {key: row for key, row in mine.items() if key not in theirs}
        one_sided_new = {key: row for key, row in theirs.items() if key not in mine}
        links, clean_links = self._links(new), self._links(self._clean)
        rest = sheet.rest(pool, links, clean_links)
        missing, extra = rest.missing.total() + len(one_sided), rest.extra.total() + len(one_sided_new)
        if rest.missing and rest.extra and rest.missing.total() == rest.extra.total():
            noise |= set(sheet.hide_pool(pool, links, clean_links))
        elif missing and extra:
            counts = len(self._clean[name].rows), len(other.rows)
            raise UsageError(
                f"the two versions leave different rows in {name}, {counts[0]} and {counts[1]} of them, "
                "which cannot be matched; give outcome= a function that returns what both must leave"
            )
        elif missing or extra:
            self._optional_keys[name] = {**one_sided, **one_sided_new}
            base = sheet.mask(())
            self._optional[name] = rest.missing + Counter(
                {Pattern(base, sheet.project(row, base, links)): times for row, times in rest.extra.items()}
            )
            self._say_rows(name, missing + extra)
        self.unseen += [f"{name}.{sheet.table.columns[index]}" for index in sorted(noise)]

    def _leave_out_table(self, name: str, clean: Table | None, other: Table | None) -> None:
        table = clean or other
        assert table is not None  # noqa: S101 - it is in one of the two
        sheet = self._sheets.get(name) or Sheet(name, None, replace(table, rows=[]), Clock())
        known, pool = sheet.split(table)
        self._optional_keys[name] = known
        self._optional[name] = Counter(
            Pattern(sheet.mask(()), sheet.project(row, sheet.mask(()), _none)) for row in pool
        )
        self._say_rows(name, len(table.rows))

    def _say_rows(self, name: str, number: int) -> None:
        self.unseen.append(f"{number} {'row' if number == 1 else 'rows'} of {name}")

    def _without_optional(
        self, sheet: Sheet, missing: Counter[Pattern], extra: Counter[Any], links: Links
    ) -> tuple[Counter[Pattern], Counter[Any]]:
        """Mark the rows that only one of the versions writes as optional."""
        optional = self._optional.get(sheet.name)
        if not optional:
            return missing, extra
        left, more = Counter[Any](), optional.copy()
        for row, times in extra.items():
            for pattern in optional:
                if sheet.project(row, pattern.mask, links) == pattern.cells:
                    taken = min(times, more[pattern])
                    more[pattern] -= taken
                    times -= taken  # noqa: PLW2901 - the remaining ones
            left[row] += times
        return missing - optional, +left


def _cells(sheet: Sheet, column: str, rows: list[Any]) -> str:
    """Return the name of a column, with the affected rows if not all are."""
    keys = [row for row in rows if row is not None]
    name = sheet.name
    if len(rows) == len(keys) <= MAX_NAMED:
        return ", ".join(f"{name}({named(sheet.table, key)}).{column}" for key in keys)
    return f"{name}.{column} in {len(rows)} of {len(sheet.rows.known) + len(sheet.rows.pool)} rows"


def _none(_table: str, _index: int, value: Any) -> Any:
    return value


def reading(outcome: Callable[..., Any] | None, contents: Callable[[], Contents]) -> Callable[[], Contents]:
    """Return the function that reads the outcome: the contents of all resources, or the result of a user's function.

    The result is compared cell by cell: a mapping by its keys, rows by their columns.
    """
    if outcome is None:
        return contents
    takes_contents = bool(inspect.signature(outcome).parameters)

    def read() -> Contents:
        return {"outcome": from_value(outcome(contents()) if takes_contents else outcome())}

    return read
