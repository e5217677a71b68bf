"""Where an :class:`~harness.iteration.IterationJob` gets its items from.

An enumerator yields pairs ``(item, cursor)``. The cursor means "done up to and including here" (I6): given
back to the same function it yields exactly the items that come after. ``None`` is the beginning.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from harness import guards
from harness.errors import CollectionChanged, CursorError, JobDefinitionError, RetryLater

if TYPE_CHECKING:
    from harness.execution import Execution

T = TypeVar("T")


class Enumerator(Generic[T]):
    """Pairs ``(item, cursor)`` together with what is known about them.

    Any iterable of pairs may be returned from ``build_enumerator``; this class adds a size, for progress
    bars, and says when an item is a batch, so that its members are counted and not the batch.

    :param pairs: the pairs that come after the cursor.
    :param size: how many items there are in all, those before the cursor included; a callable is asked
        once, when the number is first needed; ``None`` if that would not be cheap.
    :param batched: True if every item is a sized batch of items.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[T, Any]],
        *,
        size: int | Callable[[], int | None] | None = None,
        batched: bool = False,
    ) -> None:
        self._pairs = pairs
        self._size = size
        self.batched = batched

    def __iter__(self) -> Iterator[tuple[T, Any]]:
        return iter(self._pairs)

    def within(self, execution: Execution) -> Enumerator[T] | None:
        """Return what is to be iterated in an execution; None for nothing."""
        del execution
        return self

    def ended_early(self, execution: Execution) -> None:
        """Note that the job raised ``CompleteEarly``: what is left need not be done."""

    @property
    def free_size(self) -> int | None:
        """The size if it is known without asking anybody, else None."""
        return None if callable(self._size) else self._size

    @property
    def size(self) -> int | None:
        """How many items there are in all, or None if unknown."""
        if callable(self._size):
            self._size = self._size()
        return self._size


@contextmanager
def iterating(pairs: Iterable[T]) -> Iterator[Iterator[T]]:
    """Give an iterator for the block, and close it at the end of it if it can be closed.

    What a generator cleans up must not wait for the garbage collector.
    """
    iterator = iter(pairs)
    try:
        yield iterator
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def as_pair(found: Any) -> tuple[Any, Any]:
    """Return what an enumerator has yielded as an item and its cursor.

    :raises JobDefinitionError: if it is no pair; a text of two letters, a set and a dict are none.
    """
    unordered = isinstance(found, str | bytes | bytearray | set | frozenset | Mapping)
    if not unordered and isinstance(found, Iterable):
        pair = tuple(found)
        if len(pair) == 2:
            return pair
    raise JobDefinitionError(
        f"build_enumerator yielded {reprlib.repr(found)}, which is no pair; yield (item, cursor), with the cursor that "
        "means: done up to and including this item"
    )


def items(sequence: Sequence[T], *, cursor: Any, guard: bool = False) -> Enumerator[T]:
    """Yield the items of a sequence; the cursor is the index (I21).

    The sequence must be the same in every execution: an index says nothing about what lies there. With *guard*
    that is checked by a digest of all items, made at the beginning of every execution and at the end; the items must
    then be such as a cursor may be.

    :raises CursorError: if the cursor is none of this enumerator, or with *guard* an item has no JSON form.
    :raises CollectionChanged: while iterating, if *guard* finds another sequence.
    """
    if not isinstance(sequence, Sequence) or isinstance(sequence, str | bytes):
        raise TypeError(
            f"items() takes a sequence such as a list or a tuple, found {type(sequence).__name__}; "
            "for a query use records(), for a generator yield (item, cursor) pairs yourself"
        )
    position, proof = guards.split("items()", cursor, guard=guard)
    start = _after(position, "items()")
    if guard:
        return Enumerator(_guarded(sequence, start, proof), size=len(sequence))
    pairs = ((sequence[index], index) for index in range(start, len(sequence)))
    return Enumerator(pairs, size=len(sequence))


def _guarded(sequence: Sequence[T], start: int, proof: Any) -> Iterator[tuple[T, Any]]:
    found, length = guards.digest("items()", sequence), len(sequence)
    guards.compare("the sequence of items()", proof, found)
    for index in range(start, length):
        if len(sequence) != length:
            raise CollectionChanged(
                f"the sequence of items() had {length} items when the execution began, found {len(sequence)}"
            )
        yield sequence[index], guards.guarded(index, found)
    guards.compare("the sequence of items()", found, guards.digest("items()", sequence))


def times(number: int, *, cursor: int | None) -> Enumerator[int]:
    """Yield 0 … number - 1; the cursor is the last number done (I22)."""
    if type(number) is not int or number < 0:
        raise TypeError(f"times() takes an int of 0 or more, found {number!r}")
    start = _after(cursor, "times()")
    return Enumerator(((index, index) for index in range(start, number)), size=number)


def once(*, cursor: bool | None) -> Enumerator[None]:
    """Yield a single None; the cursor is True once that is done (I23)."""
    return Enumerator([] if cursor else [(None, True)], size=1)


def nested(
    levels: Sequence[Callable[..., Iterable[tuple[Any, Any]]]], *, cursor: tuple[Any, ...] | None
) -> Enumerator[Any]:
    """Yield the items of the innermost of several enumerators, one within the other (I29).

    ::

        nested([lambda cursor: records(session, Customer, cursor=cursor),
                lambda customer, cursor: records(session, Order.of(customer), cursor=cursor)], cursor=cursor)

    The cursor is a tuple with one element a level. An outer one is that of the last item *finished* there, so
    that the item in progress is entered again; an inner one starts anew when the level above moves on. A level may
    have a guard; what an outer one compares with is in the cursor once its first item is finished.

    :param levels: functions that take the items of the levels above and ``cursor``, outermost first.
    :raises CursorError: if the cursor has not one element a level.
    """
    if not levels or not all(callable(level) for level in levels):
        raise TypeError(
            "nested() takes functions that return enumerators, such as lambda cursor: times(3, cursor=cursor)"
        )
    if cursor is not None and (type(cursor) is not tuple or len(cursor) != len(levels)):
        raise CursorError(
            f"nested() resumes from a tuple of {len(levels)} elements or from None, found {cursor!r}"
        )
    return Enumerator(_descend(levels, (), (), cursor or (None,) * len(levels)))


def _descend(
    levels: Sequence[Callable[..., Iterable[tuple[Any, Any]]]],
    above: tuple[Any, ...],
    finished: tuple[Any, ...],
    cursors: tuple[Any, ...],
) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    first, *rest = levels
    position = cursors[0]
    with iterating(first(*above, cursor=position)) as pairs:
        for item, cursor in pairs:
            if not rest:
                yield item, (*finished, cursor)
                continue
            yield from _descend(rest, (*above, item), (*finished, position), cursors[1:])
            position, cursors = cursor, (cursor,) + (None,) * len(rest)


def throttle(
    pairs: Iterable[tuple[T, Any]],
    *,
    on: Callable[[], Any] | Sequence[Callable[[], Any]],
    backoff: float | Callable[[], float],
) -> Enumerator[T]:
    """Yield what another enumerator yields, but have the job wait while one of *on* says so (I30).

    ::

        throttle(records(session, Order, cursor=cursor), on=replica_lags, backoff=30)

    They are asked before each item is produced, the first too: nothing is read for an item that has to wait. After the
    last item they are asked once more, for only the enumerator can say that it was the last.

    :param on: one function or several; true means wait. They are asked in turn until one does.
    :param backoff: seconds to wait, or a function that returns them.
    :raises RetryLater: while iterating, if the job shall wait.
    """
    asked = list(on) if isinstance(on, Sequence) else [on]
    if not asked or not all(callable(each) for each in asked):
        raise TypeError(f"throttle() takes a function or a list of functions as on, found {on!r}")
    if not callable(backoff):
        RetryLater(backoff)  # refuses what is no number of seconds
    known = pairs if isinstance(pairs, Enumerator) else Enumerator(pairs)
    size = known.free_size
    return Enumerator(
        _throttled(known, asked, backoff),
        size=(lambda: known.size) if size is None else size,
        batched=known.batched,
    )


def _throttled(
    pairs: Iterable[T], asked: list[Callable[[], Any]], backoff: float | Callable[[], float]
) -> Iterator[T]:
    def ask() -> None:
        if any(each() for each in asked):
            raise RetryLater(backoff() if callable(backoff) else backoff, reason="throttled")

    ask()
    with iterating(pairs) as iterator:
        for pair in iterator:
            yield pair
            ask()


def _after(cursor: int | None, name: str) -> int:
    if cursor is None:
        return 0
    if type(cursor) is not int or cursor < 0:
        raise CursorError(f"{name} resumes from an int of 0 or more, found {cursor!r}")
    return cursor + 1
