"""One attempt at a job: what it begins with, and the boundary where it ends.

Where progress is written here, and what a death there means; at checkpoints see :mod:`harness.checkpoints`:

* ``claim`` stores the raised epoch before any work. Death after it: the next execution claims again, nothing was
  done. An epoch that never ended tells the next one that its predecessor died.
* The save at the end of an execution comes before the queue is told. Death between: the queue still believes the job to
  be running and recovers it, and it goes on from the saved cursor.
* ``completed`` is saved before the queue is told, and kept. Death between: the job runs once more, sees that
  it is completed, and does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from harness import events, overrides, rounds
from harness.checkpoints import Checkpoints
from harness.cursor import freeze
from harness.errors import (
    CancelJob,
    CompleteEarly,
    CorruptProgress,
    CrashLimit,
    HarnessError,
    Interrupt,
    InterruptSwallowed,
    ProgressError,
    ProgressUnavailable,
    ResumeLimit,
    RetryLater,
    StepsChanged,
    Superseded,
    UsageError,
)
from harness.job import Job
from harness.rounds import UNKNOWN, Call
from harness.stops import CANCEL, PAUSE, Control

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.durability import Durability
    from harness.progress import Progress, State, StopSource, Store
    from harness.stops import Clock


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
class Portion:
    """A part of what an iteration job would do: to try it on a few items first, or to begin in the middle.

    :ivar after: the cursor of the item to start after; None for the beginning.
    :ivar limit: how many items to do, in all executions together; batches are done whole. None for no limit.
    """

    after: Any = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and (type(self.limit) is not int or self.limit < 0):
            raise UsageError(f"Portion(limit=…) takes an int of 0 or more, found {self.limit!r}")
        object.__setattr__(self, "after", freeze(self.after))


@dataclass(frozen=True)
class Family:
    """What an execution needs to know of a parallel run; its queue makes it.

    :ivar id: id of the job that was enqueued. :ivar instance: this one's number; None for that job itself.
    :ivar spawn: enqueues the instance of a number in a round of the job, unless it is there already.
    """

    id: str
    instance: int | None
    spawn: Callable[[int, str], object]


class Execution(Checkpoints):
    """One attempt at a job.

    :param job_class: the job; it is made anew for each execution.
    :param stops: asked at checkpoints, in this order, after the job's ``max_runtime`` and before its
        ``should_stop`` (I8).
    :param durability: in place of the job's own.
    :param clock: seconds that only move forward; ``time.monotonic`` if None.
    :param portion: the part of an iteration job to do.
    :param family: the parallel run that this is an instance of, or may start; see :mod:`harness.parallel`.
    :param call: what the queue knows of the enqueue; it tells the rounds of a job apart.
    :param owns: asked when the stored progress is gone: whether the queue says that the job is this execution's.
    :param patient: whether steps that another release recorded are to be left to a worker that knows them.
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
        portion: Portion | None = None,
        family: Family | None = None,
        call: Call = UNKNOWN,
        owns: Callable[[], bool] | None = None,
        patient: bool = False,
    ) -> None:
        super().__init__()
        job_class.check_arguments(kwargs or {}, portion)
        asked = overrides.current
        self.job = job_class()
        self.job.execution = self
        self.job_id = job_id
        self.clock = clock or asked.clock
        self.portion, self.family = portion or Portion(), family
        self.owns, self._patient, self._call = owns, patient, call
        self.completes = True
        """Whether the end of this execution is the end of the job, and not only of one instance's part."""
        self.store, self.args, self.kwargs = asked.store or store, tuple(args), dict(kwargs or {})
        self._durability = asked.durability or durability or job_class.durability
        self._sources: list[StopSource] = [*asked.stops, *stops]
        if job_class.should_stop is not Job.should_stop:
            self._sources.append(lambda _: self.job.should_stop())

    # The life of an execution.

    def run(self) -> Ended:
        """Run the job until it completes, stops or fails; the one place where Interrupt is caught.

        :raises ProgressUnavailable: if the store cannot be reached; run the job again later.
        :raises Exception: what the job raised, if it is not resumed; its progress was saved.
        """
        try:
            return self._run()
        except Superseded:  # at a save of the boundary's own: the job belongs to another execution now
            return Ended("superseded")

    def _run(self) -> Ended:
        self._claim()
        if self.progress.state == "completed":
            return Ended("completed")
        if self.progress.state == "cancelled":
            return Ended("cancelled")
        self._attach()
        try:
            crashed = self._notice_crash()
            self._obey_before_work()
            if crashed:
                self._limit_crashes()
            self._work()
        except Interrupt as interrupt:
            return self._interrupted(interrupt)
        except ProgressUnavailable:
            raise  # nothing can be saved: to the next execution this one is as good as dead
        except HarnessError as error:
            self._refused(error)
            raise
        except Exception as error:
            if self._resumes(error):
                return self._resumed_after(error)
            self._failed(error)
            raise
        except (KeyboardInterrupt, SystemExit) as error:
            self._settle()
            self._end("failed", f"{type(error).__name__}: {error}")
            raise
        finally:
            self._detach()
        return self._completed()

    def _work(self) -> None:
        try:
            self._begin()
            self.job.run_pattern(self.args, self.kwargs)
        except CompleteEarly as early:
            events.emit(events.CompletedEarly(self.job_id, self._name, early.reason, self.description))
        if self._reason is not None:
            raise InterruptSwallowed(
                f"{self._name} was interrupted ({self._reason}) but caught it and went on; "
                "catch Exception instead of BaseException, or raise it again"
            )
        self.job.on_shutdown()
        if not self.completes:
            return
        if type(self.job).on_complete is not Job.on_complete:
            # Whoever was superseded must not complete the job once more, and a death in on_complete repeats only that.
            self.save_on_the_way("all done")
        self.job.on_complete()

    def careful(self) -> None:
        """Save after every item in this execution: the next death then tells which item it was."""
        self._durability = replace(self._durability, items=1)
        self._next_items()

    def fail_item(self, error: Exception) -> None:
        """Count a failure of the item after the cursor; the execution then ends and is resumed."""
        progress = self.progress
        progress.failures = 1 if self.advanced else progress.failures + 1
        progress.failure = f"{type(error).__name__}: {error}"
        self.item_failed = True

    def _obey_before_work(self) -> None:
        """Let a pause or a cancellation that came while the job was waiting be obeyed before any work."""
        for source in self._sources:
            ask = getattr(source, "at_start", None)
            control = ask(self) if ask else None
            if control:
                self.interrupt(control)

    def _claim(self) -> None:
        with self.reaching_store("claimed"):
            claimed = self.store.claim(self.job_id)
        self.progress = progress = self._join(claimed)
        self._started_at = self._saved_at = self.clock()
        self._take_position(progress)
        self._completed_before, self._cursor_before = list(progress.completed), progress.cursor
        self._done_before, self.total = progress.done, progress.total
        self._runtime_before = progress.runtime_s
        self._committed = (0, progress.cursor)
        self._next_items()

    def _join(self, claimed: Progress) -> Progress:
        """Return the progress of the round that this execution belongs to."""
        try:
            return rounds.join(claimed, type(self.job), self._call)
        except ProgressError:
            # The claim is all that was stored. Death before it is taken back: the next execution counts one death.
            claimed.ended = claimed.epoch
            with self.reaching_store("saved"):
                self.store.save(claimed)
            raise

    def _take_position(self, progress: Progress) -> None:
        self.completed, self.step, self.cursor = list(progress.completed), progress.step, progress.cursor
        self.job.__dict__["_attributes"] = dict(progress.attributes)

    def _notice_crash(self) -> bool:
        """Count the death of the execution before this one, if it never ended, and return whether it did so.

        It is saved at once: should this one die as well, the next must know of both.
        """
        progress = self.progress
        if progress.ended == progress.epoch - 1:
            return False
        progress.crashes, progress.crashes_in_a_row = progress.crashes + 1, progress.crashes_in_a_row + 1
        progress.failures, progress.failure = progress.failures + 1, "its worker died"
        events.emit(
            events.CrashNoticed(self.job_id, self._name, progress.crashes_in_a_row, progress.description)
        )
        self.save_on_the_way("crash")
        return True

    def _limit_crashes(self) -> None:
        """Give up a job that only ever dies; who keeps its history has heard of this execution by now.

        :raises CrashLimit: if too many died in a row, without an item done in between.
        """
        progress, limit = self.progress, self.job.max_crashes
        if progress.crashes_in_a_row <= limit:
            return
        died, progress.crashes_in_a_row = progress.crashes_in_a_row, 0
        raise CrashLimit(
            f"{self._name} died {died} times {progress.description} without getting on, allowed are {limit} "
            "(max_crashes); its progress was kept: enqueue it again once the reason is mended"
        )

    def _begin(self) -> None:
        progress = self.progress
        progress.state = "running"
        if not progress.begun:
            events.emit(events.JobStarted(self.job_id, self._name))
            if self.family is None or self.family.instance is None:  # else it ran before the instances
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

    def _interrupted(self, interrupt: Interrupt) -> Ended:
        if self._superseded:
            return Ended("superseded")
        self._settle()
        reason = interrupt.reason
        if self._reason is None:  # not a stop source's doing, but the job's own
            self._emit_interrupted(reason)
        cancelled = self._reason is CANCEL or isinstance(interrupt, CancelJob)
        if not (cancelled or isinstance(self._reason, Control)):
            self._check_limit()
        self.progress.interruptions += 1
        self.job.on_shutdown()
        if cancelled:
            self.job.on_cancel()
            self._end("cancelled", reason)
            return Ended("cancelled", reason)
        if self._reason is PAUSE:
            self._end("paused", reason)
            return Ended("paused", reason)
        self._end("interrupted", reason)
        delay = interrupt.delay if isinstance(interrupt, RetryLater) else self.job.resume_delay
        return Ended("interrupted", reason, delay)

    def _resumed_after(self, error: Exception) -> Ended:
        self._settle()
        reason = f"{type(error).__name__}: {error}"
        self._check_limit()
        self.progress.errors += 1
        self.job.on_error(error)
        self._end("interrupted", reason)
        self._emit_interrupted(reason)
        return Ended("interrupted", reason, self.job.resume_delay)

    def _resumes(self, error: Exception) -> bool:
        """Return whether an error is an interruption: after progress (C27), of an item, or of a connection cut off."""
        cut_off = getattr(error, "connection_invalidated", False) is True  # what SQLAlchemy says of it
        return self.item_failed or cut_off or (self.advanced and self.job.resume_errors_after_advancing)

    def _check_limit(self) -> None:
        limit = self.job.max_resumptions
        if limit is not None and self.progress.resumptions >= limit:
            events.emit(events.ResumeLimitReached(self.job_id, self._name, limit))
            error = ResumeLimit(f"{self._name} was resumed a maximum of {limit} times; raise max_resumptions")
            self._failed(error)
            raise error

    def _refused(self, error: HarnessError) -> None:
        """End the execution as failed, or as interrupted if another worker may know its steps."""
        if not (self._patient and isinstance(error, StepsChanged)):
            self._failed(error)
            return
        self._settle()
        reason = f"{type(error).__name__}: {error}"
        self._end("interrupted", reason)
        self._emit_interrupted(reason)

    def _failed(self, error: Exception) -> None:
        self._settle()
        self.progress.errors += 1
        if not isinstance(error, HarnessError):
            self.job.on_error(error)
        self._end("failed", f"{type(error).__name__}: {error}")
        events.emit(events.JobFailed(self.job_id, self._name, error, self.description, self._duration))

    def _settle(self) -> None:
        """Where work and cursor are committed together, go by what the database has.

        What was done since the latest commit was rolled back. And if the answer to a commit was lost, only the
        database knows whether it happened.

        :raises Superseded: if another execution has claimed the job since.
        """
        if not self.transactional:
            return
        with self.reaching_store("read"):
            stored = self.store.load(self.job_id)
        if stored is None and self._still_owned():
            raise CorruptProgress(
                f"the progress of job {self.job_id} is gone from its store, and what was done since the latest commit "
                "was rolled back: nobody knows where that was; enqueue the job again for what is left"
            )
        if stored is None or stored.epoch != self.progress.epoch:
            raise Superseded
        self._take_position(stored)
        self.items = stored.done - self._done_before

    def _end(self, state: State, reason: str | None) -> None:
        self.progress.state, self.progress.reason = state, reason
        self.progress.ended = self.progress.epoch
        self.save(state)
