"""Sources of items for an :class:`~harness.iteration.IterationJob`.

An enumerator yields pairs ``(item, cursor)``. The cursor means "done up to and including here": passed to the
same function, it yields exactly the following items. ``None`` is the beginning.
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from harness.cursor import IMMUTABLE
from harness.errors import CollectionChanged, CursorError, JobDefinitionError
from harness.runtime import callables, guards
from harness.runtime.guards import Origin
from harness.runtime.loops import is_awaitable

if TYPE_CHECKING:
    from harness.context import Context
    from harness.runtime.guards import Witness

T = TypeVar("T")

Pairs: TypeAlias = Iterable[tuple[T, Any]] | AsyncIterable[tuple[T, Any]]


class Enumerator(Generic[T]):
    """Pairs ``(item, cursor)`` with facts about them.

    ``build_enumerator`` may return any iterable of pairs; this class adds a size, for progress bars, and
    marks items that are batches, so that their members are counted.

    :param pairs: the pairs that come after the cursor, or a function that returns them; also an async iterable, or
        an async generator function. Of a function, every iteration begins at the cursor again; an iterator can be
        read only once.
    :param size: how many items there are in all, those before the cursor included; a callable is asked
        once, when the number is first needed; ``None`` if that would not be cheap. Of an enumerator for ``async
        for`` it may be an async function.
    :param batched: True if every item is a sized batch of items.
    :param witness: proof that a stored cursor still means the same.
    :param origin: what the cursors belong to, in words; see :class:`~harness.runtime.guards.Origin`.
    :param until: for batches, whose borders depend on their size: takes cursors, and returns the same enumerator with
        first batches that end there, where there is anything up to them.
    :param positional: True if a cursor is a place, where another item may be the next time, and no key.
    :param keyed: True if a cursor is the key of its item alone, so that it says which item it is, whatever came before.
    :param serial: what it is, if its items can be done one after the other only; None if ``concurrency`` may be used.
    :param expect: takes the cursors beyond that of the job, each with whether its item is done. Called before reading,
        where there are any, for a guard that counts what is left.
    :param awaited: function that returns the same pairs for ``async for``; used in coroutines of an async job. For
        pairs that come from other enumerators, of which some may be async.
    """

    def __init__(
        self,
        pairs: Pairs[T] | Callable[[], Pairs[T]],
        *,
        size: int | Callable[[], int | Awaitable[int | None] | None] | None = None,
        batched: bool = False,
        witness: Witness | None = None,
        positional: bool = False,
        origin: str | None = None,
        until: Callable[..., Enumerator[T]] | None = None,
        keyed: bool = False,
        serial: str | None = None,
        expect: Callable[[list[tuple[Any, bool]]], None] | None = None,
        awaited: Callable[[], AsyncIterable[tuple[T, Any]]] | None = None,
    ) -> None:
        self._pairs = pairs
        self._awaited = awaited
        self._size = size
        self._read = False
        self.batched = batched
        self.witness = witness if origin is None else Origin(origin, witness)
        self.positional = positional
        self.until = until
        self.keyed, self.serial, self.expect = keyed, serial, expect

    def __iter__(self) -> Iterator[tuple[T, Any]]:
        pairs: Any = self._pairs() if callable(self._pairs) else self._pairs
        if is_async(pairs):
            if self.is_async:
                raise JobDefinitionError(
                    "this enumerator is async; read it with async for, or in a job whose build_enumerator or "
                    "each_iteration is async def"
                )
            raise JobDefinitionError(
                "this enumerator was created from a function that returns an async iterable; pass the "
                "async generator function itself or the async iterable to Enumerator()"
            )
        iterator = iter(pairs)
        if iterator is self._pairs:
            self._refuse_second_reading()
        return iterator  # type: ignore[no-any-return]  # what the author gave

    @property
    def is_async(self) -> bool:
        """True if the pairs are read by ``async for`` alone."""
        return is_async(self._pairs) or callables.kind_of(self._pairs) == callables.ASYNC_GENERATOR

    @property
    def may_await(self) -> bool:
        """True if the pairs may be read by ``async for``."""
        return self._awaited is not None or self.is_async

    def __aiter__(self) -> AsyncIterator[tuple[T, Any]]:
        if self._awaited is not None:
            return aiter(self._awaited())
        pairs: Any = self._pairs() if callable(self._pairs) else self._pairs
        iterator = aiter(pairs)
        if iterator is self._pairs:
            self._refuse_second_reading()
        return iterator  # type: ignore[no-any-return]  # what the author gave

    def _refuse_second_reading(self) -> None:
        if self._read:
            raise JobDefinitionError(
                "this enumerator was already read, and a second reading would omit items; return it "
                "unread, or build it from a function: Enumerator(lambda: pairs())"
            )
        self._read = True

    def within(self, execution: Context) -> Enumerator[T] | None:
        """Return the pairs of an execution; None for nothing."""
        del execution
        return self

    def ended_early(self, execution: Context) -> None:
        """Record that the job raised ``CompleteEarly``: the remaining items need not be done."""

    @property
    def free_size(self) -> int | None:
        """The size if it is known without a query, else None."""
        return None if callable(self._size) else self._size

    @property
    def size(self) -> int | None:
        """Total number of items, or None if unknown.

        :raises JobDefinitionError: if it has to be awaited: see :meth:`find_size`.
        """
        if callable(self._size):
            found = self._size()
            if is_awaitable(found):
                callables.close(found)
                raise JobDefinitionError(
                    "the size of this enumerator has to be awaited; use await enumerator.find_size()"
                )
            self._size = found  # type: ignore[assignment]  # it is none to await
        return self._size  # type: ignore[return-value]  # nor to call

    async def find_size(self) -> int | None:
        """Return the size as :attr:`size` does, also where a database has to be awaited for it."""
        if callable(self._size):
            found: Any = self._size()
            self._size = await found if is_awaitable(found) else found
        return self._size  # type: ignore[return-value]  # as above


_UNORDERED = (str, bytes, set, frozenset, Mapping)
"""Types that can be iterated, but not as pairs in a fixed order."""


def enumerator_of(found: Any, name: str) -> Enumerator[Any]:
    """Return the result of ``build_enumerator`` as an enumerator.

    :param name: name of the job, for errors. :raises JobDefinitionError: if it is not one.
    """
    if isinstance(found, Enumerator):
        return found
    if isinstance(found, Iterable | AsyncIterable) and not isinstance(found, _UNORDERED):
        if isinstance(found, Generator) and inspect.getgeneratorstate(found) != inspect.GEN_CREATED:
            raise JobDefinitionError(
                f"{name}.build_enumerator returned a generator that was already read, so items are missing; "
                "return it unread"
            )
        return Enumerator(found)
    callables.close(found)
    raise JobDefinitionError(
        f"{name}.build_enumerator returned {type(found).__name__}; return an iterable of (item, cursor) pairs in an "
        "order that does not change, such as items(…), records(…) or a list, or None"
    )


def is_async(pairs: object) -> bool:
    """Return whether pairs are read by ``async for``."""
    return pairs.is_async if isinstance(pairs, Enumerator) else hasattr(type(pairs), "__aiter__")


@contextmanager
def iterating(pairs: Iterable[T]) -> Iterator[Iterator[T]]:
    """Yield an iterator, and close it at the end of the block if it can be closed.

    The cleanup of a generator then does not wait for the garbage collector.
    """
    iterator = iter(pairs)
    try:
        yield iterator
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


@asynccontextmanager
async def iterating_async(pairs: AsyncIterable[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Yield an async iterator, and close it at the end of the block if it can be closed."""
    iterator = aiter(pairs)
    try:
        yield iterator
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


@asynccontextmanager
async def iterating_either(pairs: Enumerator[Any]) -> AsyncIterator[AsyncIterator[Any]]:
    """Yield an async iterator of pairs, plain or async, and close it at the end of the block if it can be closed."""
    if pairs.may_await:
        async with iterating_async(pairs) as iterator:
            yield iterator
    else:
        with iterating(pairs) as plain:
            async with aclosing(_each(plain)) as iterator:
                yield iterator


async def _each(pairs: Iterator[Any]) -> AsyncGenerator[Any, None]:
    for pair in pairs:
        yield pair


def as_pair(found: Any) -> tuple[Any, Any]:
    """Return a yielded value as an item and its cursor.

    :raises JobDefinitionError: if it is not a pair; a text of two letters, a set and a dict are not pairs.
    """
    if type(found) is tuple and len(found) == 2:
        return found
    unordered = isinstance(found, str | bytes | bytearray | set | frozenset | Mapping)
    if not unordered and isinstance(found, Iterable):
        pair = tuple(found)
        if len(pair) == 2:
            return pair
    raise JobDefinitionError(
        f"build_enumerator yielded {reprlib.repr(found)}, which is not a pair; yield (item, cursor), where "
        "the cursor means: done up to and including this item"
    )


def items(sequence: Sequence[T], *, cursor: Any, guard: bool = False) -> Enumerator[T]:
    """Yield the items of a sequence; the cursor is the index.

    The part of the sequence that was done must be the same in every execution, because an index does not
    identify an item. For immutable items, such as numbers and strings, a job compares a digest of the items
    up to the cursor when it resumes. For other items use *guard*: a digest of all items, in each cursor,
    compared at the beginning and at the end of every execution; the items must then be such as a cursor may
    be.

    :raises CursorError: if the cursor is none of this enumerator, or with *guard* an item has no JSON form.
    :raises CollectionChanged: while iterating, if the sequence is another one.
    """
    if not isinstance(sequence, Sequence) or isinstance(sequence, str | bytes):
        raise TypeError(
            f"items() takes a sequence such as a list or a tuple; got {type(sequence).__name__}; "
            "for a query use records(), for a generator yield (item, cursor) pairs yourself"
        )
    position, proof = guards.split("items()", cursor, guard=guard)
    start = _after(position, "items()")
    if guard:
        return Enumerator(
            lambda: _guarded(sequence, start, proof), size=len(sequence), positional=True, origin="items()"
        )
    return Enumerator(
        lambda: ((sequence[index], index) for index in range(start, len(sequence))),
        size=len(sequence),
        witness=_Passed(sequence),
        positional=True,
        origin="items()",
    )


class _Passed:
    """Proof of a sequence: a digest of the items up to the cursor, continued at each save.

    Mutable items have none, because the job may change them while it works.
    """

    def __init__(self, sequence: Sequence[Any]) -> None:
        self._sequence = sequence
        self._state, self._index, self._provable = guards.hasher(), 0, True

    def proof(self, cursor: Any) -> str | None:
        if type(cursor) is not int:
            return None
        if cursor < self._index - 1:  # a position before, as after a rollback
            return _Passed(self._sequence).proof(cursor)
        for index in range(self._index, min(cursor + 1, len(self._sequence))):
            item = self._sequence[index]
            if not self._provable or not (
                type(item) in IMMUTABLE or (type(item) is tuple and IMMUTABLE.issuperset(map(type, item)))
            ):
                self._provable = False
                return None
            self._state.update(guards.line(item))
        self._index = max(self._index, cursor + 1)
        return self._state.hexdigest() if self._provable and cursor < len(self._sequence) else None

    def check(self, cursor: Any, proof: Any) -> None:
        if proof is not None and self.proof(cursor) != proof:
            raise CollectionChanged(
                f"the sequence of items() has changed since the job stopped: the items up to index {cursor} "
                "are not those that were done; restore the data, or start the job again"
            )


def proof_of(sequence: Sequence[Any]) -> str | None:
    """Return a digest of a sequence of immutable items; None if some are mutable."""
    return _Passed(sequence).proof(len(sequence) - 1) if sequence else None


def _guarded(sequence: Sequence[T], start: int, proof: Any) -> Iterator[tuple[T, Any]]:
    found, length = guards.digest("items()", sequence), len(sequence)
    guards.compare("the sequence of items()", proof, found)
    for index in range(start, length):
        if len(sequence) != length:
            raise CollectionChanged(
                f"the sequence of items() had {length} items when the execution began, now it has {len(sequence)}"
            )
        yield sequence[index], guards.guarded(index, found)
    guards.compare("the sequence of items()", found, guards.digest("items()", sequence))


def times(number: int, *, cursor: int | None) -> Enumerator[int]:
    """Yield 0 … number - 1; the cursor is the last number done."""
    if type(number) is not int or number < 0:
        raise TypeError(f"times() takes an int of 0 or more; got {number!r}")
    start = _after(cursor, "times()")
    return Enumerator(
        lambda: ((index, index) for index in range(start, number)), size=number, origin="times()", keyed=True
    )


def once(*, cursor: bool | None) -> Enumerator[None]:
    """Yield a single None; its cursor is True."""
    return Enumerator([] if cursor else [(None, True)], size=1)


def _after(cursor: int | None, name: str) -> int:
    if cursor is None:
        return 0
    if type(cursor) is not int or cursor < 0:
        raise CursorError(f"{name} resumes from an int of 0 or more; got {cursor!r}")
    return cursor + 1
