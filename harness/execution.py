"""One attempt at a job: the checkpoint, the saves, and the boundary where an interruption ends.

Where progress is written, and what a death there means:

* ``claim`` stores the raised epoch before any work. Death after it: the next execution claims again, nothing was
  done.
* A save at a checkpoint holds the cursor of work that is done. Death before it: the work since the save before
  is repeated. Death after it: nothing is repeated. Answer lost: the save raises, the execution fails, and the next
  claim reads whichever of the two was stored; both are true.
* The save at the end of an execution comes before the queue is told. Death between: the queue still believes the job to
  be running and recovers it, and it goes on from the saved cursor.
* ``completed`` is saved before the queue is told, and kept. Death between: the job runs once more, sees that
  it is completed, and does nothing.

A cursor is only ever stored as it was at a checkpoint: an error in the middle of an item stores the cursor
before the item.
"""

from __future__ import annotations

import math
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness import events
from harness.cursor import freeze
from harness.errors import (
    CheckpointInTransaction,
    CorruptProgress,
    HarnessError,
    Interrupt,
    InterruptSwallowed,
    ResumeLimit,
    Superseded,
)
from harness.job import Job
from harness.stops import CANCEL, PAUSE, Control, interval_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.durability import Durability
    from harness.progress import Progress, State, StopSource, Store
    from harness.stops import Clock

NOW = -math.inf
"""A time that has always come."""


@dataclass(frozen=True)
class Ended:
    """How an execution ended, where it did not raise.

    :ivar outcome: ``interrupted``: run it again after ``delay`` seconds; ``paused``: once somebody says so;
        ``superseded``: leave it alone.
    """

    outcome: Literal["completed", "interrupted", "paused", "cancelled", "superseded"]
    reason: str | None = None
    delay: float = 0


@dataclass(frozen=True)
class Overrides:
    """What a test asks of the jobs of this process, beyond what they are run with.

    :ivar stops: stop sources that are asked before all others.
    :ivar durability: in place of the job's own. :ivar clock: in place of ``time.monotonic``.
    :ivar poll_seconds: how often queues look for requests from outside, in place of their own.
    """

    stops: Sequence[StopSource] = ()
    durability: Durability | None = None
    clock: Clock = time.monotonic
    poll_seconds: float | None = None


overrides = Overrides()
"""What holds now; see :func:`overriding`."""


@contextmanager
def overriding(asked: Overrides) -> Iterator[None]:
    """Let *asked* hold for all jobs that run in this process meanwhile."""
    global overrides  # noqa: PLW0603 - a queue calls with nothing but what was enqueued
    before, overrides = overrides, asked
    try:
        yield
    finally:
        overrides = before


class Execution:
    """One attempt at a job.

    The hot path is the patterns': an item ends with ``items += 1`` and two comparisons, ``items >= items_at``
    and ``clock() >= look_at``. Only when one of them holds is :meth:`attend` called, to ask the stop sources and
    to save. Whoever wants attention at once, such as a signal handler, calls :meth:`wake`.

    :param job_class: the job; it is made anew for each execution.
    :param stops: asked at checkpoints, in this order, after the job's ``max_runtime`` and before its
        ``should_stop`` (I8).
    :param durability: in place of the job's own.
    :param clock: seconds that only move forward; ``time.monotonic`` if None.
    """

    def __init__(
        self,
        job_class: type[Job],
        job_id: str,
        store: Store,
        *,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        stops: Sequence[StopSource] = (),
        durability: Durability | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.job = job_class()
        self.job.execution = self
        self.job_id = job_id
        self.clock = clock or overrides.clock
        self._store, self._args, self._kwargs = store, tuple(args), dict(kwargs or {})
        self._durability = overrides.durability or durability or job_class.durability
        self._sources: list[StopSource] = [*overrides.stops, *stops]
        if job_class.should_stop is not Job.should_stop:
            self._sources.append(lambda _: self.job.should_stop())
        # The hot path's numbers.
        self.items = 0
        self.items_at = sys.maxsize
        self.look_at = NOW
        # Where the job is; what saves write is always as of a checkpoint.
        self.step: str | None = None
        self.cursor: Any = None
        self.completed: list[str] = []
        self.total: int | None = None
        self.progress: Progress
        self._started_at = self._saved_at = math.nan
        self._reason: str | None = None
        self._superseded = False

    # What stop sources see, beside step, cursor, items, total and completed.

    @property
    def done(self) -> int:
        """Items done in all executions."""
        return self._done_before + self.items

    @property
    def advanced(self) -> bool:
        """Whether this execution has done anything that the one before had not (C17)."""
        return self.completed != self._completed_before or bool(self.cursor != self._cursor_before)

    def enter(self, step: str, cursor: Any) -> None:
        """Begin a step at *cursor*; that alone is no progress."""
        self.step, self.cursor = step, freeze(cursor)
        self._cursor_before = self.cursor

    # The life of an execution.

    def run(self) -> Ended:
        """Run the job until it completes, stops or fails; the one place where Interrupt is caught.

        :raises Exception: what the job raised, if it is not resumed; its progress was saved.
        """
        self._claim()
        if self.progress.state == "completed":
            return Ended("completed")
        if self.progress.state == "cancelled":
            return Ended("cancelled")
        self._attach()
        try:
            self._obey_before_work()
            self._begin()
            self.job.run_pattern(self._args, self._kwargs)
            if self._reason is not None:
                raise InterruptSwallowed(
                    f"{self._name} was interrupted ({self._reason}) but caught it and went on; "
                    "catch Exception instead of BaseException, or raise it again"
                )
            self.job.on_shutdown()
            self.job.on_complete()
        except Interrupt as interrupt:
            return self._interrupted(interrupt.reason)
        except HarnessError as error:
            self._failed(error)
            raise
        except Exception as error:
            if self.advanced and self.job.resume_errors_after_advancing:
                return self._resumed_after(error)
            self._failed(error)
            raise
        except (KeyboardInterrupt, SystemExit) as error:
            self._end("failed", f"{type(error).__name__}: {error}")
            raise
        finally:
            self._detach()
        return self._completed()

    def _obey_before_work(self) -> None:
        """Let a pause or a cancellation that came while the job was waiting be obeyed before any work."""
        for source in self._sources:
            ask = getattr(source, "at_start", None)
            control = ask(self.job_id) if ask else None
            if control:
                self.interrupt(control)

    def _claim(self) -> None:
        self.progress = progress = self._store.claim(self.job_id)
        path = type(self.job).path()
        if progress.job and progress.job != path:
            raise CorruptProgress(
                f"the progress of job {self.job_id} belongs to {progress.job}, found {path}; it was left as it is"
            )
        progress.job = path
        self._started_at = self._saved_at = self.clock()
        self.completed, self.step, self.cursor = list(progress.completed), progress.step, progress.cursor
        self._completed_before, self._cursor_before = list(progress.completed), progress.cursor
        self._done_before, self.total = progress.done, progress.total
        self._runtime_before = progress.runtime_s
        self.job.__dict__["_attributes"] = dict(progress.attributes)
        self._next_items()

    def _begin(self) -> None:
        progress = self.progress
        progress.state = "running"
        if not progress.begun:
            events.emit(events.JobStarted(self.job_id, self._name))
            self.job.on_start()
            progress.begun = True
            return
        if progress.started:
            progress.resumptions += 1
        events.emit(events.JobResumed(self.job_id, self._name, progress.description, progress.resumptions))
        self.job.on_resume()

    def _completed(self) -> Ended:
        self.step, self.cursor = None, None
        self._end("completed", None)
        progress = self.progress
        events.emit(
            events.JobCompleted(self.job_id, self._name, progress.done, progress.epoch, progress.runtime_s)
        )
        return Ended("completed")

    def _interrupted(self, reason: str) -> Ended:
        if self._superseded:
            return Ended("superseded")
        if not isinstance(self._reason, Control):
            self._check_limit()
        self.progress.interruptions += 1
        self.job.on_shutdown()
        if self._reason is CANCEL:
            self.job.on_cancel()
            self._end("cancelled", reason)
            return Ended("cancelled", reason)
        if self._reason is PAUSE:
            self._end("paused", reason)
            return Ended("paused", reason)
        self._end("interrupted", reason)
        return Ended("interrupted", reason, self.job.resume_delay)

    def _resumed_after(self, error: Exception) -> Ended:
        reason = f"{type(error).__name__}: {error}"
        self._check_limit()
        self.progress.errors += 1
        self.job.on_error(error)
        self._end("interrupted", reason)
        events.emit(events.JobInterrupted(self.job_id, self._name, reason, self.description, self._duration))
        return Ended("interrupted", reason, self.job.resume_delay)

    def _check_limit(self) -> None:
        limit = self.job.max_resumptions
        if limit is not None and self.progress.resumptions >= limit:
            events.emit(events.ResumeLimitReached(self.job_id, self._name, limit))
            error = ResumeLimit(f"{self._name} was resumed a maximum of {limit} times; raise max_resumptions")
            self._failed(error)
            raise error

    def _failed(self, error: Exception) -> None:
        self.progress.errors += 1
        if not isinstance(error, HarnessError):
            self.job.on_error(error)
        self._end("failed", f"{type(error).__name__}: {error}")
        events.emit(events.JobFailed(self.job_id, self._name, error, self.description, self._duration))

    def _end(self, state: State, reason: str | None) -> None:
        self.progress.state, self.progress.reason = state, reason
        self.save(state)

    # Checkpoints.

    def attend(self) -> None:
        """Ask the stop sources, then save if that is due: the slow part of a checkpoint.

        :raises Interrupt: if the job shall stop here.
        """
        if self._reason is not None:  # somebody swallowed it; again, until it gets through
            self.look_at = NOW
            raise Interrupt(self._reason)
        # From here on wake() is heard at the next checkpoint, if its source was asked already.
        self.look_at = math.inf
        if self.job.in_transaction():
            raise CheckpointInTransaction(
                f"{self._name} has a checkpoint {self.description} inside an open transaction: what it did there may "
                "yet be rolled back, while the cursor says that it is done; commit before the checkpoint"
            )
        now = self.clock()
        limit = self.job.max_runtime
        if limit is not None and now - self._started_at >= limit:
            self.interrupt("max_runtime")
        for source in self._sources:
            answer = source(self)
            if answer:
                self.interrupt("stopping" if answer is True else answer)
        if self.items >= self.items_at or now - self._saved_at >= self._durability.seconds:
            self._save_on_the_way()
        self.look_at = min(self.look_at, self._next_look(now))

    def wake(self) -> None:
        """Have the next checkpoint attend, at once; safe in signal handlers and from other threads."""
        self.look_at = NOW

    def interrupt(self, reason: str) -> None:
        """Stop here.

        :raises Interrupt: always.
        """
        self._reason, self.look_at = reason, NOW
        events.emit(events.JobInterrupted(self.job_id, self._name, reason, self.description, self._duration))
        raise Interrupt(reason)

    def save(self, why: str) -> None:
        """Store the progress as of the latest checkpoint.

        :raises Superseded: if another execution has claimed the job since.
        """
        progress = self.progress
        progress.completed, progress.step, progress.cursor = self.completed, self.step, self.cursor
        progress.done, progress.total = self.done, self.total
        progress.attributes = self.job.__dict__["_attributes"]
        progress.runtime_s = self._runtime_before + self._duration
        size = self._store.save(progress)
        self._saved_at = self.clock()
        self._next_items()
        if events.subscribers:
            events.emit(events.ProgressSaved(self.job_id, self._name, why, size))

    def _save_on_the_way(self) -> None:
        try:
            self.save("checkpoint")
        except Superseded:
            # The job's own ``except Exception`` is between here and the boundary: only Interrupt gets through.
            self._superseded, self._reason, self.look_at = True, "superseded", NOW
            raise Interrupt("superseded") from None

    @property
    def description(self) -> str:
        """Where the job is, in words (C23)."""
        if self.step is not None:
            return f"at {self.step!r}, cursor {self.cursor!r}"
        return f"after {self.completed[-1]!r}" if self.completed else "not started"

    @property
    def _name(self) -> str:
        return type(self.job).__name__

    @property
    def _duration(self) -> float:
        return self.clock() - self._started_at

    def _next_look(self, now: float) -> float:
        ask = min((interval_of(source) for source in self._sources), default=math.inf)
        limit = self.job.max_runtime
        deadline = math.inf if limit is None else self._started_at + limit
        return min(now + ask, self._saved_at + self._durability.seconds, deadline)

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
