"""Where an :class:`~harness.iteration.IterationJob` gets its items from.

An enumerator yields pairs ``(item, cursor)``. The cursor means "done up to and including here" (I6): given
back to the same function it yields exactly the items that come after. ``None`` is the beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from harness.errors import CursorError

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


def items(sequence: Sequence[T], *, cursor: int | None) -> Enumerator[T]:
    """Yield the items of a sequence; the cursor is the index (I21).

    The sequence must be the same in every execution: an index says nothing about what lies there.
    """
    if not isinstance(sequence, Sequence) or isinstance(sequence, str | bytes):
        raise TypeError(
            f"items() takes a sequence such as a list or a tuple, found {type(sequence).__name__}; "
            "for a query use records(), for a generator yield (item, cursor) pairs yourself"
        )
    start = _after(cursor, "items()")
    pairs = ((sequence[index], index) for index in range(start, len(sequence)))
    return Enumerator(pairs, size=len(sequence))


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
    that the item in progress is entered again; an inner one starts anew when the level above moves on.

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
    for item, cursor in first(*above, cursor=position):
        if not rest:
            yield item, (*finished, cursor)
            continue
        yield from _descend(rest, (*above, item), (*finished, position), cursors[1:])
        position, cursors = cursor, (cursor,) + (None,) * len(rest)


def _after(cursor: int | None, name: str) -> int:
    if cursor is None:
        return 0
    if type(cursor) is not int or cursor < 0:
        raise CursorError(f"{name} resumes from an int of 0 or more, found {cursor!r}")
    return cursor + 1
