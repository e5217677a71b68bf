"""Checkpoint logic: decide whether to stop and whether to save.

Where progress is written here, and what a crash there means:

* A save holds the cursor of work that is done. Crash before it: the work since the save before is repeated. Crash
  after it: nothing is repeated. Answer lost: the save raises, the execution fails, and the next claim reads
  whichever of the two was stored; both are true.
* With ``with_transaction()`` the save is part of the transaction of the work. Crash before the commit: neither
  happened. Crash after it: both did. Answer lost: the commit raises, the execution fails, and the next claim reads
  what the database has, which is also what became of the work.

While the store cannot be reached the job works on for ``max_unsaved``. Then it holds at a checkpoint: it tries the save
again until that succeeds or a stop source says stop. So a crash repeats at most the work of ``max_unsaved`` and of one
interval of its durability, however long the outage is. The save of an end is tried for the grace period.

A cursor is only ever stored as it was at a checkpoint: an error in the middle of an item stores the cursor before
the item.
"""

from __future__ import annotations

import math
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness import events, overrides
from harness.cursor import freeze
from harness.errors import (
    CheckpointInTransaction,
    Interrupt,
    JobDefinitionError,
    ProgressGone,
    ProgressUnavailable,
    Superseded,
)
from harness.holds import Holds
from harness.policy import read_seconds
from harness.stops import interval_of, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.durability import Durability
    from harness.execution import Family
    from harness.guards import Witness
    from harness.job import Job
    from harness.progress import Progress, StopSource, Store

NOW = -math.inf
"""A time that has always come."""

LOOK_SECONDS = 1.0
"""Upper bound of the interval between two looks at the stop sources."""


class Checkpoints(Holds):
    """Part of an execution that the patterns call.

    The hot path is in the patterns: an item ends with ``items += 1`` and two comparisons, ``items >= items_at`` and
    ``clock() >= look_at``. Only when one of them holds is :meth:`attend` called. Code that needs it sooner,
    such as a signal handler, calls :meth:`wake`.
    """

    job: Job
    job_id: str
    family: Family | None
    progress: Progress
    clock: Callable[[], float]
    store: Store
    owns: Callable[[], bool] | None
    _sources: list[StopSource]
    _durability: Durability
    _started_at: float
    _runtime_before: float
    _completed_before: list[str]
    _cursor_before: Any

    def __init__(self) -> None:
        # The hot path's numbers.
        self.items = 0
        self.items_at = sys.maxsize
        self.look_at = NOW
        # Where the job is; what saves write is always as of a checkpoint.
        self.step: str | None = None
        self.cursor: Any = None
        self.completed: list[str] = []
        self.total: int | None = None
        self._done_before = 0
        self.item_failed = False
        self.witness: Witness | None = None
        """Proof that the cursor still means the same when the job resumes; that of the enumerator at work."""
        self.holding = False
        """True if the job opened a transaction on purpose: no checkpoint counts before its end."""
        self.commits = False
        """True if this execution will commit, so the job leaves its work uncommitted."""
        self._proven: Any = None
        """The cursor that the proof in the progress belongs to."""
        self._saved_at = math.nan
        self._failing_since: float | None = None
        """Time of the first save that failed since one succeeded."""
        self._committed: tuple[int, Any] = (0, None)
        self._reason: str | None = None
        self._superseded = False

    # Attributes for stop sources, in addition to step, cursor, items, total and completed.

    @property
    def family_id(self) -> str:
        """The id of the job that started this one's parallel run; without one, its own."""
        return self.family.id if self.family else self.job_id

    @property
    def done(self) -> int:
        """Items done in all executions."""
        return self._done_before + self.items

    @property
    def advanced(self) -> bool:
        """True if this execution has done anything that the previous one had not."""
        return self.completed != self._completed_before or bool(self.cursor != self._cursor_before)

    @property
    def moved(self) -> bool:
        """True if the cursor has moved since this execution began, or since it entered the step."""
        return bool(self.cursor != self._cursor_before)

    @property
    def transactional(self) -> bool:
        """True if work and cursor are committed together."""
        return self._durability.transactional

    def enter(self, step: str, cursor: Any) -> None:
        """Begin a step at *cursor*; that alone is no progress."""
        self.step, self.cursor = step, freeze(cursor)
        self._cursor_before = self.cursor
        self._committed = (self.items, self.cursor)

    def complete(self, step: str) -> None:
        """End a step that ran to its end; the next save says so, and is now where work and cursor go together."""
        self.completed = [*self.completed, step]
        self.step = self.cursor = None
        if self._durability.transactional:
            self.commit_or_save("step")

    def attend(self) -> None:
        """Ask the stop sources, then save if a save is due: the slow part of a checkpoint.

        :raises Interrupt: if the job has to stop here.
        """
        if self.holding:
            return  # in the middle of a transaction, whose end is a checkpoint
        if self._reason is not None:  # the job swallowed it; raise again until it gets through
            self.look_at = NOW
            raise Interrupt(self._reason)
        # From here on wake() is heard at the next checkpoint, if its source was asked already.
        due, self.look_at = self.look_at, math.inf
        if self._durability.transactional:
            self.commit()
        if self.job.in_transaction():
            raise CheckpointInTransaction(
                f"{self._name} has a checkpoint {self.description} inside an open transaction: what it did there may "
                "yet be rolled back, while the cursor says that it is done; commit before the checkpoint. If it only "
                "read: reading begins a transaction too, and so does a look at an object that a commit has expired; "
                "end it with session.rollback() or commit(), close the session, or make it with "
                "expire_on_commit=False, so that objects stay loaded after a commit"
            )
        now = self.clock()
        if due > NOW:
            self._note_gap(now - due)
        if now >= self._deadline:
            self.interrupt("max_runtime")
        self._ask_sources()
        tried_s = now - self._saved_at
        again = self._failing_since is not None and tried_s >= LOOK_SECONDS
        if self.items >= self.items_at or tried_s >= self._durability.seconds or again:
            self._save_if_possible()
        self.look_at = min(self.look_at, self._next_look(now))

    def _ask_sources(self) -> None:
        for source in self._sources:
            answer = source(self)
            if answer:
                self.interrupt(reason_of(answer, source))

    def wake(self) -> None:
        """Make the next checkpoint ask the stop sources; safe in signal handlers and other threads."""
        self.look_at = NOW

    def interrupt(self, reason: str) -> None:
        """Stop here.

        :raises Interrupt: always.
        """
        reason = reason if isinstance(reason, str) else str(reason)  # an author's answer, and it is stored
        self._reason, self.look_at = reason, NOW
        self._emit_interrupted(reason)
        raise Interrupt(reason)

    def save(self, why: str) -> None:
        """Store the progress as of the latest checkpoint.

        :raises Superseded: if another execution has claimed the job since.
        """
        with self.reaching_store("saved"):
            progress = self._current_progress()
            try:
                size = self.store.save(progress)
            except ProgressGone:
                if not self._still_owned():
                    raise
                size = self.store.renew(progress)
        self._saved(size, why)

    def save_on_the_way(self, why: str = "checkpoint") -> None:
        """Store the progress while the job is at work.

        :raises Interrupt: if another execution has claimed the job since.
        """
        try:
            self.save(why)
        except Superseded:
            self._give_way()

    def commit_or_save(self, why: str) -> None:
        """Store the progress, in one commit with what is open in the session where work and cursor go together.

        :raises Interrupt: if another execution has claimed the job since.
        """
        if self.transactional and self.job.in_transaction():
            self.commit(always=True)
        else:
            try:
                self.save_patiently(why)
            except Superseded:
                self._give_way()

    @contextmanager
    def reaching_store(self, what: str) -> Iterator[None]:
        """Turn the errors of an unreachable store into ProgressUnavailable; errors of the job pass.

        :raises ProgressUnavailable: if the store cannot be reached.
        """
        try:
            yield
        except self.store.unavailable as error:
            raise ProgressUnavailable(
                f"the progress of job {self.job_id} cannot be {what} now ({type(error).__name__}); run the job again "
                "later, what was saved before is kept"
            ) from error

    def commit(self, *, always: bool = False) -> None:
        """Commit the work since the latest commit together with the cursor, if the cursor has moved or *always*.

        :raises Interrupt: if another execution has claimed the job since; the work was rolled back.
        """
        if not always and (self.items, self.cursor) == self._committed:
            return
        session: Any = getattr(self.job, "session", None)
        write = getattr(self.store, "save_within", None)
        if session is None or write is None:
            raise JobDefinitionError(
                f"{self._name}: with_transaction() needs self.session and a store in its database, found "
                f"{type(session).__name__} and {type(self.store).__name__}; let progress_store() return a SqlStore"
            )
        progress = self._current_progress()
        try:
            try:
                size = write(session, progress)
            except ProgressGone:
                if not self._still_owned():
                    raise
                size = self.store.renew_within(session, progress)  # type: ignore[attr-defined]  # it has save_within
        except Superseded:
            session.rollback()
            self._give_way()
        except ProgressUnavailable:
            session.rollback()  # otherwise the transaction would hold its locks while the job waits to run again
            raise
        session.commit()
        self._committed = (self.items, self.cursor)
        self._saved(size, "transaction")

    # Internals, used by subclasses.

    def _save_if_possible(self) -> None:
        """Save; while the store cannot be reached the job goes on, until too much of its work is unsaved.

        :raises Interrupt: if the job is to stop.
        """
        try:
            self.save_on_the_way()
        except ProgressUnavailable as error:
            self._saved_at = now = self.clock()
            self._next_items()
            events.emit(events.SaveFailed(self.job_id, self._name, error))
            if self._failing_since is None:
                self._failing_since = now
            limit = read_seconds(self.job, "max_unsaved")
            if limit is not None and now - self._failing_since >= limit:
                self._hold()

    def _still_owned(self) -> bool:
        """Return whether the queue says that the job is still this execution's, so that its record may be restored."""
        return self.owns is not None and self.owns()

    def _give_way(self) -> None:
        # The job's own ``except Exception`` is between here and the boundary: only Interrupt gets through.
        self._superseded, self._reason, self.look_at = True, "superseded", NOW
        raise Interrupt("superseded") from None

    def _saved(self, size: int, why: str) -> None:
        self._saved_at, self._failing_since = self.clock(), None
        self._next_items()
        if events.subscriptions:
            events.emit(events.ProgressSaved(self.job_id, self._name, why, size))

    def _current_progress(self) -> Progress:
        progress = self.progress
        progress.completed, progress.step, progress.cursor = self.completed, self.step, self.cursor
        if self.step is None:
            progress.proof = None
        elif self.cursor != self._proven:
            # Else the stored proof stays: one made now would say that what has changed was so when the work was done.
            progress.proof = self.witness.proof(self.cursor) if self.witness is not None else None
            self._proven = self.cursor
        progress.done, progress.total = self.done, self.total
        progress.attributes = self.job.__dict__["_attributes"]
        progress.runtime_s = self._runtime_before + self._duration
        if self.advanced:
            progress.crashes_in_a_row = 0
            if not self.item_failed:  # what is counted belongs to the item after the cursor
                progress.failures, progress.failure = 0, None
        return progress

    @property
    def description(self) -> str:
        """Position of the job, as text."""
        if self.step is not None:
            return f"at {self.step!r}, cursor {self.cursor!r}"
        return f"after {self.completed[-1]!r}" if self.completed else "not started"

    @property
    def _name(self) -> str:
        return type(self.job).__name__

    @property
    def _duration(self) -> float:
        return self.clock() - self._started_at

    def _emit_interrupted(self, reason: str) -> None:
        events.emit(events.JobInterrupted(self.job_id, self._name, reason, self.description, self._duration))

    def _note_gap(self, seconds: float) -> None:
        """Say that a stop would have had to wait longer than there is time at a deploy; once for each new record."""
        grace = read_seconds(self.job, "grace_period") or 0.0
        if seconds > grace and seconds > self.progress.longest_gap_s:
            self.progress.longest_gap_s = seconds
            events.emit(events.CheckpointLate(self.job_id, self._name, seconds, grace, self.description))

    @property
    def _deadline(self) -> float:
        limit = read_seconds(self.job, "max_runtime")
        return self._started_at + min(overrides.longest_runtime, math.inf if limit is None else limit)

    def _next_look(self, now: float) -> float:
        ask = min((interval_of(source) for source in self._sources), default=math.inf)
        return min(now + min(ask, LOOK_SECONDS), self._saved_at + self._durability.seconds, self._deadline)

    def _next_items(self) -> None:
        if self._durability.items is not None:
            self.items_at = self.items + self._durability.items

    def _attach(self) -> None:
        for source in self._sources:
            if hasattr(source, "attach"):
                source.attach(self.wake)

    def _detach(self) -> None:
        for source in self._sources:
            if hasattr(source, "detach"):
                source.detach(self.wake)
