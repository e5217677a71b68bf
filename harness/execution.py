"""Execution of a job: one attempt, from its start to the boundary where it ends.

Writes of progress in this module, and the meaning of a crash at each of them (for writes at checkpoints see
:mod:`harness.runtime.checkpoints`, for those at the end see :mod:`harness.runtime.ends`):

* ``claim`` stores the raised epoch before any work. Crash after it: the next execution claims again; no work
  was done. An epoch without an end shows the next execution that the previous one crashed.
* A detected crash is saved before any work. Crash after that: the next execution counts both crashes.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from harness import events, overrides
from harness.boundary.texts import error_text
from harness.context import ParallelRun, Portion
from harness.errors import (
    CompleteEarly,
    CrashLimit,
    HarnessError,
    Interrupt,
    ProgressError,
    ProgressUnavailable,
    Propagated,
    StepsChanged,
    Superseded,
    TasksLeft,
    carried,
)
from harness.job import Job
from harness.progress import DIED
from harness.runtime import rounds
from harness.runtime.ends import Ended, Ends
from harness.runtime.listeners import at_work
from harness.runtime.rounds import UNKNOWN, Call
from harness.runtime.saves import Setup
from harness.stops import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from harness.context import Observer
    from harness.durability import Durability
    from harness.progress import Progress, StopSource, Store
    from harness.stops import Clock


class Execution(Ends):
    """One attempt at a job.

    :param job_class: the job; each execution makes a new instance.
    :param stops: sources asked at checkpoints, in this order, after the job's ``max_runtime`` and before its
        ``should_stop``.
    :param durability: replaces the durability of the job.
    :param clock: monotonic clock, in seconds; ``time.monotonic`` if None.
    :param portion: the part of an iteration job to do.
    :param parallel_run: parallel run of which this is an instance, or that it may start; see
        :mod:`harness.sources.parallel`.
    :param observers: called before any work, once the progress is loaded; they cannot stop the job.
    :param call: facts about the enqueue, from the queue; they distinguish the rounds of a job.
    :param owns: called if the stored progress is gone: True if this execution owns the job, according to the queue.
    :param patient: True to leave steps that another release recorded to a worker that knows them.
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
        parallel_run: ParallelRun | None = None,
        observers: Sequence[Observer] = (),
        call: Call = UNKNOWN,
        owns: Callable[[], bool] | None = None,
        patient: bool = False,
    ) -> None:
        job_class.check_arguments(kwargs or {}, portion)
        asked, job = overrides.current, job_class()
        sources: list[StopSource] = [*asked.stops, *stops]
        if job_class.should_stop is not Job.should_stop:
            sources.append(lambda _: job.should_stop())
        chosen = asked.durability or durability or job_class.durability
        super().__init__(
            Setup(
                job, job_id, asked.store or store, chosen, clock or asked.clock, sources, owns, parallel_run
            )
        )
        job.execution = self
        self.portion = portion or Portion()
        self.completes = parallel_run is None or parallel_run.instance is None
        self.args, self.kwargs = tuple(args), dict(kwargs or {})
        self.observers = tuple(observers)
        self._patient, self._call = patient, call

    # The life of an execution.

    def run(self) -> Ended:
        """Run the job until it completes, stops or fails; Interrupt is caught only here.

        :raises ProgressUnavailable: if the store cannot be reached; run the job again later.
        :raises Exception: what the job raised, if it is not resumed; its progress was saved.
        """
        try:
            with at_work(self.job_id, self._name, self.clock):
                return self._run()
        except Superseded:  # raised by a save of the boundary itself: another execution owns the job now
            return Ended("superseded")
        finally:
            self.loop.close()

    def _run(self) -> Ended:
        try:
            self._claim()
        except ProgressUnavailable:
            raise
        except HarnessError as error:  # stored progress is unusable and stays unchanged: no end to save
            self._emit_failed(error)
            self.run_hook("on_error", error)
            raise
        if self.progress.state == "completed":
            return Ended("completed")
        if self.progress.state == "cancelled":
            return Ended("cancelled")
        self._attach()
        try:
            return self._attempt()
        except (Superseded, ProgressUnavailable):
            raise  # nothing can be saved: the next execution counts this one as crashed
        except Exception as error:
            if not self._end_saved:
                self._refused(error)
            raise
        except (KeyboardInterrupt, SystemExit) as error:
            if not self._end_saved:
                self._left(error)
            raise
        finally:
            self._detach()

    def _refused(self, error: Exception) -> None:
        """End the execution as failed, or as interrupted if another worker may know its steps."""
        if self._patient and isinstance(error, StepsChanged):
            self._left_to_others(error)
        else:
            self._failed(error)

    def _attempt(self) -> Ended:
        """Do the work and return its end, or raise the error that is saved as a failure."""
        interrupt: Interrupt | None = None
        failure: Exception | None = None
        try:
            self._before_work()
            self._work()
            self._save_completion()
        except Interrupt as raised:
            interrupt = raised
        except HarnessError:
            raise
        except (Exception, Propagated) as raised:
            error = carried(raised)
            if not self._resumes(error):
                if error is raised:
                    raise
                raise error from None
            failure = error
        # Outside of the handlers: otherwise an error of a hook would show an unrelated error as its context.
        if interrupt is not None:
            return self._interrupted(interrupt)
        return self._completed() if failure is None else self._resumed_after(failure)

    def _work(self) -> None:
        try:
            with self._leaving_no_task("the job"):
                self._begin()
                self.commits = self.transactional
                self.job.run_pattern(self.args, self.kwargs)
        except CompleteEarly as early:
            events.emit(events.CompletedEarly(self.job_id, self._name, early.reason, self.description))
        self.refuse_swallowed()
        if (self.completes or self.progress.all_done) and type(self.job).on_complete is not Job.on_complete:
            self._run_on_complete()

    def _run_on_complete(self) -> None:
        """Run ``on_complete``, which belongs to the work: the job is completed once it has returned."""
        if not self.progress.all_done:
            # A superseded execution cannot complete the job again. See harness.runtime.ends for what a crash means.
            self.progress.all_done = True
            self.commit_or_save("all done")
        self._run_on_shutdown()
        self.commits = self.transactional
        with suppress(CompleteEarly), self._leaving_no_task("on_complete"):  # no work is left to skip
            self._call_hook("on_complete")

    @contextmanager
    def _leaving_no_task(self, name: str) -> Iterator[None]:
        """Cancel the unfinished tasks of the block and refuse them: their work would count as done.

        :raises TasksLeft: unless the block raises an error; a note is then added to that error.
        """
        try:
            yield
        except (Exception, Propagated) as error:
            if left := self.loop.end_tasks():
                error.add_note(f"{name} left {left}; they were cancelled")
            raise
        except Interrupt as control:
            self._refuse_tasks(name, control)
            raise
        self._refuse_tasks(name, None)

    def _refuse_tasks(self, name: str, control: Interrupt | None) -> None:
        if left := self.loop.end_tasks():
            raise TasksLeft(
                f"{name} ended and left {left}; they were cancelled: await each task before the end, for example with "
                "async with asyncio.TaskGroup()"
            ) from control

    def _call_hook(self, name: str) -> None:
        """Call a hook that is part of the work, and await what it returns."""
        self.accept_result(name, getattr(self.job, name)())

    def fail_item(self, error: Exception) -> None:
        """Count a failure of the item after the cursor; the execution then ends and is resumed."""
        progress = self.progress
        progress.failures = 1 if self._left_item else progress.failures + 1
        progress.failure = error_text(error)
        self.item_failed = True

    def _before_work(self) -> None:
        crashed = self._notice_crash()
        for observer in self.observers:
            observer.began(self)
        self._obey_requests()
        if crashed:  # and the history has recorded this execution
            self._limit_crashes()

    def _obey_requests(self) -> None:
        """Obey, before any work, a pause or cancellation that was requested while the job waited."""
        for source in self._sources:
            ask = getattr(source, "at_start", None)
            control = ask(self) if ask else None
            if control:
                self.interrupt(reason_of(control, source))

    def _claim(self) -> None:
        with self.reaching_store("claimed"):
            claimed = self.store.claim(self.job_id)
        self.progress = progress = self._join(claimed)
        self._started_at = self._tried_at = self.clock()
        self._take_position(progress)
        self._note_beginning()

    def _join(self, claimed: Progress) -> Progress:
        """Return the progress of the round that this execution belongs to."""
        try:
            return rounds.join(claimed, type(self.job), self._call)
        except ProgressError:
            # Only the claim was stored, and it alone does not count as a crash. Crash before it is undone:
            # the next execution counts a crash.
            if claimed.ended == claimed.epoch - 1:
                claimed.ended = claimed.epoch
                with self.reaching_store("saved"):
                    self.store.save(claimed)
            raise

    def _notice_crash(self) -> bool:
        """Count a crash if the previous execution never ended, and return whether it did.

        It is saved before any work: if this execution crashes too, the next one counts both.
        """
        progress = self.progress
        if progress.ended == progress.epoch - 1:
            return False
        progress.crashes, progress.crashes_in_a_row = progress.crashes + 1, progress.crashes_in_a_row + 1
        progress.failures, progress.failure = progress.failures + 1, DIED
        events.emit(
            events.CrashNoticed(self.job_id, self._name, progress.crashes_in_a_row, progress.description)
        )
        self.save_on_the_way("crash")
        return True

    def _limit_crashes(self) -> None:
        """Fail a job that crashes too often.

        :raises CrashLimit: if too many executions crashed in a row, with no item done in between.
        """
        progress, limit = self.progress, self.job.max_crashes
        if progress.crashes_in_a_row <= limit:
            return
        died, progress.crashes_in_a_row = progress.crashes_in_a_row, 0
        raise CrashLimit(
            f"{self._name} crashed {died} times {progress.description} without progress; the limit is "
            f"{limit} (max_crashes); its progress is kept: enqueue it again when the cause is fixed"
        )

    def _begin(self) -> None:
        progress = self.progress
        progress.state = "running"
        if not progress.begun:
            events.emit(events.JobStarted(self.job_id, self._name))
            # Otherwise on_start ran before the instances.
            if self.parallel_run is None or self.parallel_run.instance is None:
                try:
                    self._call_hook("on_start")
                except CompleteEarly:
                    progress.begun = True
                    raise
            progress.begun = True
            return
        if progress.started:
            progress.resumptions += 1
        events.emit(events.JobResumed(self.job_id, self._name, progress.description, progress.resumptions))
        self._call_hook("on_resume")

    def _resumes(self, error: Exception) -> bool:
        """Return whether an error is resumed: after progress, a failed item or a lost connection."""
        cut_off = getattr(error, "connection_invalidated", False) is True  # the cause that SQLAlchemy reports
        return self.item_failed or cut_off or (self.advanced and self.job.resume_errors_after_advancing)
