"""Items that wait while a condition holds."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from harness.errors import RetryLater, UsageError
from harness.sources.enumerators import Enumerator, Pairs, iterating, iterating_async

T = TypeVar("T")


def throttle(
    pairs: Pairs[T],
    *,
    on: Callable[[], Any] | Sequence[Callable[[], Any]],
    backoff: float | Callable[[], float],
) -> Enumerator[T]:
    """Yield the items of another enumerator, and make the job wait while a condition in *on* is true.

    ::

        throttle(records(session, Order, cursor=cursor), on=replica_lags, backoff=30)

    They are asked before each item is produced, including the first: nothing is read for an item that has to
    wait. After the last item they are asked again, because only the enumerator knows that it was the last.

    :param on: one function or several; true means wait. They are asked in turn until one does.
    :param backoff: seconds to wait, or a function that returns them.
    :raises RetryLater: while iterating, if the job has to wait.
    """
    if not isinstance(pairs, Iterable | AsyncIterable) or isinstance(pairs, str | bytes):
        raise UsageError(
            f"throttle() got {type(pairs).__name__}; use an enumerator such as records(…) or an iterable of "
            "(item, cursor) pairs"
        )
    asked = list(on) if isinstance(on, Sequence) else [on]
    if not asked or not all(callable(each) for each in asked):
        raise TypeError(f"throttle() takes a function or a list of functions as on; got {on!r}")
    if not callable(backoff):
        RetryLater(backoff)  # refuses what is no number of seconds
    known = pairs if isinstance(pairs, Enumerator) else Enumerator(pairs)
    size, until = known.free_size, known.until
    awaited: Any = partial(_throttled_async, known, asked, backoff)
    return Enumerator(
        awaited if known.is_async else partial(_throttled, known, asked, backoff),
        awaited=awaited if known.may_await else None,
        size=(known.find_size if known.is_async else lambda: known.size) if size is None else size,
        batched=known.batched,
        witness=known.witness,
        positional=known.positional,
        until=None if until is None else lambda *ends: throttle(until(*ends), on=asked, backoff=backoff),
        keyed=known.keyed,
        serial=known.serial,
        expect=known.expect,
    )


def _throttled(
    pairs: Iterable[T], asked: list[Callable[[], Any]], backoff: float | Callable[[], float]
) -> Iterator[T]:
    _ask(asked, backoff)
    with iterating(pairs) as iterator:
        for pair in iterator:
            yield pair
            _ask(asked, backoff)


async def _throttled_async(
    pairs: AsyncIterable[T], asked: list[Callable[[], Any]], backoff: float | Callable[[], float]
) -> AsyncIterator[T]:
    _ask(asked, backoff)
    async with iterating_async(pairs) as iterator:
        async for pair in iterator:
            yield pair
            _ask(asked, backoff)


def _ask(asked: list[Callable[[], Any]], backoff: float | Callable[[], float]) -> None:
    if any(each() for each in asked):
        raise RetryLater(backoff() if callable(backoff) else backoff, reason="throttled")
