"""History of rows: the states of the clean run in which each row was written."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.explore.cells import plain
from harness.explore.matching import Mask, Pattern

if TYPE_CHECKING:
    from harness.explore.outcomes import Contents, Difference, Reference
    from harness.explore.tables import Table

Row = tuple[Any, ...]
Change = tuple[int, dict[Row, int], dict[Row, int]]
"""State, and the rows that changed in it with their counts, before and after."""


class History:
    """Index of the changes between the states of a recording, built at the first query.

    :param contents: returns the contents of a state. :param states: number of states.
    """

    def __init__(self, reference: Reference, contents: Callable[[int], Contents], states: int) -> None:
        self._reference, self._contents, self._number = reference, contents, states
        self._found: dict[str, list[Change]] | None = None
        self._indexes: dict[tuple[str, Mask | None], dict[Any, list[int]]] = {}

    def written(self, difference: Difference, before: int) -> int:
        """Return the latest state, up to one, in which the row of a difference changed; 0 for none."""
        states = self._states(difference)
        place = bisect_right(states, before)
        return states[place - 1] if place else 0

    def _states(self, difference: Difference) -> list[int]:
        name, (kind, row) = difference.table, difference.row
        pattern = isinstance(row, Pattern)
        if not self._reference.knows(name) or not (pattern or kind == "known"):
            return [state for state, _, _ in self._changes.get(name, ())]
        mask = row.mask if pattern else None
        if (name, mask) not in self._indexes:
            self._indexes[name, mask] = self._index(name, mask)
        return self._indexes[name, mask].get(row.cells if pattern else row, [])

    def _index(self, name: str, mask: Mask | None) -> dict[Any, list[int]]:
        """Return the states by the key of a row, or by its compared part under a mask."""
        found: dict[Any, list[int]] = {}
        for state, removed, added in self._changes.get(name, ()):
            before = self._reference.identified(name, mask, self._contents(state - 1), removed)
            after = self._reference.identified(name, mask, self._contents(state), added)
            for identity in dict.fromkeys([*before, *after]):
                if before.get(identity) != after.get(identity):
                    found.setdefault(identity, []).append(state)
        return found

    @property
    def _changes(self) -> dict[str, list[Change]]:
        """The changes by table, in order."""
        if self._found is None:
            self._found = {}
            before: dict[str, tuple[Table, Counter[Row]]] = {}
            for state in range(self._number):
                contents = self._contents(state)
                counts = {name: self._counted(before.get(name), table) for name, table in contents.items()}
                for name in before.keys() | counts.keys() if state else ():
                    self._compare(name, state, before.get(name), counts.get(name))
                before = counts
        return self._found

    @staticmethod
    def _counted(before: tuple[Table, Counter[Row]] | None, table: Table) -> tuple[Table, Counter[Row]]:
        if before is not None and before[0].rows == table.rows:
            return before
        try:
            return table, Counter(table.rows)
        except TypeError:  # there is a value that cannot be hashed
            return table, Counter(tuple(map(plain, row)) for row in table.rows)

    def _compare(
        self,
        name: str,
        state: int,
        old: tuple[Table, Counter[Row]] | None,
        new: tuple[Table, Counter[Row]] | None,
    ) -> None:
        if old is new:
            return
        ours: Counter[Row] = old[1] if old else Counter()
        theirs: Counter[Row] = new[1] if new else Counter()
        assert self._found is not None  # noqa: S101 - this is called while it is filled
        self._found.setdefault(name, []).append(
            (state, dict(ours.items() - theirs.items()), dict(theirs.items() - ours.items()))
        )
