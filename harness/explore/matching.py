"""Matching of the rows of one table: by key, or as a multiset of the cells in which clean runs do not differ.

Noise is recorded by cell. A row with a key has its own mask; a row without one is a pattern, whose masked
cells match any value. So a time in one row does not hide a cell of another row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from harness.errors import UsageError
from harness.explore.cells import Clock, Part, difference, looks_random, plain, seen, weaker
from harness.explore.pairing import MOST, paired
from harness.explore.tables import Table

Mask = tuple[tuple[int, Part], ...]
"""Columns that are compared only in part, with that part."""
Links = Callable[[str, int, Any], Any]
"""Returns the content of the row that a number in a column of a table refers to."""

DROPPED = "nothing"


class Pattern(NamedTuple):
    """Compared part of a row."""

    mask: Mask
    cells: tuple[Any, ...]


class Split(NamedTuple):
    """Rows by their key, and rows without a key that is the same in each run."""

    known: dict[Any, tuple[Any, ...]]
    pool: list[tuple[Any, ...]]


class Rest(NamedTuple):
    """Rows without a key that only one of two runs has."""

    missing: Counter[Pattern]
    extra: Counter[tuple[Any, ...]]


class Sheet:
    """Table of the clean run, and its compared parts.

    :param first: the table before the job. :param clean: the table after it.
    :ivar masks: masks of the rows with a key.
    """

    def __init__(self, name: str, first: Table | None, clean: Table, clock: Clock) -> None:
        self.name, self.table, self._clock = name, replace(clean, rows=[]), clock
        old = {self.key_of(row) for row in self.plain(first)} if first else set()
        rows = self.plain(clean)
        self.given = clean.numbered and _are_given(old, [self.key_of(row) for row in rows], clean)
        self._base: Mask = tuple((index, DROPPED) for index in clean.key) if self.given else ()
        self.keys = old if self.given else old | {self.key_of(row) for row in rows}
        self.masks: dict[Any, Mask] = {}
        self._pool_masks: dict[tuple[Any, ...], Mask] = {}
        self._all_masks: list[Mask] = []
        self.old = old
        self._raw = clean.rows
        self.rows = self.split(clean)

    def plain(self, table: Table | None) -> list[tuple[Any, ...]]:
        """Return the rows with values that can be compared."""
        if table is None:
            return []
        json = table.json
        return [
            tuple(plain(value, is_json=index in json) for index, value in enumerate(row))
            for row in table.rows
        ]

    def key_of(self, row: tuple[Any, ...]) -> Any:
        """Return the key of a row."""
        return tuple(row[index] for index in self.table.key)

    def split(self, table: Table | None) -> Split:
        """Return the rows by key, and the rows without a usable key, such as a second row with the same key."""
        known: dict[Any, tuple[Any, ...]] = {}
        pool = []
        for row in self.plain(table):
            key = self.key_of(row)
            if self.table.key and key in self.keys and key not in known:
                known[key] = row
            else:
                pool.append(row)
        return Split(known, pool)

    def same(self, table: Table) -> bool:
        """Return whether all rows are equal and in the same order, so that no further comparison is needed."""
        return table.rows == self._raw

    # Comparing.

    def changed(self, key: Any, row: tuple[Any, ...]) -> list[int]:
        """Return the columns in which a row with this key differs from the clean run."""
        clean, masks = self.rows.known[key], dict(self.masks.get(key, ()))
        return [
            index
            for index, (one, other) in enumerate(zip(clean, row, strict=True))
            if one != other and not self._alike(index, one, other, masks.get(index))
        ]

    def rest(self, pool: Iterable[tuple[Any, ...]], links: Links, clean_links: Links) -> Rest:
        """Return the missing and the extra rows without a key."""
        wanted, found = Counter(map(self._bare, self.rows.pool)), Counter(map(self._bare, pool))
        extra = found - wanted
        missing = Counter[Pattern]()
        for row, times in (wanted - found).items():
            mask = self.mask(row)
            missing[Pattern(mask, self.project(row, mask, clean_links))] += times
        for mask in sorted({pattern.mask for pattern in missing}, key=len):
            cells: dict[Any, list[tuple[Any, ...]]] = {}
            for row in extra:
                cells.setdefault(self.project(row, mask, links), []).append(row)
            for pattern in [each for each in missing if each.mask == mask]:
                for row in cells.get(pattern.cells, ()):
                    _take(missing, extra, pattern, row)
        missing, extra = +missing, +extra
        if missing and extra and missing.total() * extra.total() <= MOST**2:
            for pattern in list(missing):
                for row in list(extra):
                    if self._fits(pattern, self.project(row, pattern.mask, links)):
                        _take(missing, extra, pattern, row)
        return Rest(+missing, +extra)

    def patterns(self, links: Links) -> Counter[Pattern]:
        """Return the rows of the clean run that have no key."""
        found = Counter[Pattern]()
        for row in self.rows.pool:
            mask = self.mask(self._bare(row))
            found[Pattern(mask, self.project(row, mask, links))] += 1
        return found

    def mask(self, bare: tuple[Any, ...]) -> Mask:
        """Return the mask of a row of the clean run."""
        return self._pool_masks.get(bare, self._base)

    def project(self, row: tuple[Any, ...], mask: Mask, links: Links) -> tuple[Any, ...]:
        """Return the cells of a row that are compared."""
        moments, part = self.table.moments, dict(mask)
        references = {index for index, _ in self.table.references}
        return tuple(
            seen(value, part[index])
            if index in part
            else links(self.name, index, value)
            if index in references
            else self._clock.soft(value, declared=index in moments)
            for index, value in enumerate(row)
        )

    def _bare(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a row without the key that the database assigned."""
        if not self.given:
            return row
        return tuple("…" if index in self.table.key else value for index, value in enumerate(row))

    def _alike(self, index: int, one: Any, other: Any, part: Part | None) -> bool:
        if part is not None:
            return bool(seen(one, part) == seen(other, part))
        declared = index in self.table.moments
        soft = self._clock.soft(one, declared=declared)
        return bool(soft == self._clock.soft(other, declared=declared)) or self._clock.moved(one, other)

    def _fits(self, pattern: Pattern, cells: tuple[Any, ...]) -> bool:
        return all(
            one == other or self._clock.moved(one, other)
            for one, other in zip(pattern.cells, cells, strict=True)
        )

    def times(self, again: Table) -> dict[int, list[Any]]:
        """Return the cells that hold the time of the run: rows by column, as :meth:`learn` returns them."""
        found: dict[int, list[Any]] = {}
        theirs = self.split(again).known
        moments = self.table.moments
        for key, row in self.rows.known.items():
            for index, value in enumerate(row):
                differs = index in moments or value != theirs[key][index]
                if differs and self._clock.soft(value, declared=index in moments) != value:
                    found.setdefault(index, []).append(key)
        for row in self.rows.pool:
            for index, value in enumerate(row):
                if self._clock.soft(value, declared=index in moments) != value:
                    found.setdefault(index, []).append(None)
        return found

    def all_masks(self) -> list[Mask]:
        """Return the masks of all rows; the mask that hides the fewest cells comes first."""
        if not self._all_masks:
            masks = {self.mask(self._bare(row)) for row in self.rows.pool} or {self._base}
            self._all_masks = sorted(masks, key=lambda mask: (len(mask), repr(mask)))
        return self._all_masks

    def columns_hidden(self) -> set[int]:
        """Return the columns that are not compared in some row."""
        masks = [*self.masks.values(), *self._pool_masks.values(), self._base]
        return {index for mask in masks for index, _ in mask}

    def parts(self, index: int) -> set[Part]:
        """Return the compared parts of a column that is not compared completely."""
        masks = [*self.masks.values(), *self._pool_masks.values()]
        return {part for mask in masks for each, part in mask if each == index}

    # Learning what is noise.

    def hide(self, key: Any, row: tuple[Any, ...]) -> set[int]:
        """Mark the cells that differ in a row with this key as noise; return their columns."""
        columns = set(self.changed(key, row))
        for index in columns:
            part = difference(self.rows.known[key][index], row[index])
            self.masks[key] = _added(self.masks.get(key, ()), index, part)
        return columns

    def hide_pool(self, pool: list[tuple[Any, ...]], links: Links, clean_links: Links) -> list[int]:
        """Mark the cells in which rows without a key differ as noise; return the column of each."""
        columns = []
        self._all_masks = []
        for clean, row in self._pairs(pool, links, clean_links):
            mask = self.mask(clean)
            for index, (one, value) in enumerate(zip(clean, row, strict=True)):
                hidden = dict(mask).get(index)
                if hidden != DROPPED and not self._alike(index, one, value, hidden):
                    mask = _added(mask, index, difference(one, value))
                    columns.append(index)
            self._pool_masks[clean] = mask
        return columns

    def learn(self, other: Table, links: Links, clean_links: Links) -> dict[int, list[Any]]:
        """Mark each cell that differs in another clean run as noise.

        :return: the rows of these cells by column: a key, or None for a row without one.
        :raises UsageError: if the two runs differ in more than values.
        """
        noise: dict[int, list[Any]] = {}
        self._forget_random_keys(other)
        known, pool = self.split(other)
        if known.keys() != self.rows.known.keys():
            raise Unlike(self.name)
        for key, row in known.items():
            for index in self.hide(key, row):
                noise.setdefault(index, []).append(key)
        for index in self.hide_pool(pool, links, clean_links):
            noise.setdefault(index, []).append(None)
        return noise

    def _forget_random_keys(self, other: Table) -> None:
        """Match new rows by their other cells if their keys differ between clean runs and look random."""
        if len(other.rows) != len(self._raw):
            raise NotAsMany(self.name)
        if not self.table.key or self.given:
            return
        theirs, mine = {self.key_of(row) for row in self.plain(other)}, set(self.rows.known)
        unlike = (mine ^ theirs) - self.old
        if not unlike:
            return
        random = all(any(looks_random(value) for value in key) for key in unlike)
        if (mine | theirs) & self.old != mine & theirs & self.old or not random:
            raise Unlike(self.name)
        self.keys -= unlike
        self._all_masks = []
        rows = [*self.rows.known.values(), *self.rows.pool]
        self.rows = self.split(replace(self.table, rows=rows, json=frozenset()))

    def _pairs(
        self, pool: list[tuple[Any, ...]], links: Links, clean_links: Links
    ) -> list[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        """Return pairs of corresponding rows of the two runs that are not equal."""
        rest = self.rest(pool, links, clean_links)
        counts = Counter(map(self._bare, self.rows.pool)) - Counter(map(self._bare, pool))
        missing = []
        for row in counts.elements():
            pattern = Pattern(self.mask(row), self.project(row, self.mask(row), clean_links))
            if rest.missing[pattern] > 0:
                rest.missing[pattern] -= 1
                missing.append(row)
        extra = list(rest.extra.elements())
        if len(missing) != len(extra):
            raise NotAsMany(self.name)
        return paired(missing, extra, len(self.table.columns))

    def common(self, other: Table, links: Links, clean_links: Links) -> bool:
        """Return whether any compared cell is the same in both."""
        known, pool = self.split(other)
        width = len(self.table.columns)
        for key, row in known.items():
            hidden = {*dict(self.masks.get(key, ())), *self.table.key}
            if key in self.rows.known and not self.changed(key, row) and len(hidden) < width:
                return True
        missing = self.rest(pool, links, clean_links).missing
        there = self.patterns(clean_links) - missing
        return any(sum(part in {"set", "nothing"} for _, part in each.mask) < width for each in there)


class Unlike(UsageError):
    """Two clean runs differ in the rows that they leave."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"two clean runs leave different outcomes (other rows in {name}); the job must do the same each "
            "time on the same data: give outcome= a function that leaves out what may differ"
        )


class NotAsMany(UsageError):
    """Two clean runs differ in the number of rows that they leave."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"two clean runs leave different numbers of rows in {name}; the job must do the same each time "
            "on the same data"
        )


def _take(
    missing: Counter[Pattern], extra: Counter[tuple[Any, ...]], pattern: Pattern, row: tuple[Any, ...]
) -> None:
    times = min(missing[pattern], extra[row])
    missing[pattern] -= times
    extra[row] -= times


def _added(mask: Mask, index: int, part: Part) -> Mask:
    parts = dict(mask)
    parts[index] = weaker(parts.get(index), part)
    return tuple(sorted(parts.items(), key=lambda each: each[0]))


def _are_given(old: set[Any], keys: list[Any], table: Table) -> bool:
    """Return whether the database can have assigned the numbers of new rows: they are consecutive after the last one.

    Numbers that the job chose are compared, and so is the number in a table without other columns.
    """
    new = [key[0] for key in keys if key not in old]
    if len(table.columns) == 1:
        return False
    if not new or not all(isinstance(each, int) for each in new):
        return True
    last = max((key[0] for key in old if isinstance(key[0], int)), default=0)
    return sorted(new) == list(range(min(new), min(new) + len(new))) and min(new) > last
