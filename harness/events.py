"""What happens to jobs, as frozen dataclasses, for logs, metrics, monitors and tests.

>>> with subscribe(print):
...     emit(StepSkipped("17", "Import", step="load"))
StepSkipped(job_id='17', job='Import', step='load')

Every event but :class:`ItemDone` and :class:`ProgressSaved` is also a line in the log ``harness`` (C34, C35).
Durations are in seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.texts import storable

logger = logging.getLogger("harness")


@dataclass(frozen=True)
class Event:
    """Base of all events.

    :ivar job_id: the id of the job in its queue. :ivar job: the name of its class.
    """

    level: ClassVar[int] = logging.INFO
    """The level of the log line."""

    job_id: str
    job: str

    @property
    def line(self) -> str | None:
        """The log line, without the job; None if the event is not logged."""
        return None


@dataclass(frozen=True)
class JobStarted(Event):
    """The first execution begins."""

    @property
    def line(self) -> str:
        """The log line."""
        return "Started"


@dataclass(frozen=True)
class JobResumed(Event):
    """A later execution begins where an earlier one ended."""

    description: str
    resumptions: int

    @property
    def line(self) -> str:
        """The log line."""
        return f"Resuming {self.description} (resumption {self.resumptions})"


@dataclass(frozen=True)
class JobInterrupted(Event):
    """An execution ended at a checkpoint, or with an error that is resumed; the job goes on later."""

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
    """An execution ended with an error that is left to the queue."""

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
    """The job was to be resumed once more than ``max_resumptions`` allows."""

    level: ClassVar[int] = logging.ERROR
    max_resumptions: int

    @property
    def line(self) -> str:
        """The log line."""
        return f"Resumed a maximum of {self.max_resumptions} times"


@dataclass(frozen=True)
class CompletedEarly(Event):
    """The job said that the rest need not be done (I15)."""

    reason: str
    description: str

    @property
    def line(self) -> str:
        """The log line."""
        return f"Completed early {self.description} ({self.reason})"


@dataclass(frozen=True)
class CrashNoticed(Event):
    """The execution before this one died without a word."""

    level: ClassVar[int] = logging.WARNING
    crashes_in_a_row: int
    description: str

    @property
    def line(self) -> str:
        """The log line."""
        return f"Its worker died {self.description}, {self.crashes_in_a_row} in a row"


@dataclass(frozen=True)
class SaveFailed(Event):
    """Progress could not be saved on the way; the job goes on, and it is tried again when the next save is due."""

    level: ClassVar[int] = logging.WARNING
    error: Exception

    @property
    def line(self) -> str:
        """The log line."""
        return f"Not saved: {self.error}"


@dataclass(frozen=True)
class CheckpointLate(Event):
    """A checkpoint came later than a deploy would wait for.

    :ivar gap_s: seconds since one was due. :ivar grace_s: the job's ``grace_period``.
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
            f"{self.grace_s:g} s: a deploy would kill it there; make its items smaller"
        )


@dataclass(frozen=True)
class ItemQuarantined(Event):
    """An item that failed too often was set aside, and the job goes on."""

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
    """The number of items is not what it was when the job began."""

    level: ClassVar[int] = logging.WARNING
    before: int
    now: int

    @property
    def line(self) -> str:
        """The log line."""
        return (
            f"The collection had {self.before} items and now has {self.now}: items may be skipped or come again; "
            "guard=True would stop here"
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
    """The last slice of a parallel run is done; ``on_all_done`` runs."""

    slices: int

    @property
    def line(self) -> str:
        """The log line."""
        return f"All {self.slices} slices are done"


@dataclass(frozen=True)
class StepEvent(Event):
    """Base of what happens to a step."""

    step: str


@dataclass(frozen=True)
class StepStarted(StepEvent):
    """A step begins, at its start or, if resumed, at a cursor."""

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
class NothingToIterate(Event):
    """``build_enumerator`` returned None (I5)."""

    @property
    def line(self) -> str:
        """The log line."""
        return "Nothing to iterate: build_enumerator returned None"


@dataclass(frozen=True)
class ItemDone(Event):
    """An item is done and the cursor moved; made only while somebody is subscribed to it by name."""

    cursor: Any
    items: int


@dataclass(frozen=True)
class ProgressSaved(Event):
    """The progress was stored.

    :ivar why: ``"claim"``, ``"checkpoint"`` or how the execution ended.
    """

    why: str
    size_bytes: int


Subscriber = Callable[[Event], object]


class Subscription(AbstractContextManager["Subscription", None]):
    """A subscription; a context manager that ends it."""

    def __init__(self, subscriber: Subscriber, kinds: tuple[type[Event], ...]) -> None:
        self.subscriber, self._kinds = subscriber, kinds
        subscriptions.append(self)
        if any(issubclass(ItemDone, kind) for kind in kinds):
            of_items.append(self)

    def wants(self, event: Event) -> bool:
        """Return whether its subscriber is told."""
        return isinstance(event, self._kinds) if self._kinds else not isinstance(event, ItemDone)

    def close(self) -> None:
        """End the subscription; no error if it has ended."""
        for where in (subscriptions, of_items):
            if self in where:
                where.remove(self)

    def __exit__(self, *_: object) -> None:
        self.close()


subscriptions: list[Subscription] = []
of_items: list[Subscription] = []
"""Who is told of each item; read in the hot loop, so that no event is made for nobody."""


def subscribe(subscriber: Subscriber, *kinds: type[Event]) -> Subscription:
    """Have *subscriber* called with events of this process, in the job's thread; its errors are logged, no more.

    :param kinds: which events; by default all but :class:`ItemDone`, of which there is one an item.
    """
    return Subscription(subscriber, kinds)


def emit(event: Event) -> None:
    """Log the event and tell the subscribers."""
    if logger.isEnabledFor(event.level) and (line := event.line) is not None:
        logger.log(event.level, "%s (Job ID: %s) %s", event.job, event.job_id, storable(line))
    for subscription in tuple(subscriptions):
        try:
            if subscription.wants(event):
                subscription.subscriber(event)
        except Exception:
            logger.exception(
                "the subscriber %r failed on %r; the job goes on", subscription.subscriber, event
            )
