"""Asynchronous half of :class:`harness.iteration.IterationJob`: the same work, with functions that are awaited.

The whole work of an execution is one coroutine in one task: ``around_iterate``, ``build_enumerator`` and the items. So
all of them may use objects that belong to a task, such as a task group that ``around_iterate`` opens. Each part may be
plain or async. After an item, the cursor, the count and the checkpoint follow without an ``await`` at which another
item could run. So a save has the cursor of work that is done.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager
from functools import lru_cache
from types import FunctionType
from typing import TYPE_CHECKING, Any

from harness import events
from harness.concurrency.sessions import session_of
from harness.concurrency.window import is_concurrent, number_of
from harness.cursor import ATOMIC, freeze
from harness.errors import CompleteEarly, Interrupt, UsageError
from harness.runtime import callables
from harness.runtime.listeners import of_items
from harness.runtime.loops import EitherWay, is_async_session, is_awaitable, unwrapped
from harness.sources.enumerators import Enumerator, as_pair, iterating_either

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator


def transaction_of(job: Any) -> EitherWay:
    """Return the transaction of an item; see :meth:`harness.iteration.IterationJob.transaction`.

    Crash before the commit: nothing happened. Crash after it, or a lost answer: the work happened, and the
    item is done again.
    """
    name, session, execution = type(job).__name__, session_of(job), job.execution

    @contextmanager
    def plain() -> Iterator[Any]:
        if is_async_session(session):
            raise UsageError(f"{name}.session is an AsyncSession; write async with self.transaction()")
        yield session
        if not execution.commits:
            session.commit()

    @asynccontextmanager
    async def awaited() -> AsyncIterator[Any]:
        yield session
        if not execution.commits and is_awaitable(done := session.commit()):
            await done

    return EitherWay(plain, awaited)


def needs_loop(job: Any) -> bool:
    """Return whether functions of an iteration job are coroutine functions."""
    functions = type(job).build_enumerator, type(job).each_iteration
    if all(type(each) is FunctionType for each in functions):
        return _awaits(functions)
    return _awaits.__wrapped__(functions)


@lru_cache(maxsize=256)
def _awaits(functions: tuple[Any, ...]) -> bool:
    kinds = {callables.ASYNC, callables.ASYNC_GENERATOR}
    return any(callables.kind_of(each) in kinds for each in functions)


def is_async_manager(found: Any) -> bool:
    """Return whether ``around_iterate`` returned a context manager for ``async with`` alone."""
    return hasattr(type(found), "__aenter__") and not hasattr(type(found), "__enter__")


async def run_items(job: Any, around: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Do the work of one execution; see :meth:`harness.iteration.IterationJob.run_pattern`."""
    raised: BaseException | None = None
    async with _entered(around):
        try:
            if not job.execution.progress.all_done:
                await _run_within(job, args, kwargs)
        except BaseException as error:
            raised = unwrapped(error)
            if raised is error:
                raise
            raise raised from error
    if raised is not None:  # around_iterate suppressed the error, but the items after it are not done
        raise raised


async def _run_within(job: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    execution = job.execution
    job._refuse_steps()
    start = execution.portion.after if execution.step is None else execution.cursor
    found: Any = None
    try:
        found = job.build_enumerator(*args, cursor=freeze(start), **kwargs)
        if is_awaitable(found):
            found = await found
        enumerator = job._begin_enumerator(found, start)
        if enumerator is not None:
            await run_enumerator(job, enumerator, args, kwargs)
    except Interrupt as control:
        await _keep_what_is_done(job, control)
        if isinstance(control, CompleteEarly) and isinstance(found, Enumerator):
            found.ended_early(execution)
        raise
    if execution.transactional and number_of(job) == 1:  # concurrent items have committed separately
        await execution.commit_async()


async def _keep_what_is_done(job: Any, control: Interrupt) -> None:
    always = job._is_kept(control) if number_of(job) == 1 else None
    if always is not None:
        await job.execution.commit_async(always=always)


async def run_enumerator(
    job: Any, enumerator: Enumerator[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Do the work on each item of an enumerator, plain or async."""
    if job.execution.progress.total is None:
        await enumerator.find_size()
    job._note_drift(enumerator)
    if is_concurrent(job):
        from harness.concurrency.items import Concurrent  # noqa: PLC0415 - it needs asyncio and threads

        await Concurrent(job, enumerator, args, kwargs).run()
        return
    progress, limit = job.execution.progress, job.execution.portion.limit
    before = progress.done, progress.cursor
    async with iterating_either(enumerator) as pairs:
        if job._is_to_set_aside():
            await _set_aside(job, pairs)
        if limit is None:
            await _iterate(job, pairs, args, kwargs, batched=enumerator.batched)
        else:
            async with aclosing(_first(job.execution, pairs, limit)) as wanted:
                await _iterate(job, wanted, args, kwargs, batched=enumerator.batched)
    job._emit_nothing_found(before)


async def _iterate(
    job: Any, pairs: AsyncIterator[Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, batched: bool
) -> None:
    execution = job.execution
    progress, each, listeners = execution.progress, job.each_iteration, of_items
    async for pair in pairs:
        item, cursor = pair if type(pair) is tuple and len(pair) == 2 else as_pair(pair)
        position = cursor if type(cursor) in ATOMIC else freeze(cursor)
        try:
            result = each(item, *args, **kwargs)
            if result is not None and is_awaitable(result):
                result = await result
        except BaseException as error:
            found = unwrapped(error)
            job._note_failure(found, position)
            if found is error:
                raise
            raise found from error
        if result is not None:
            callables.refuse_result(result, job, "each_iteration")
        progress.cursor = position
        progress.done = done = progress.done + (len(item) if batched else 1)
        if listeners:
            events.emit(events.ItemDone(execution.job_id, type(job).__name__, position, execution.items))
        if done >= progress.check_at:
            await execution.run_checkpoint_async()


async def _set_aside(job: Any, pairs: AsyncIterator[Any]) -> None:
    pair = await anext(pairs, None)
    if pair is not None:
        aside = job._pass_over(pair)
        await job.execution.run_hook_async("on_quarantine", pair[0], aside.error)


async def _first(execution: Any, pairs: AsyncIterator[Any], limit: int) -> AsyncGenerator[Any, None]:
    while execution.done < limit:  # checked before the next item is read
        try:
            yield await anext(pairs)
        except StopAsyncIteration:
            return


def _entered(around: Any) -> AbstractAsyncContextManager[Any]:
    if is_async_manager(around):
        return around  # type: ignore[no-any-return]  # the author's

    @asynccontextmanager
    async def plain() -> AsyncIterator[None]:
        with around:
            yield

    return plain()
