"""Saves of an execution: the record of the job, the position in it, and the writes of both.

Writes of progress in this module, and the meaning of a crash at each of them:

* A save has the cursor of work that is done. Crash before it: the work since the previous save is repeated. Crash after
  it: nothing is repeated. Lost answer: the save raises, the execution fails, and the next claim reads the stored
  record; both are correct.
* With ``with_transaction()`` the save is part of the transaction of the work. Crash before the commit: neither is
  stored. Crash after it: both are stored. Lost answer: the commit raises, the execution fails, and the next claim reads
  the database, which has both or neither.

A cursor is stored only as it was at a checkpoint: an error in the middle of an item stores the cursor before the
item. While the store is unreachable, the save of an end is repeated for the grace period.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import events
from harness.cursor import freeze
from harness.errors import (
    Interrupt,
    JobDefinitionError,
    ProgressGone,
    ProgressUnavailable,
    Superseded,
)
from harness.progress import NOW, Progress, Saved
from harness.runtime.holds import HOLD_SECONDS, Patience
from harness.runtime.loops import JobLoop, is_async_session
from harness.runtime.policy import read_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harness.concurrency.window import Window
    from harness.context import ParallelRun
    from harness.durability import Durability
    from harness.job import Job
    from harness.progress import StopSource, Store
    from harness.runtime.guards import Witness


class Setup(NamedTuple):
    """Settings of an execution, after a test's overrides were applied.

    :ivar sources: stop sources, asked in this order.
    :ivar owns: called if the stored progress is gone: True if this execution owns the job, according to the queue.
    """

    job: Job
    job_id: str
    store: Store
    durability: Durability
    clock: Callable[[], float]
    sources: Sequence[StopSource]
    owns: Callable[[], bool] | None
    parallel_run: ParallelRun | None


class Saves:
    """Part of an execution that writes the progress.

    The position is only in :attr:`progress`. Patterns move it; a save writes it as it was at a checkpoint.
    """

    def __init__(self, setup: Setup) -> None:
        self.job, self.job_id, self.store, self.clock = setup.job, setup.job_id, setup.store, setup.clock
        self.parallel_run, self.loop = setup.parallel_run, JobLoop()
        self.progress = Progress(setup.job_id)  # until the job is claimed
        self.item_failed = False
        self.witness: Witness | None = None
        self.commits = False
        self.window: Window | None = None
        """Items in progress, if several may be."""
        self._owns = setup.owns
        self._durability = setup.durability
        self._save_at = sys.maxsize
        """Number of done items at which a save is due."""
        self._started_at = self._tried_at = setup.clock()
        self._failing_since: float | None = None
        """Time of the first failed save since the last successful one."""
        self._proven: Any = None
        """Cursor to which the proof in the progress belongs."""
        self._reason: str | None = None
        """Reason why the execution stops; None while it continues."""
        self._superseded = False
        self._note_beginning()

    # The position, for stop sources, jobs and observers.

    @property
    def run_id(self) -> str:
        """Id of the job that started the parallel run; outside of a parallel run, the job's own id."""
        return self.parallel_run.id if self.parallel_run else self.job_id

    @property
    def step(self) -> str | None:
        """The step in progress, None between steps."""
        return self.progress.step

    @property
    def cursor(self) -> Any:
        """The cursor, as a Python value."""
        return self.progress.cursor

    @property
    def completed(self) -> list[str]:
        """The names of the completed steps, in order."""
        return self.progress.completed

    @property
    def done(self) -> int:
        """Items done in all executions."""
        return self.progress.done

    @property
    def items(self) -> int:
        """Items done in this execution."""
        return self.progress.done - self._done_before

    @property
    def total(self) -> int | None:
        """Total number of items, if known."""
        return self.progress.total

    @total.setter
    def total(self, number: int | None) -> None:
        """Set the total number of items."""
        self.progress.total = number

    @property
    def description(self) -> str:
        """Position of the job, as text."""
        return self.progress.description

    @property
    def saved(self) -> Saved:
        """Position that the latest save has made safe."""
        return self._saved_position

    @property
    def advanced(self) -> bool:
        """True if this execution made progress beyond the previous one."""
        return self._left_item or bool(self.progress.beyond and self.items > 0)

    @property
    def _left_item(self) -> bool:
        return self.moved or self.progress.completed != self._completed_before

    @property
    def moved(self) -> bool:
        """True if the cursor has moved since the start of this execution, or since it entered the step."""
        return bool(self.progress.cursor != self._cursor_before)

    @property
    def transactional(self) -> bool:
        """True if work and cursor are committed together."""
        return self._durability.transactional

    def enter(self, step: str, cursor: Any) -> None:
        """Start a step at *cursor*; that alone does not count as progress."""
        progress = self.progress
        progress.step, progress.cursor = step, freeze(cursor)
        self._cursor_before = progress.cursor
        self._committed = (progress.done, progress.cursor)

    def complete(self, step: str) -> None:
        """Complete a step; the next save records it. Under with_transaction() that save is made now."""
        self._note_complete(step)
        if self.transactional:
            self.commit_or_save("step")

    # The writes.

    def save(self, why: str) -> None:
        """Store the progress as of the latest checkpoint.

        :raises Superseded: if another execution has claimed the job since.
        :raises ProgressUnavailable: if the store cannot be reached.
        """
        try:
            progress = self._bring_up_to_date()
            try:
                size = self.store.save(progress)
            except ProgressGone:
                if not self._still_owned():
                    raise
                size = self.store.renew(progress)
        except self.store.unavailable as error:
            raise self._unreachable("saved", error) from error
        self._note_save(size, why)

    def save_on_the_way(self, why: str = "checkpoint") -> None:
        """Store the progress while the job runs.

        :raises Interrupt: if another execution has claimed the job since.
        """
        try:
            self.save(why)
        except Superseded:
            self.give_way()

    def save_patiently(self, why: str) -> None:
        """Save an end; while the store is unreachable, try again for the grace period.

        :raises ProgressUnavailable: if the store was unreachable in that time.
        :raises Superseded: if another execution has claimed the job since.
        """
        patience = Patience(read_seconds(self.job, "grace_period") or 0.0, self.clock)
        while True:
            try:
                self.save(why)
            except ProgressUnavailable as error:
                if patience.is_over():
                    raise
                self._note_failed_save(error, once=True)
            else:
                return
            time.sleep(HOLD_SECONDS)

    def commit_or_save(self, why: str) -> None:
        """Store the progress; if work and cursor are committed together, in one commit with the session's open work.

        :raises Interrupt: if another execution has claimed the job since.
        """
        if self.transactional and self.job.in_transaction():
            self.commit(always=True)
        else:
            try:
                self.save_patiently(why)
            except Superseded:
                self.give_way()

    def commit(self, *, always: bool = False) -> None:
        """Commit the work since the latest commit together with the cursor, if the cursor has moved or *always*.

        :raises Interrupt: if another execution has claimed the job since; the work was rolled back.
        """
        if (session := self._session_to_commit(always=always)) is None:
            return
        if is_async_session(session):
            self.loop.run(self.commit_async(always=always))
            return
        try:
            size = self.write_within(session)
        except (Superseded, ProgressUnavailable) as error:
            session.rollback()  # otherwise the transaction would keep its locks while the job waits to run again
            if isinstance(error, Superseded):
                self.give_way()
            raise
        session.commit()
        self._note_commit(size, (self.progress.done, self.progress.cursor))

    async def commit_async(self, *, always: bool = False) -> None:
        """Commit as :meth:`commit` does, also with an ``AsyncSession``; a crash means the same.

        :raises Interrupt: if another execution has claimed the job since; the work was rolled back.
        """
        session = self._session_to_commit(always=always)
        if session is None or not is_async_session(session):
            self.commit(always=always)
            return
        position = self.progress.done, self.progress.cursor  # another task may move them in the commit
        try:
            size = await session.run_sync(self.write_within)
        except (Superseded, ProgressUnavailable) as error:
            await session.rollback()
            if isinstance(error, Superseded):
                self.give_way()
            raise
        await session.commit()
        self._note_commit(size, position)

    @contextmanager
    def reaching_store(self, what: str) -> Iterator[None]:
        """Turn the errors of an unreachable store into ProgressUnavailable; errors of the job pass.

        :raises ProgressUnavailable: if the store cannot be reached.
        """
        try:
            yield
        except self.store.unavailable as error:
            raise self._unreachable(what, error) from error

    # Internals, used by subclasses.

    def _note_complete(self, step: str) -> None:
        progress = self.progress
        progress.completed = [*progress.completed, step]
        progress.step = progress.cursor = None

    def _session_to_commit(self, *, always: bool) -> Any:
        """Return the session of the job; None if there is nothing to commit."""
        by_items = self.window is not None and self.window.items_commit
        if not always and (by_items or (self.progress.done, self.progress.cursor) == self._committed):
            return None
        session: Any = getattr(self.job, "session", None)
        if session is None or not hasattr(self.store, "save_within"):
            raise JobDefinitionError(
                f"{self._name}: with_transaction() needs self.session and a store in its database; got "
                f"{type(session).__name__} and {type(self.store).__name__}; let progress_store() return a SqlStore"
            )
        return session

    def write_within(self, session: Any, progress: Progress | None = None) -> int:
        """Store the progress, or a copy of it, in a session's transaction; return its size."""
        store: Any = self.store
        progress = progress or self._bring_up_to_date()
        try:
            return store.save_within(session, progress)  # type: ignore[no-any-return]
        except ProgressGone:
            if not self._still_owned():
                raise
            return store.renew_within(session, progress)  # type: ignore[no-any-return]

    def _note_commit(self, size: int, position: tuple[int, Any]) -> None:
        self._committed = position
        self._note_save(size, "transaction")

    def _note_beginning(self) -> None:
        """Keep the initial values of this execution, with which the position is compared."""
        progress = self.progress
        self._done_before, self._runtime_before = progress.done, progress.runtime_s
        self._completed_before, self._cursor_before = list(progress.completed), progress.cursor
        self._proven, self._committed = progress.cursor, (progress.done, progress.cursor)
        self._note_position()

    def _bring_up_to_date(self) -> Progress:
        """Return the progress, updated with the parts that other objects hold while the job runs."""
        progress = self.progress
        if self.window is not None:
            progress.beyond = self.window.beyond()
        if progress.step is None:
            progress.proof = None
        elif progress.cursor != self._proven:
            # Otherwise keep the stored proof: a new proof would hide changes since the work was done.
            progress.proof = self.witness.proof(progress.cursor) if self.witness is not None else None
            self._proven = progress.cursor
        progress.attributes = self.job.__dict__["_attributes"]
        progress.runtime_s = self._runtime_before + self.clock() - self._started_at
        if self.advanced:
            progress.crashes_in_a_row = 0
        if self._left_item and not self.item_failed:  # the failures belong to the item after the cursor
            progress.failures, progress.failure = 0, None
        return progress

    def _note_save(self, size: int, why: str) -> None:
        self._tried_at, self._failing_since = self.clock(), None
        self._note_position()
        if events.subscriptions:
            events.emit(events.ProgressSaved(self.job_id, self._name, why, size))

    def _unreachable(self, what: str, error: Exception) -> ProgressUnavailable:
        return ProgressUnavailable(
            f"the progress of job {self.job_id} cannot be {what} now ({type(error).__name__}); run the job "
            "again later; progress that was saved before is kept"
        )

    def _note_position(self) -> None:
        progress = self.progress
        self._saved_position = Saved(
            self._tried_at, progress.done, len(progress.completed), progress.step, progress.cursor
        )
        if self._durability.items is not None:
            self._save_at = progress.done + self._durability.items

    def _note_failed_save(self, error: ProgressUnavailable, *, once: bool = False) -> None:
        if self._failing_since is None or not once:
            events.emit(events.SaveFailed(self.job_id, self._name, error))
        if self._failing_since is None:
            self._failing_since = self.clock()

    def _plan_save(self) -> None:
        if self._durability.items is not None:
            self._save_at = self.progress.done + self._durability.items

    def _still_owned(self) -> bool:
        """Return whether this execution owns the job according to the queue, so that its record may be restored."""
        return self._owns is not None and self._owns()

    def give_way(self) -> None:
        """Stop, because another execution has claimed the job.

        :raises Interrupt: always; the job's own ``except Exception`` is between here and the boundary.
        """
        self._superseded, self._reason, self.progress.check_at = True, "superseded", NOW
        raise Interrupt("superseded") from None

    @property
    def _name(self) -> str:
        return type(self.job).__name__

    @property
    def _duration(self) -> float:
        return self.clock() - self._started_at
