"""Items of enumerators within enumerators.

**The cursor** is a tuple with one element per level. The innermost element is a cursor of the innermost
enumerator. An outer element names the item in progress there::

    ("at", 17, "after", 16, "proofs", (None, None))

``after`` is the cursor of the last item finished, and the level is read from there; ``at`` is that of the item in
progress. The positions of the levels below belong to that item and to no other:

* The item in progress is found again: the levels below continue at their positions.
* New items come before it: they are done completely, and the item in progress with its positions is kept
  under ``"held"`` until it is found.
* The item in progress is a batch of a select: it now has the rows between the same two cursors, and continues.
* It is not found again, because it left the collection (often because the job marked it as done with its last
  inner item): its positions are dropped, and the rest continues.
* The cursors of the level are positions, as with :func:`~harness.items` and CSV files, and do not identify an
  item: then the item in progress must be the first one after ``after``, and the proofs must be valid.

Cursors of release 0.1 do not say which item was in progress. They are refused, because their meaning would be
a guess.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from harness.cursor import freeze
from harness.errors import CollectionChanged, CursorError
from harness.sources.enumerators import Enumerator, as_pair, iterating, iterating_either

Level: TypeAlias = Callable[..., Iterable[tuple[Any, Any]] | AsyncIterable[tuple[Any, Any]]]
Cursor: TypeAlias = tuple[Any, ...]


def nested(levels: Sequence[Level], *, cursor: Cursor | None) -> Enumerator[Any]:
    """Yield the items of the innermost of several enumerators, one within the other.

    ::

        nested([lambda cursor: records(session, Customer, cursor=cursor),
                lambda customer, cursor: records(session, Order.of(customer), cursor=cursor)], cursor=cursor)

    In an async job each level may be async, such as ``records()`` with an ``AsyncSession``. A level may have
    a guard; the data for the comparison of an outer one is in the cursor after its first item is finished.
    The module describes the effect when outer items come or go while the job is stopped.

    :param levels: functions that take the items of the levels above and ``cursor``, outermost first.
    :raises TypeError: for levels that are no functions.
    :raises CursorError: if the cursor is none of this enumerator.
    :raises CollectionChanged: while iterating, if a level that counts places has changed before its cursor.
    """
    if not levels or not all(callable(level) for level in levels):
        raise TypeError(
            "nested() takes functions that return enumerators, such as lambda cursor: times(3, cursor=cursor)"
        )
    if cursor is not None:
        _check(cursor, len(levels))
    nesting = _Nesting(list(levels), cursor)
    # A cursor has the positions of the levels, and these depend on the items read before.
    return Enumerator(nesting.pairs, witness=nesting, serial="nested()", awaited=nesting.pairs_async)


@dataclass
class _Held:
    """Item that was in progress when the job stopped.

    :ivar at: its cursor. :ivar inner: elements of the levels below it. :ivar proof: proof of the level's
        position there. :ivar innermost: proof of the innermost level's position.
    """

    at: Any
    inner: Cursor
    proof: Any
    innermost: Any

    def to_cursor(self) -> Cursor:
        return (self.at, self.inner, self.proof, self.innermost)


@dataclass
class _Element:
    """Element of an outer level in a cursor.

    :ivar at: cursor of the item in progress. :ivar after: cursor of the last item finished; None for none.
        :ivar finished: proof of ``after``. :ivar current: proof of ``at``. :ivar held: other items in
        progress.
    """

    at: Any
    after: Any
    finished: Any
    current: Any
    held: list[_Held]

    def to_cursor(self) -> Cursor:
        found = ("at", self.at, "after", self.after, "proofs", (self.finished, self.current))
        return (*found, "held", tuple(each.to_cursor() for each in self.held)) if self.held else found

    @classmethod
    def read(cls, element: Any) -> _Element | None:
        """Read the form in a cursor; None if the level has not started.

        :raises CursorError: for another form.
        """
        if element is None:
            return None
        parts = dict(zip(element[::2], element[1::2], strict=False)) if type(element) is tuple else {}
        try:
            (finished, current), held = parts["proofs"], parts.get("held", ())
            return cls(parts["at"], parts["after"], finished, current, [_Held(*each) for each in held])
        except (KeyError, TypeError, ValueError):
            raise CursorError(
                f"nested() got {element!r} for an outer level, as in the cursors of earlier releases: it "
                "does not say which item was in progress; finish the job with the release that started it, "
                "or start it again"
            ) from None


class _Nesting:
    """Reads the levels; also the proof of their positions."""

    def __init__(self, levels: list[Level], cursor: Cursor | None) -> None:
        self._levels, self._cursor = levels, cursor
        # The innermost level of the latest item, and the previous one: while an item is in progress, the
        # position is still that of the previous item. Each with the outer elements of its cursors.
        self._latest: list[tuple[Cursor, Enumerator[Any]]] = []
        self._stored: Any = None

    def proof(self, cursor: Any) -> Any:
        """Return the proof of the innermost position; those of the outer ones are in the cursor."""
        for outer, level in self._latest:
            if type(cursor) is tuple and cursor[:-1] == outer and level.witness is not None:
                return level.witness.proof(cursor[-1])
        return None

    def check(self, cursor: Any, proof: Any) -> None:
        """Keep the proof until the innermost level is opened at its position."""
        del cursor
        self._stored = proof

    def pairs(self) -> Iterator[tuple[Any, Cursor]]:
        """Yield the innermost items with their cursors."""
        return self._descend(self._top())

    def pairs_async(self) -> AsyncIterator[tuple[Any, Cursor]]:
        """Yield the same; each level may be plain or async."""
        return self._descend_async(self._top())

    def _top(self) -> _Place:
        return _Place(0, (), (), self._cursor or (None,) * len(self._levels), self._stored)

    # Two drivers, for ``for`` and for ``async for``. All decisions are in _Outer and in _innermost().

    def _descend(self, place: _Place) -> Iterator[tuple[Any, Cursor]]:
        if place.depth == len(self._levels) - 1:
            innermost = self._innermost(place)
            with iterating(innermost) as pairs:
                for index, (item, cursor) in enumerate(map(as_pair, pairs)):
                    if not index:
                        self._latest = [*self._latest[-1:], (place.outer, innermost)]
                    yield item, (*place.outer, cursor)
            return
        outer = _Outer(self._levels[place.depth], place)
        with iterating(outer.level) as pairs:
            for pair in pairs:
                yield from self._descend(outer.enter(pair))
                outer.leave()

    async def _descend_async(self, place: _Place) -> AsyncGenerator[tuple[Any, Cursor], None]:
        if place.depth == len(self._levels) - 1:
            innermost = self._innermost(place)
            begun = False
            async with iterating_either(innermost) as pairs:
                async for pair in pairs:
                    item, cursor = as_pair(pair)
                    if not begun:
                        begun, self._latest = True, [*self._latest[-1:], (place.outer, innermost)]
                    yield item, (*place.outer, cursor)
            return
        outer = _Outer(self._levels[place.depth], place)
        async with iterating_either(outer.level) as pairs:
            async for pair in pairs:
                async with aclosing(self._descend_async(outer.enter(pair))) as below:
                    async for found in below:
                        yield found
                outer.leave()

    def _innermost(self, place: _Place) -> Enumerator[Any]:
        position = place.elements[0]
        level = _opened(self._levels[-1], place.above, position)
        if position is not None and level.witness is not None:
            level.witness.check(position, place.proof)
        return level


class _Place(NamedTuple):
    """A level that is about to be read.

    :ivar above: items of the levels above. :ivar outer: their elements of the cursor. :ivar elements: those of this
        level and the ones below, to go on at. :ivar proof: of the innermost position.
    """

    depth: int
    above: tuple[Any, ...]
    outer: Cursor
    elements: Cursor
    proof: Any


class _Outer:
    """An outer level while it is read.

    :ivar level: what to iterate.
    """

    def __init__(self, function: Level, place: _Place) -> None:
        element = _Element.read(place.elements[0])
        self._place = place
        self._after = element.after if element else None
        level = _opened(function, place.above, self._after)
        self._finished, self._held = _unpacked(level, element, place.elements[1:], place.proof)
        if self._held and level.until is not None:
            # The batch in progress is what lies between, whatever its size is now.
            level = level.until(self._held[0].at)
        self.level = level
        self._at: Any = None
        self._current: Any = None

    def enter(self, pair: Any) -> _Place:
        """Begin an item; return the level below."""
        depth, above, outer, elements, _ = self._place
        item, cursor = as_pair(pair)
        level, held = self.level, self._held
        resumed = _taken(held, cursor, level)
        if level.positional and held:
            raise CollectionChanged(
                f"level {depth + 1} of nested() has changed since the job stopped: the item in progress was "
                f"at {held[0].at!r}, now it is at {cursor!r}; restore the data, or start the job again"
            )
        self._current, self._at = _proof(level, cursor), freeze(cursor)
        progress = _Element(self._at, self._after, self._finished, self._current, held).to_cursor()
        inner, innermost = (
            (resumed.inner, resumed.innermost) if resumed else ((None,) * (len(elements) - 1), None)
        )
        return _Place(depth + 1, (*above, item), (*outer, progress), inner, innermost)

    def leave(self) -> None:
        """Note that the item is finished."""
        self._after, self._finished = self._at, self._current


def _opened(level: Level, above: tuple[Any, ...], after: Any) -> Enumerator[Any]:
    found = level(*above, cursor=freeze(after))
    return found if isinstance(found, Enumerator) else Enumerator(found)


def _unpacked(
    level: Enumerator[Any], element: _Element | None, below: Cursor, innermost: Any
) -> tuple[Any, list[_Held]]:
    """Return the proof of the last item finished, and the items in progress, from the element of a level."""
    if element is None:
        return None, []
    if element.after is not None and level.witness is not None:
        level.witness.check(element.after, element.finished)
    return element.finished, [_Held(element.at, below, element.current, innermost), *element.held]


def _taken(held: list[_Held], cursor: Any, level: Enumerator[Any]) -> _Held | None:
    """Remove the item at a cursor from those in progress, and return it; None if it is not among them."""
    for index, each in enumerate(held):
        # A position is the same only in the same collection, so the proof of a guard counts there.
        if each.at == cursor if level.positional else _place(each.at) == _place(cursor):
            if level.witness is not None:
                level.witness.check(cursor, each.proof)
            return held.pop(index)
    return None


def _place(cursor: Any) -> Any:
    # The proof of a guarded cursor counts items, but does not identify an item.
    return cursor["at"] if type(cursor) is dict and list(cursor) == ["at", "guard"] else cursor


def _proof(level: Enumerator[Any], cursor: Any) -> Any:
    return None if level.witness is None else level.witness.proof(cursor)


def _check(cursor: Any, levels: int) -> None:
    if type(cursor) is not tuple or len(cursor) != levels:
        raise CursorError(f"nested() resumes from a tuple of {levels} elements or from None; got {cursor!r}")
    for element in cursor[:-1]:
        _Element.read(element)
