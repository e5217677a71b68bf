"""All exceptions of this package.

::

    Exception
    └── HarnessError                   never resumed: running again would not help
        ├── UsageError                 wrong input; the commands end with exit code 2
        ├── JobNotAllowed              a job of a module that HARNESS_JOB_MODULES does not allow
        ├── JobDefinitionError         a job class that could not work
        ├── InvalidStep                steps that differ from those of earlier executions
        │   └── StepsChanged           another release of the job recorded them
        ├── CursorError                a value that would not be equal when read back
        │   └── UnadvanceableCursor    a value that has no successor
        ├── CheckpointInTransaction    a checkpoint while the work is not committed
        ├── InterruptSwallowed         the job caught the interruption and continued
        ├── TasksLeft                  an async job ended with unfinished tasks
        ├── ResumeLimit                resumed more often than ``max_resumptions``
        ├── CrashLimit                 crashed more often than ``max_crashes``
        ├── QuarantineFull             more items set aside than ``max_quarantined``
        ├── ProgressError              stored progress that cannot be used
        │   ├── CorruptProgress        not what any version of this package writes
        │   ├── UnsupportedProgress    written by a newer version
        │   ├── ProgressTooLarge       over the size cap
        │   └── ProgressUnavailable    the store is unreachable: run the job again later
        │       └── ProgressLocked     another transaction has locked the progress for too long
        ├── CollectionChanged          the iterated collection changed
        ├── Superseded                 another execution of the same job has taken over
        │   └── ProgressGone           the stored progress is gone; no other execution took over
        ├── InheritedConnection        a database connection that another process opened
        └── NothingInterrupted         a test asked for an interruption that never came
    BaseException
    ├── Died                           a simulated crash, in trials only
    ├── Propagated                     carries an error past ``except Exception``
    └── Interrupt                      ``except Exception`` does not catch it
        ├── CompleteEarly              raised by a job to complete before its last item
        ├── CancelJob                  raised by a job to end permanently
        └── RetryLater                 raised by a job to continue after a delay
"""

from __future__ import annotations

from datetime import timedelta

from harness.runtime.durations import LONGEST, in_seconds


class HarnessError(Exception):
    """Base of all errors of this package; the docstring of a subclass is its default message."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or type(self).__name__).splitlines()[0])


class UsageError(HarnessError):
    """The command cannot be carried out as given."""


class JobNotAllowed(HarnessError):
    """The module of the job is not among those that HARNESS_JOB_MODULES allows; nothing was imported."""


class JobDefinitionError(HarnessError):
    """The job class could not work as it is defined."""


class InvalidStep(HarnessError):
    """The steps found do not match the steps recorded."""


class StepsChanged(InvalidStep):
    """Another release of the job recorded steps that this code does not have."""


class CursorError(HarnessError):
    """The cursor would not be equal when read back from JSON."""


class UnadvanceableCursor(CursorError):
    """The cursor has no successor."""


class CheckpointInTransaction(HarnessError):
    """A checkpoint was reached while a transaction was open."""


class InterruptSwallowed(HarnessError):
    """The job caught the interruption and continued: do not catch BaseException, or raise it again."""


class TasksLeft(HarnessError):
    """The job ended and left asyncio tasks that are not done: await them before the end."""


class ResumeLimit(HarnessError):
    """The job has reached its limit of resumptions."""


class CrashLimit(HarnessError):
    """The job's worker crashed too many times without progress."""


class QuarantineFull(HarnessError):
    """Too many items failed: the cause is probably not the items."""


class ProgressError(HarnessError):
    """The stored progress cannot be used; it was not changed."""


class CorruptProgress(ProgressError):
    """The stored progress is not what this package writes; it was not changed."""


class UnsupportedProgress(ProgressError):
    """The stored progress was written by a newer version; it was not changed."""


class ProgressUnavailable(ProgressError):
    """The progress store is unreachable; run the job again later."""


class ProgressLocked(ProgressUnavailable):
    """The progress is locked by another transaction for too long; run the job again later."""


class ProgressTooLarge(ProgressError):
    """The progress is larger than the limit; keep large data in the database and its key in the cursor."""


class CollectionChanged(HarnessError):
    """The iterated collection changed since the job started; continuing could skip or repeat items."""


class Superseded(HarnessError):
    """Another execution owns this job now; this one stops writing."""


class InheritedConnection(HarnessError):
    """The database connection was opened by another process; two processes cannot share one."""


class ProgressGone(Superseded):
    """The stored progress of this execution is gone: deleted, evicted or expired."""


class NothingInterrupted(HarnessError, AssertionError):
    """The requested interruption never happened, so the test shows nothing."""


class Interrupt(BaseException):
    """Ends an execution at a checkpoint; caught only at the job boundary.

    It derives from BaseException so that a job's ``except Exception`` cannot swallow it, while
    ``finally`` and context managers run as for any exception.

    :ivar reason: why the job stops; ``"stopping"`` if a stop source returned ``True``.
    """

    def __init__(self, reason: str = "stopping") -> None:
        super().__init__(reason)
        self.reason = reason if isinstance(reason, str) else str(reason)  # it is stored, and may be an error


class CompleteEarly(Interrupt):
    """Raised by a job to skip its remaining work; ``on_complete`` runs, and the job counts as completed."""

    def __init__(self, reason: str = "completed early") -> None:
        super().__init__(reason)


class CancelJob(Interrupt):
    """Raised by a job to end permanently; ``on_cancel`` runs and ``on_complete`` does not."""

    def __init__(self, reason: str = "cancelled by the job") -> None:
        super().__init__(reason)


class RetryLater(Interrupt):
    """Raised by a job to stop and continue after *delay*, with the same item or step.

    :param delay: seconds or a ``timedelta``; replaces the job's ``resume_delay``.
    :ivar delay: the delay in seconds.
    :raises UsageError: for anything but a time of 0 or more.
    """

    def __init__(self, delay: float | timedelta, reason: str = "retried later") -> None:
        seconds = in_seconds(delay)
        if seconds is None or not 0 <= seconds <= LONGEST:
            raise UsageError(
                f"RetryLater takes seconds of 0 or more; got {delay!r}; a timedelta is accepted too"
            )
        super().__init__(reason)
        self.delay = seconds


class Propagated(BaseException):
    """Carries an error past the job's ``except Exception`` to the job boundary.

    :ivar error: the error.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def carried(raised: Exception | Propagated) -> Exception:
    """Return the error that a :class:`Propagated` carries, or *raised* itself."""
    return raised.error if isinstance(raised, Propagated) else raised


class Died(BaseException):
    """The process has crashed in a trial: it no longer changes external state."""
