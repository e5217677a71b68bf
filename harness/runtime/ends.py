"""End of an execution: the end is saved first, then hooks run. No hook changes the outcome.

Writes of progress in this module, and the meaning of a crash at each of them:

* The save of the end comes before every hook of the end, and before the report to the queue. Crash before it: the next
  execution counts a crash and continues from the previous save. Crash after it, also in a hook: the end stays valid, no
  crash is counted and no work is repeated. Hooks that were running do not run again, and hooks that had not run yet
  never run. So these hooks run at most once. Lost answer: the next claim reads the store again; both ends are correct,
  and no hook runs.
* A job with ``on_complete`` saves "all done" before it. Crash after that save, before ``on_complete`` has returned and
  ``completed`` is saved: a crash is counted, and the next execution does no work and runs ``on_complete`` again. So it
  runs at least once. With ``with_transaction()``, the uncommitted work of ``on_complete`` in the session is committed
  with ``completed``.
* While the store is unreachable, the save of the end is tried again for the grace period. SIGKILL in that time is a
  crash before the save.
* Attributes that a hook of the end changes are saved after it. Crash before that: those changes are lost.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness import cursor as cursors
from harness import events, overrides
from harness.boundary.texts import error_text
from harness.cursor import freeze
from harness.errors import (
    CancelJob,
    CorruptProgress,
    Interrupt,
    ProgressUnavailable,
    ResumeLimit,
    RetryLater,
    Superseded,
    TasksLeft,
    UsageError,
)
from harness.runtime import callables
from harness.runtime.checkpoints import Checkpoints
from harness.runtime.loops import is_awaitable
from harness.runtime.policy import read_seconds
from harness.stops import CANCEL, PAUSE, Control

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.progress import Progress, State
    from harness.runtime.saves import Setup


@dataclass(frozen=True)
class Ended:
    """Outcome of an execution that did not raise.

    :ivar outcome: ``interrupted``: run it again after ``delay`` seconds; ``paused``: run it again when it is resumed;
        ``superseded``: do nothing.
    :ivar queue: name of the queue to run it again in; None for its own. :ivar at_front: before all other jobs of the
        queue. :ivar after_error: whether an error ended it; the next execution may meet the same error.
    """

    outcome: Literal["completed", "interrupted", "paused", "cancelled", "superseded"]
    reason: str | None = None
    delay: float = 0
    queue: str | None = None
    at_front: bool = False
    after_error: bool = False


class _Hook:
    """State of a running hook: whether it began without an open transaction, and whether it failed."""

    def __init__(self, execution: Ends) -> None:
        self._execution, self.began, self.failed = execution, False, False

    def begin(self) -> None:
        self.began = not self._execution.job.in_transaction()

    def to_commit(self) -> bool:
        """Return whether the hook leaves an open transaction that it began."""
        execution = self._execution
        return execution.transactional and self.began and execution.job.in_transaction()


class Ends(Checkpoints):
    """The part of an execution that comes after the work."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        # Values from the job's __init__ are defaults; copy them, because the job may change them in place.
        self._defaults = self._copied(setup.job.__dict__.get("_attributes", {}))
        self._end_saved = False
        self._shut_down = False

    # The ends.

    def _completed(self) -> Ended:
        progress = self.progress
        events.emit(
            events.JobCompleted(self.job_id, self._name, progress.done, progress.epoch, progress.runtime_s)
        )
        self._run_on_shutdown()
        return Ended("completed")

    def _interrupted(self, interrupt: Interrupt) -> Ended:
        if self._superseded:
            return Ended("superseded")
        self._reload_committed()
        reason = str(interrupt.reason)
        cancelled = self._reason is CANCEL or isinstance(interrupt, CancelJob)
        paused = not cancelled and self._reason is PAUSE
        if not (cancelled or isinstance(self._reason, Control)):
            self._check_limit()
        self.progress.interruptions += 1
        outcome: Any = "cancelled" if cancelled else "paused" if paused else "interrupted"
        self._save_end(outcome, reason)
        if self._reason is None or self._tells_later:  # caused by the job itself, not by a stop source
            self._emit_interrupted(reason)
        self._run_on_shutdown()
        if cancelled:
            self.run_hook("on_cancel")
        if outcome != "interrupted":
            return Ended(outcome, reason)
        return self._again(reason, interrupt.delay if isinstance(interrupt, RetryLater) else None)

    def _resumed_after(self, error: Exception) -> Ended:
        self._reload_committed()
        reason = error_text(error)
        self._check_limit(error)
        self.progress.errors += 1
        self._save_end("interrupted", reason)
        self._emit_interrupted(reason)
        self.run_hook("on_error", error)
        return self._again(reason, read_seconds(self.job, "error_delay"), after_error=True)

    def _again(self, reason: str, delay: float | None, *, after_error: bool = False) -> Ended:
        """Return an end after which another execution follows, with the queue and delay of the job's policy."""
        usual = read_seconds(self.job, "resume_delay") or 0
        wait = usual if delay is None else max(delay, usual) if after_error else delay
        asked = overrides.current.delay_seconds
        return Ended(
            "interrupted",
            reason,
            wait if asked is None else asked,
            self.job.resume_queue,
            self.job.resume_at_front,
            after_error,
        )

    def _check_limit(self, cause: Exception | None = None) -> None:
        """Fail the job if it has reached its limit of resumptions.

        :param cause: the error that would have been resumed; ``on_error`` gets it too.
        :raises ResumeLimit: then.
        """
        limit = self.job.max_resumptions
        if limit is not None and self.progress.resumptions >= limit:
            events.emit(events.ResumeLimitReached(self.job_id, self._name, limit))
            error = ResumeLimit(f"{self._name} was resumed a maximum of {limit} times; raise max_resumptions")
            error.__cause__ = cause
            self._failed(error, cause)
            raise error

    def _failed(self, error: Exception, cause: Exception | None = None) -> None:
        self._reload_committed()
        self.progress.errors += 1
        self._save_failure(error_text(error))
        self._emit_failed(error)
        for each in filter(None, (cause, error)):
            self.run_hook("on_error", each)

    def _left_to_others(self, error: Exception) -> None:
        """Save that the execution stopped for an error that a worker of another release may not raise."""
        self._reload_committed()
        reason = error_text(error)
        self._save_end("interrupted", reason)
        self._emit_interrupted(reason)

    def _left(self, error: BaseException) -> None:
        """Save that the process was asked to exit. The error propagates even if the save fails."""
        try:
            self._reload_committed()
            self._save_failure(error_text(error))
        except Superseded:
            pass
        except Exception as problem:  # noqa: BLE001 - cannot replace the exit
            events.emit(events.SaveFailed(self.job_id, self._name, problem))

    def _emit_failed(self, error: Exception) -> None:
        events.emit(events.JobFailed(self.job_id, self._name, error, self.description, self._duration))

    # What is saved.

    def _save_completion(self) -> None:
        """Save that the job is done; see the module for what a crash means."""
        progress = self.progress
        where = progress.step, progress.cursor, progress.beyond
        progress.step, progress.cursor, progress.beyond = None, None, []
        try:
            self._save_end("completed", None)
        except BaseException:
            # Only a job that is not completed continues at these items.
            progress.step, progress.cursor, progress.beyond = where
            raise

    def _save_end(self, state: State, reason: str | None) -> None:
        progress = self.progress
        progress.state, progress.reason, progress.ended = state, reason, progress.epoch
        if state == "completed" and self.transactional and self.job.in_transaction():
            self._commit_completion()
        else:
            self.save_patiently(state)
        self._end_saved = True

    def _commit_completion(self) -> None:
        """Commit the open work of ``on_complete`` together with the end.

        Crash before the commit, or commit refused: neither is stored, and ``on_complete`` runs again. Crash after it:
        both are stored. Lost answer: the store knows whether they are.
        """
        try:
            self.commit(always=True)
        except Exception:
            stored = self._stored()
            if stored.state != "completed":
                raise

    def _save_failure(self, reason: str) -> None:
        """Save that the execution failed, at the latest position that can be stored."""
        try:
            self._save_end("failed", reason)
        except (Superseded, ProgressUnavailable):
            raise
        except Exception:  # noqa: BLE001 - from user code: an attribute, or a sequence that gives a proof
            stored, errors = self._stored(), self.progress.errors
            stored.errors = errors
            self._take_position(stored)
            self.progress = stored
            self._save_end("failed", reason)

    def _reload_committed(self) -> None:
        """Reload the progress from the database if work and cursor are committed together.

        Work since the latest commit is rolled back here, so that no hook commits that work without its cursor. If
        the answer to a commit was lost, only the database knows whether it happened.

        :raises Superseded: if another execution has claimed the job since.
        """
        self.commits = False
        if self.transactional:
            self._roll_back()
            self._take_position(self._stored())

    def _stored(self) -> Progress:
        with self.reaching_store("read"):
            stored = self.store.load(self.job_id)
        if stored is None and self._still_owned():
            raise CorruptProgress(
                f"the progress of job {self.job_id} is gone from its store, and the work since the latest "
                "commit was rolled back: the position is unknown; enqueue the job again for the remaining "
                "work"
            )
        if stored is None or stored.epoch != self.progress.epoch:
            raise Superseded
        return stored

    def _take_position(self, stored: Progress) -> None:
        """Restore a stored position: the position of the record, and the attributes of the job."""
        progress = self.progress
        progress.completed, progress.step, progress.cursor = stored.completed, stored.step, stored.cursor
        progress.done, progress.beyond = stored.done, stored.beyond
        # The enumerator has read beyond that position; the stored proof belongs to the position.
        progress.proof, self._proven = stored.proof, stored.cursor
        self.job.__dict__["_attributes"] = self._copied(self._defaults) | stored.attributes

    @staticmethod
    def _copied(attributes: dict[str, Any]) -> dict[str, Any]:
        return {name: freeze(value) for name, value in attributes.items()}

    def _roll_back(self) -> None:
        with suppress(Exception):  # a session that cannot roll back cannot commit either
            self.loop.finish(self._asked_to_roll_back())

    def _asked_to_roll_back(self) -> Any:
        rollback = getattr(getattr(self.job, "session", None), "rollback", None)
        return rollback() if callable(rollback) else None

    # Hooks.

    def _run_on_shutdown(self) -> None:
        if not self._shut_down:
            self._shut_down = True
            self.run_hook("on_shutdown")

    def run_hook(self, name: str, *arguments: Any, at_work: bool = False) -> None:
        """Run a hook whose errors do not affect the job: each becomes a :class:`~harness.events.HookFailed`.

        Attributes that it sets are kept if it returns and restored if it raises. Under ``with_transaction()`` its
        uncommitted work in the session is kept or rolled back in the same way. :param at_work: whether the execution
        continues after the hook. If it does, control exceptions work; after the end they are refused.
        :raises Superseded: if another execution has claimed the job since.
        """
        with self._containing(name, at_work=at_work) as hook:
            self.accept_result(name, getattr(self.job, name)(*arguments))
            if hook.to_commit():
                self.loop.finish(self.job.session.commit())  # type: ignore[attr-defined]  # the author's
            if not at_work and (left := self.loop.end_tasks()):
                raise TasksLeft(f"{name} left {left}; they were cancelled: await them before it returns")

    async def run_hook_async(self, name: str, *arguments: Any) -> None:
        """Run a hook like :meth:`run_hook`, from a coroutine while the job runs."""
        with self._containing(name, at_work=True) as hook:
            result = getattr(self.job, name)(*arguments)
            if is_awaitable(result):
                result = await result
            callables.refuse_result(result, self.job, name)
            if hook.to_commit() and is_awaitable(done := self.job.session.commit()):  # type: ignore[attr-defined]
                await done
        if hook.failed and hook.began:
            with suppress(Exception):  # as in _roll_back()
                if is_awaitable(done := self._asked_to_roll_back()):
                    await done

    def accept_result(self, name: str, result: Any) -> None:
        """Await the result of a hook; refuse a generator, because none of its work was done."""
        if result is not None:
            if is_awaitable(result):
                result = self.loop.run(result)
            callables.refuse_result(result, self.job, name)

    @contextmanager
    def _containing(self, name: str, *, at_work: bool) -> Iterator[_Hook]:
        """Catch the errors of a hook inside the block, and save or restore its attributes."""
        commits, before = self.commits, self._attributes()
        hook = _Hook(self)
        self.commits = False
        try:
            hook.begin()
            yield hook
            if self._attributes() != before and self._end_saved:
                self.save("hook")
        except Superseded:
            raise
        except ProgressUnavailable as error:  # the end is saved; the attributes that the hook set are lost
            events.emit(events.SaveFailed(self.job_id, self._name, error))
        except Interrupt as control:
            if self._superseded:
                raise Superseded from None
            if at_work:
                raise
            self._hook_failed(name, self._refusal(name, control), before, hook)
        except Exception as error:  # noqa: BLE001 - logged below
            self._hook_failed(name, error, before, hook)
        finally:
            self.commits = commits

    def _hook_failed(self, name: str, error: Exception, before: dict[str, Any], hook: _Hook) -> None:
        hook.failed = True
        if hook.began and not self.loop.is_running:  # otherwise the caller awaits it
            self._roll_back()
        self.job.__dict__["_attributes"] = {key: cursors.decode(value) for key, value in before.items()}
        events.emit(events.HookFailed(self.job_id, self._name, name, error))

    def _refusal(self, name: str, control: Interrupt) -> UsageError:
        refusal = UsageError(
            f"{name} raised {type(control).__name__}, but the execution has ended ({self.progress.state}) "
            "and its end is saved; raise it in each_iteration, a step, on_start, on_resume, on_quarantine "
            "or on_complete"
        )
        refusal.__cause__ = control
        return refusal.with_traceback(control.__traceback__)

    def _attributes(self) -> dict[str, Any]:
        values = self.job.__dict__.get("_attributes", {})
        return {name: cursors.encode(value, f"attribute {name!r}") for name, value in values.items()}
