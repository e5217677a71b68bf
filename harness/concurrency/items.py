"""Several items of an :class:`harness.iteration.IterationJob` at a time, with one cursor.

One coroutine reads the items and starts a task for each. An ``async def each_iteration`` runs in the task, a plain one
in a thread that the task awaits. All changes of the progress happen on the event loop, so a save sees a consistent
state: the cursor of the last item up to which all items are done, and the done items beyond it (see
:mod:`harness.concurrency.window`).

**A stop** starts no more items. Items in progress are finished, and a save that becomes due in that time is made.
After 80 % of the grace period coroutines are cancelled, and the next execution repeats their items. Threads
cannot be cancelled and are waited for. Crash in that time: the next execution repeats unsaved work, as at any
other time.

**An error** of an item, or of the source, starts no more items either. The other items in progress finish; then the
error is raised with its usual meaning. If there are several errors, the error of the first item counts: all items
before it are done, so the quarantine counts it.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from harness import events
from harness.concurrency.sessions import Commits, begin, finished
from harness.concurrency.window import Entry, LowWater, Window, number_of, refuse_change
from harness.cursor import freeze
from harness.errors import HarnessError, Interrupt, Superseded
from harness.runtime import callables
from harness.runtime.listeners import of_items
from harness.runtime.loops import is_awaitable, unwrapped
from harness.runtime.policy import read_seconds
from harness.sources.enumerators import Enumerator, as_pair, iterating_either

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

DRAIN = 0.8
"""Share of the grace period in which items in progress are finished."""

STOP, CONTROL, ERROR, FATAL = range(1, 5)
"""Ranks of the causes of an end, the strongest last.

They are a stop source, an item's control exception, an error, and other exceptions such as SystemExit, for which
nothing waits.
"""


_NO_MORE: Any = object()
"""Marker of the end of an iterator, which may yield any value."""


class Concurrent:
    """Work of one execution on the items of an enumerator, several at a time."""

    def __init__(
        self, job: Any, enumerator: Enumerator[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._job, self._execution, self._enumerator = job, job.execution, enumerator
        self._each = functools.partial(_call, job, args, kwargs)
        self._most = number_of(job)
        self._is_async = callables.kind_of(type(job).each_iteration) == callables.ASYNC
        self._alone = 0
        """Number of remaining items to do one at a time."""
        self._tasks: dict[asyncio.Task[None], Entry] = {}
        self._cancelled: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._checkpointing = asyncio.Lock()
        self._ending: tuple[tuple[int, int], BaseException] | None = None
        self._until: float | None = None
        """Loop time at which items in progress are cancelled."""
        self._pool: ThreadPoolExecutor | None = None
        self._commits: Commits | None = None

    async def run(self) -> None:
        """Do the work on each item.

        :raises BaseException: the cause of the end, once no item is in progress.
        """
        execution, job = self._execution, self._job
        before = execution.progress.done, execution.progress.cursor
        trusted = self._enumerator.keyed or self._enumerator.positional or self._enumerator.until is not None
        self._window = execution.window = Window(
            execution.progress, trusted=trusted, cut=self._enumerator.until is not None
        )
        if execution.transactional and self._most > 1:
            self._commits = Commits(execution, self._window, self._checkpointing, self._in_thread)
        loop = asyncio.get_running_loop()
        wake = functools.partial(_wake, loop, self._changed)
        execution.loop.add_waiter(wake)
        try:
            self._witness = self._compare_entries()
            execution.witness = LowWater(self._window)
            async with self._reading() as pairs:
                if job._is_to_set_aside():
                    await self._set_aside(pairs)
                self._alone = self._most if job.quarantine and execution.progress.failures else 0
                await self._work(pairs)
            job._emit_nothing_found(before)
        finally:
            try:
                await self._abandon()
            finally:
                execution.loop.remove_waiter(wake)
                execution.end_window()

    # Reading.

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncIterator[tuple[Any, Entry]]]:
        """Yield an iterator of the items that are not done, each with its entry."""
        enumerator, ends = self._enumerator, self._window.ends
        if ends and enumerator.expect is not None:
            enumerator.expect([(each.cursor, each.done) for each in self._execution.progress.beyond])
        if ends and enumerator.until is not None:
            enumerator = enumerator.until(*ends)
        async with AsyncExitStack() as stack:
            pairs = await stack.enter_async_context(iterating_either(enumerator))
            first = await self._expected(pairs, ends) if ends and enumerator.positional else []
            yield await stack.enter_async_context(aclosing(self._entered(first, pairs)))

    async def _expected(self, pairs: AsyncIterator[Any], ends: list[Any]) -> list[tuple[Any, Any]]:
        """Read, before any work, the items that the record lists; their number is limited like the entries.

        :raises CollectionChanged: if they have changed.
        """
        found: list[tuple[Any, Any]] = []
        proofs = [each.proof for each in self._execution.progress.beyond]
        while len(found) < len(ends) and (pair := await anext(pairs, _NO_MORE)) is not _NO_MORE:
            found.append(as_pair(pair))
            if (proof := proofs[len(found) - 1]) is not None and self._witness is not None:
                self._witness.check(found[-1][1], proof)
        refuse_change(ends, [cursor for _, cursor in found])
        return found

    async def _entered(
        self, first: list[tuple[Any, Any]], pairs: AsyncIterator[Any]
    ) -> AsyncGenerator[tuple[Any, Entry], None]:
        """Yield items with their entries; skip those that an earlier execution has done."""
        execution, batched = self._execution, self._enumerator.batched
        limit = execution.portion.limit
        first.reverse()
        while limit is None or execution.done + self._window.in_progress < limit:
            pair = first.pop() if first else await anext(pairs, _NO_MORE)
            if pair is _NO_MORE:
                self._window.all_read()
                return
            item, cursor = as_pair(pair)
            position = freeze(cursor)
            proof = None if self._witness is None else self._witness.proof(position)
            entry = self._window.add(position, proof, len(item) if batched else 1)
            if not entry.done:
                yield item, entry

    def _compare_entries(self) -> Any:
        """Compare the entries of the record with the source, and return the source's proof.

        :raises CollectionChanged: if they belong to another source; positions are compared when the items are read.
        """
        witness, beyond = self._enumerator.witness, self._execution.progress.beyond
        if beyond and beyond[0].proof is not None and witness is not None and not self._enumerator.positional:
            witness.check(beyond[0].cursor, beyond[0].proof)
        return witness

    # Work.

    async def _work(self, pairs: AsyncIterator[tuple[Any, Entry]]) -> None:
        more = True
        while more or self._tasks:
            while more and self._ending is None and self._has_room():
                more = await self._start_next(pairs)
            if self._tasks:
                await self._wait()
            elif self._ending is not None:
                break
        if self._ending is not None:
            raise self._counted(self._ending[1])

    def _has_room(self) -> bool:
        most = 1 if self._alone else self._most
        return len(self._tasks) < most and self._window.has_room(most)

    async def _start_next(self, pairs: AsyncIterator[tuple[Any, Entry]]) -> bool:
        """Read an item and start its work; return False if there are no more items."""
        try:
            found = await anext(pairs, None)
        except (Exception, Interrupt) as error:  # noqa: BLE001 - raised after the items in progress have ended
            self._end_with(error)
            return False
        if found is None:
            return False
        item, entry = found
        self._alone = max(0, self._alone - 1)
        name = f"item at cursor {entry.cursor!r}"[:100]
        task = asyncio.get_running_loop().create_task(self._do(item, entry), name=name)
        self._tasks[task] = entry
        task.add_done_callback(self._forget)
        return True

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._changed.set()

    async def _do(self, item: Any, entry: Entry) -> None:
        """Do one item, and record that it is done. Its errors do not leave this task."""
        session = begin(self._job) if self._most > 1 else None
        try:
            await self._call(item)
            if self._is_async and asyncio.current_task() in self._cancelled:
                # It caught the cancellation, which was raised at its await: what came after that is not done.
                return
            if self._commits is None:
                self._window.finish(entry)
            elif session is not None and not await finished(self._commits.commit(entry, session.get())):
                return
        except BaseException as error:  # noqa: BLE001 - the coroutine that reads raises it
            self._failed(self._given_way(unwrapped(error)), entry)
            return
        finally:
            if not entry.done:
                self._window.leave(entry)
            if session is not None:
                await finished(session.close(self._in_thread))
        if of_items:
            job, execution = self._job, self._execution
            events.emit(events.ItemDone(execution.job_id, type(job).__name__, entry.cursor, execution.items))
        progress = self._execution.progress
        if progress.done >= progress.check_at:
            await self._checkpoint()

    async def _call(self, item: Any) -> None:
        if self._is_async or self._most == 1:
            result = self._each(item)
        else:
            result = await self._in_thread(self._each, item)
        if result is not None:
            if is_awaitable(result):
                result = await result
            callables.refuse_result(result, self._job, "each_iteration")

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        if self._pool is None:
            name = f"harness-item-of-{type(self._job).__name__}"
            self._pool = ThreadPoolExecutor(self._most, thread_name_prefix=name)
        context = contextvars.copy_context()
        future = asyncio.get_running_loop().run_in_executor(
            self._pool, context.run, _outcome, function, arguments
        )
        result, error = await finished(future)
        if error is not None:
            raise error
        return result

    def _given_way(self, error: BaseException) -> BaseException:
        """Return the interruption of an execution whose commit found that another execution has claimed the job."""
        if not isinstance(error, Superseded):
            return error
        try:
            self._execution.give_way()
        except Interrupt as control:
            return control
        return error

    def _failed(self, error: BaseException, entry: Entry) -> None:
        if isinstance(error, asyncio.CancelledError):
            if asyncio.current_task() in self._cancelled:
                return  # the execution ends, and the item is repeated
            error = RuntimeError(
                f"the task of the item at cursor {entry.cursor!r} was cancelled by its own code"
            )
        self._job._emit_failed(error, entry.cursor)
        self._end_with(error, self._window.order(entry))

    # Its end.

    def _end_with(self, error: BaseException, order: int = 1 << 30) -> None:
        """Start no more items because of an exception; the highest rank counts, then the first item.

        :param order: number of items before the item that raised it.
        """
        rank = (
            FATAL if not isinstance(error, Exception | Interrupt)
            else ERROR if isinstance(error, Exception)
            else CONTROL if type(error) is not Interrupt
            else STOP
        )  # fmt: skip
        if rank == ERROR and isinstance(error, HarnessError):
            order = -1  # a mistake in the code: other errors are less helpful
        if self._ending is None or (rank, -order) > (self._ending[0][0], -self._ending[0][1]):
            self._ending = (rank, order), error
        if rank in {STOP, FATAL}:
            self._limit_time(0.0 if rank == FATAL or self._execution.superseded else DRAIN)
        self._changed.set()

    def _limit_time(self, share: float) -> None:
        now, grace = asyncio.get_running_loop().time(), read_seconds(self._job, "grace_period") or 0.0
        until = now + share * grace
        self._until = until if self._until is None else min(until, self._until)

    def _is_over(self) -> bool:
        return self._until is not None and asyncio.get_running_loop().time() >= self._until

    def _counted(self, error: BaseException) -> BaseException:
        """Count an error for the quarantine, if all items before its item are done; return the error."""
        (rank, order), _ = self._ending or ((0, 0), None)
        if rank >= ERROR and order == 0:
            self._job._count_failure(error)
        return error

    async def _wait(self) -> None:
        """Wait until an item ends or the job is woken, and ask the stop sources when that is due."""
        loop, execution = asyncio.get_running_loop(), self._execution
        if self._is_over():
            self._cancel()
        left = execution.look_in_s if self._until is None else max(0.0, self._until - loop.time())
        timer = None if self._is_over() else loop.call_later(left, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            self._changed.clear()
            if timer is not None:
                timer.cancel()
        if self._ending is None:
            progress = execution.progress
            if progress.done >= progress.check_at or execution.is_look_due:
                await self._checkpoint()
        elif self._until is None and execution.has_to_stop():
            self._limit_time(DRAIN)

    async def _checkpoint(self) -> None:
        async with self._checkpointing:
            try:
                if self._commits is not None and (self._commits.unknown or self._ending is not None):
                    return  # the end asks the database, or the database has everything
                if self._ending is None:
                    await self._execution.run_checkpoint_async()
                else:
                    self._execution.save_if_due()
            except BaseException as error:  # noqa: BLE001 - the coroutine that reads raises it
                self._end_with(error)

    def _cancel(self) -> None:
        for task in tuple(self._tasks):
            if task not in self._cancelled:
                self._cancelled.add(task)
                task.cancel()

    async def _abandon(self) -> None:
        """End all items: cancel coroutines, and wait for threads."""
        # This task itself is cancelled, or reading raised something other than an error of the source.
        if self._tasks:
            self._limit_time(0.0)
            self._cancel()
            await asyncio.wait(tuple(self._tasks))
        if self._pool is not None:
            self._pool.shutdown()

    async def _set_aside(self, pairs: AsyncIterator[tuple[Any, Entry]]) -> None:
        found = await anext(pairs, None)
        if found is not None:
            item, entry = found
            passed = functools.partial(self._window.finish, entry, counts=False)
            aside = self._job._pass_over((item, entry.cursor), passed)
            await self._execution.run_hook_async("on_quarantine", item, aside.error)


def _call(job: Any, args: tuple[Any, ...], kwargs: dict[str, Any], item: Any) -> Any:
    return job.each_iteration(item, *args, **kwargs)


def _outcome(function: Any, arguments: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    """Return the result or the exception of a call, because a future cannot hold every exception."""
    try:
        return function(*arguments), None
    except BaseException as error:  # noqa: BLE001 - raised by the task of the item
        return None, error


def _wake(loop: asyncio.AbstractEventLoop, changed: asyncio.Event) -> None:
    loop.call_soon_threadsafe(changed.set)
