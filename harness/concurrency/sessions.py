"""Sessions of concurrent items: each item has its own session, and commits separately.

With ``with_transaction()`` the transaction of an item also writes that the item is done. All items write the same
record of the job, so they write it one after the other:

1. The item's work is done, not committed. Its session writes the current record, which takes the lock of the row (on
SQLite, of the file). Another item in this step waits in the database.
2. Its session writes the record in which the item is done, and commits. Only one item at a time is in this step, so the
state of every other item in this record agrees with the database.

Crash before the commit: neither the work nor the record of this item is stored. Crash after it: both are stored. If the
answer is lost, or the commit is refused, it is unknown which. Then no other item of this execution commits, and the
execution ends with the error; the next claim reads the state from the database.
"""

from __future__ import annotations

from contextvars import ContextVar
from copy import copy
from typing import TYPE_CHECKING, Any

from harness.errors import JobDefinitionError
from harness.runtime import callables
from harness.runtime.loops import is_async_session

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from harness.concurrency.window import Entry, Window
    from harness.progress import Progress


class ItemSession:
    """Session of one item, created at its first use."""

    def __init__(self, job: Any) -> None:
        self.job = job
        self._session: Any = None

    def get(self) -> Any:
        """Return the session."""
        if self._session is None:
            found, job = self.job.new_session(), type(self.job)
            if callables.kind_of(job.each_iteration) == callables.ASYNC and not is_async_session(found):
                raise JobDefinitionError(
                    f"{job.__name__}.new_session() returned {type(found).__name__}, which would block the event loop "
                    "while it waits for another item; return an AsyncSession, or make each_iteration a plain def"
                )
            self._session = found
        return self._session

    async def close(self, in_thread: Callable[..., Awaitable[Any]]) -> None:
        """Close the session, which rolls back what is not committed."""
        if self._session is None:
            return
        if is_async_session(self._session):
            await self._session.close()
        else:
            await in_thread(self._session.close)


_current: ContextVar[ItemSession | None] = ContextVar("harness_item_session", default=None)


def begin(job: Any) -> ItemSession | None:
    """Give the item of this task its own session, if the job creates sessions."""
    if not hasattr(type(job), "new_session"):
        return None
    found = ItemSession(job)
    _current.set(found)
    return found


def session_of(job: Any) -> Any:
    """Return the session of this context's item, or the job's session if its items share one."""
    found = _current.get()
    return found.get() if found is not None and found.job is job else job.session


class Commits:
    """Commits of the items of one execution.

    :param turn: lock held while the position is ahead of the database: nothing else may save the position then. :param
        in_thread: calls a function in a thread, where a plain session may wait for the database. :ivar unknown: whether
        the position may be ahead of the database permanently.
    """

    def __init__(
        self, execution: Any, window: Window, turn: asyncio.Lock, in_thread: Callable[..., Awaitable[Any]]
    ) -> None:
        self._execution, self._window, self._turn, self._in_thread = execution, window, turn, in_thread
        self.unknown = False
        window.items_commit = True
        if not hasattr(execution.store, "save_within"):
            raise JobDefinitionError(
                f"{type(execution.job).__name__}: with_transaction() needs a store in the same database; got "
                f"{type(execution.store).__name__}; let progress_store() return a SqlStore"
            )

    async def commit(self, entry: Entry, session: Any) -> bool:
        """Commit the work of an item together with its completion; return False if it is unknown which items are done.

        :raises Interrupt: if another execution has claimed the job since.
        """
        # Waits for the lock of the row, before this item counts as done.
        await self._write(session, self._snapshot())
        async with self._turn:
            if self.unknown:
                return False
            self.unknown = True
            self._window.finish(entry)
            size = await self._write(session, self._snapshot())
            if is_async_session(session):
                await session.commit()
            else:
                await self._in_thread(session.commit)
            self.unknown = False
            self._execution.note_item_commit(size)
        return True

    def _snapshot(self) -> Progress:
        """Return a copy of the record: another thread writes it while items continue."""
        found: Progress = copy(self._execution.current_record())
        found.attributes, found.quarantined = dict(found.attributes), list(found.quarantined)
        return found

    async def _write(self, session: Any, progress: Progress) -> int:
        write = self._execution.write_within
        if is_async_session(session):
            return int(await session.run_sync(write, progress))
        return int(await self._in_thread(write, session, progress))


async def finished(awaitable: Awaitable[Any]) -> Any:
    """Wait for a commit or a thread, even if this task is cancelled, and return its result."""
    import asyncio  # noqa: PLC0415 - only concurrent items need it, so other jobs do not load it

    future = asyncio.ensure_future(awaitable)
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:  # Task.cancelling() counts it
            continue
    return future.result()
