"""Events of jobs, as frozen dataclasses, for logs, metrics, monitors and tests.

>>> with subscribe(print):
...     emit(StepSkipped("17", "Import", step="load"))
StepSkipped(job_id='17', job='Import', step='load')

Each event except :class:`ItemDone`, :class:`PageRead` and :class:`ProgressSaved` is also a line in the log
``harness``. Durations are in seconds.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.runtime.listeners import Event, ItemDone, PageRead, Subscription, emit, subscribe, subscriptions

__all__ = [
    "AllDone", "CheckpointLate", "CollectionDrifted", "CompletedEarly", "CrashNoticed", "Event",
    "HookFailed", "ItemDone", "ItemFailed", "ItemQuarantined", "JobCompleted", "JobFailed",
    "JobInterrupted", "JobResumed", "JobStarted", "LoopBlocked", "NothingFound", "NothingToIterate", "PageRead",
    "ParallelStarted", "ProgressSaved", "ResumeLimitReached", "SaveFailed", "StepCompleted",
    "StepEvent", "StepFailed", "StepInterrupted", "StepSkipped", "StepStarted", "Subscription",
    "emit", "subscribe", "subscriptions",
]  # fmt: skip


@dataclass(frozen=True)
class JobStarted(Event):
    """The first execution starts."""

    @property
    def line(self) -> str:
        """The log line."""
        return "Started"


@dataclass(frozen=True)
class JobResumed(Event):
    """A later execution starts where an earlier one ended."""

    description: str
    resumptions: int

    @property
    def line(self) -> str:
        """The log line."""
        return f"Resuming {self.description} (resumption {self.resumptions})"


@dataclass(frozen=True)
class JobInterrupted(Event):
    """An execution ended at a checkpoint, or with an error that is resumed; the job continues later."""

    reason: str
    description: str
    duration_s: float

    @property
    def line(self) -> str:
        """The log line."""
        return f"Interrupted {self.description} ({self.reason}) after {self.duration_s:.3f} s"


@dataclass(frozen=True)
class JobCompleted(Event):
    """The job is done.

    :ivar runtime_s: over all executions.
    """

    done: int
    executions: int
    runtime_s: float

    @property
    def line(self) -> str:
        """The log line."""
        return f"Completed {self.done} items in {self.executions} executions, {self.runtime_s:.3f} s"


@dataclass(frozen=True)
class JobFailed(Event):
    """An execution ended with an error that the queue handles."""

    level: ClassVar[int] = logging.ERROR
    error: BaseException
    description: str
    duration_s: float

    @property
    def line(self) -> str:
        """The log line."""
        return f"Failed {self.description} after {self.duration_s:.3f} s: {type(self.error).__name__}: {self.error}"


@dataclass(frozen=True)
class ResumeLimitReached(Event):
    """The job reached the limit ``max_resumptions``."""

    level: ClassVar[int] = logging.ERROR
    max_resumptions: int

    @property
    def line(self) -> str:
        """The log line."""
        return f"Resumed a maximum of {self.max_resumptions} times"


@dataclass(frozen=True)
class CompletedEarly(Event):
    """The job skipped its remaining work."""

    reason: str
    description: str

    @property
    def line(self) -> str:
        """The log line."""
        return f"Completed early {self.description} ({self.reason})"


@dataclass(frozen=True)
class CrashNoticed(Event):
    """The previous execution crashed."""

    level: ClassVar[int] = logging.WARNING
    crashes_in_a_row: int
    description: str

    @property
    def line(self) -> str:
        """The log line."""
        return f"Its worker crashed {self.description}, {self.crashes_in_a_row} in a row"


@dataclass(frozen=True)
class SaveFailed(Event):
    """Progress could not be saved; the job continues and tries again at the next save."""

    level: ClassVar[int] = logging.WARNING
    error: Exception

    @property
    def line(self) -> str:
        """The log line."""
        return f"Not saved: {self.error}"


@dataclass(frozen=True)
class CheckpointLate(Event):
    """A checkpoint came later than the grace period of a deploy.

    :ivar gap_s: seconds since a checkpoint was due. :ivar grace_s: the job's ``grace_period``.
    """

    level: ClassVar[int] = logging.WARNING
    gap_s: float
    grace_s: float
    description: str

    @property
    def line(self) -> str:
        """The log line."""
        return (
            f"No checkpoint for {self.gap_s:.1f} s {self.description}, longer than the grace period of "
            f"{self.grace_s:g} s: a deploy would kill the job there; make its items smaller"
        )


@dataclass(frozen=True)
class LoopBlocked(Event):
    """The event loop of an async job was blocked for longer than the grace period of a deploy.

    :ivar blocked_s: seconds in which no other task could run. :ivar grace_s: the job's ``grace_period``.
    """

    level: ClassVar[int] = logging.WARNING
    blocked_s: float
    grace_s: float
    description: str

    @property
    def line(self) -> str:
        """The log line."""
        return (
            f"The event loop was blocked for {self.blocked_s:.1f} s {self.description}, longer than the grace period "
            f"of {self.grace_s:g} s: await instead of calling blocking functions, or use asyncio.to_thread()"
        )


@dataclass(frozen=True)
class ItemQuarantined(Event):
    """An item that failed too often was set aside, and the job continues."""

    level: ClassVar[int] = logging.ERROR
    cursor: Any
    failures: int
    error: str

    @property
    def line(self) -> str:
        """The log line."""
        return (
            f"Set aside the item at cursor {self.cursor!r}, which failed {self.failures} times: {self.error}"
        )


@dataclass(frozen=True)
class CollectionDrifted(Event):
    """The number of items has changed since the job started."""

    level: ClassVar[int] = logging.WARNING
    before: int
    now: int

    @property
    def line(self) -> str:
        """The log line."""
        return (
            f"The collection had {self.before} items and now has {self.now}: items may be skipped or "
            "repeated; guard=True would stop the job here"
        )


@dataclass(frozen=True)
class ParallelStarted(Event):
    """The instances of a parallel run were enqueued."""

    instances: int
    slices: int

    @property
    def line(self) -> str:
        """The log line."""
        return f"Started {self.instances} instances over {self.slices} slices"


@dataclass(frozen=True)
class AllDone(Event):
    """The last slice of a parallel run is done; this instance runs ``on_complete``."""

    slices: int

    @property
    def line(self) -> str:
        """The log line."""
        return f"All {self.slices} slices are done"


@dataclass(frozen=True)
class StepEvent(Event):
    """Base of the events of a step."""

    step: str


@dataclass(frozen=True)
class StepStarted(StepEvent):
    """A step starts, at its beginning or, if resumed, at its cursor."""

    cursor: Any
    resumed: bool

    @property
    def line(self) -> str:
        """The log line."""
        return f"Step {self.step!r} " + (
            f"resumed from cursor {self.cursor!r}" if self.resumed else "started"
        )


@dataclass(frozen=True)
class StepSkipped(StepEvent):
    """A step was completed by an earlier execution."""

    @property
    def line(self) -> str:
        """The log line."""
        return f"Step {self.step!r} skipped"


@dataclass(frozen=True)
class StepCompleted(StepEvent):
    """A step is done."""

    cursor: Any
    duration_s: float

    @property
    def line(self) -> str:
        """The log line."""
        return f"Step {self.step!r} completed in {self.duration_s:.3f} s"


@dataclass(frozen=True)
class StepInterrupted(StepEvent):
    """A step was interrupted at a checkpoint."""

    cursor: Any
    duration_s: float

    @property
    def line(self) -> str:
        """The log line."""
        return f"Step {self.step!r} interrupted at cursor {self.cursor!r} after {self.duration_s:.3f} s"


@dataclass(frozen=True)
class StepFailed(StepEvent):
    """A step raised an error."""

    level: ClassVar[int] = logging.WARNING
    cursor: Any
    duration_s: float
    error: BaseException

    @property
    def line(self) -> str:
        """The log line."""
        return (
            f"Error during step {self.step!r} at cursor {self.cursor!r} after {self.duration_s:.3f} s: "
            f"{type(self.error).__name__}: {self.error}"
        )


@dataclass(frozen=True)
class ItemFailed(Event):
    """``each_iteration`` raised an error.

    :ivar cursor: cursor of the item that failed; the job resumes at that item.
    """

    level: ClassVar[int] = logging.WARNING
    cursor: Any
    error: Exception

    @property
    def line(self) -> str:
        """The log line."""
        return f"Error in the item at cursor {self.cursor!r}: {type(self.error).__name__}: {self.error}"


@dataclass(frozen=True)
class HookFailed(Event):
    """A hook raised after the end was saved, or in ``on_quarantine``; the outcome does not change.

    :ivar hook: the name of the method. :ivar error: its error, or the refusal of its control exception.
    """

    level: ClassVar[int] = logging.ERROR
    hook: str
    error: Exception

    @property
    def line(self) -> str:
        """The log line."""
        return f"{self.hook} failed, with no effect on the job: {type(self.error).__name__}: {self.error}"

    @property
    def traceback_of(self) -> Exception:
        """The error of the hook."""
        return self.error


@dataclass(frozen=True)
class NothingFound(Event):
    """The enumerator of this execution yielded no item.

    :ivar done: items that earlier executions did.
    """

    done: int

    @property
    def line(self) -> str:
        """The log line."""
        return f"Nothing found: the enumerator yielded no item ({self.done} were done before)"


@dataclass(frozen=True)
class NothingToIterate(Event):
    """``build_enumerator`` returned None."""

    @property
    def line(self) -> str:
        """The log line."""
        return "Nothing to iterate: build_enumerator returned None"


@dataclass(frozen=True)
class ProgressSaved(Event):
    """The progress was stored.

    :ivar why: ``"claim"``, ``"checkpoint"`` or how the execution ended.
    """

    why: str
    size_bytes: int
