"""Base class of events, and their delivery to the log and the subscribers.

Use these names from :mod:`harness.events`. Two kinds of events are frequent, :class:`ItemDone` and
:class:`PageRead`: they are created only while a subscriber asks for them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from harness.boundary.logs import guard
from harness.boundary.texts import storable
from harness.errors import Interrupt

logger = logging.getLogger("harness")
guard("harness", "harness.rq")


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

    @property
    def traceback_of(self) -> BaseException | None:
        """The exception whose traceback follows the log line, or None."""
        return None


@dataclass(frozen=True)
class ItemDone(Event):
    """An item is done and the cursor moved; created only while a subscriber asks for it."""

    cursor: Any
    items: int


@dataclass(frozen=True)
class PageRead(Event):
    """A page of a select was read; created only while a subscriber asks for it.

    :ivar rows: number of rows in the page; 0 for the query that finds no more rows. :ivar duration_s: seconds by the
        job's clock.
    """

    rows: int
    duration_s: float


Subscriber = Callable[[Event], object]


class Subscription(AbstractContextManager["Subscription", None]):
    """Subscription; a context manager that ends it."""

    def __init__(self, subscriber: Subscriber, kinds: tuple[type[Event], ...]) -> None:
        self.subscriber, self._kinds = subscriber, kinds
        subscriptions.append(self)
        for frequent, subscribed in _FREQUENT.items():
            if any(issubclass(frequent, kind) for kind in kinds):
                subscribed.append(self)

    def wants(self, event: Event) -> bool:
        """Return whether the subscriber gets this event."""
        return isinstance(event, self._kinds) if self._kinds else type(event) not in _FREQUENT

    def close(self) -> None:
        """End the subscription; no error if it has ended."""
        for where in (subscriptions, *_FREQUENT.values()):
            if self in where:
                where.remove(self)

    def __exit__(self, *_: object) -> None:
        self.close()


subscriptions: list[Subscription] = []
"""All subscriptions."""
of_items: list[Subscription] = []
"""Subscriptions to :class:`ItemDone`; the hot loop reads them to avoid creating unused events."""
of_pages: list[Subscription] = []
"""Subscriptions to :class:`PageRead`."""

_FREQUENT: dict[type[Event], list[Subscription]] = {ItemDone: of_items, PageRead: of_pages}


def subscribe(subscriber: Subscriber, *kinds: type[Event]) -> Subscription:
    """Call *subscriber* with events of this process, in the job's thread.

    Its errors are logged and have no other effect, including :class:`~harness.Interrupt` and its subclasses.

    :param kinds: kinds of events; by default all except the frequent ones, :class:`ItemDone` and
        :class:`PageRead`.
    """
    return Subscription(subscriber, kinds)


def emit(event: Event) -> None:
    """Log the event and pass it to the subscribers."""
    if logger.isEnabledFor(event.level):
        try:
            line = event.line
        except Exception:  # noqa: BLE001 - the text of an error or a cursor comes from user code
            line = f"{type(event).__name__}, whose text cannot be shown"
        if line is not None:
            logger.log(
                event.level,
                "%s (Job ID: %s) %s",
                event.job,
                event.job_id,
                storable(line),
                exc_info=event.traceback_of,
            )
    for subscription in tuple(subscriptions):
        try:
            if subscription.wants(event):
                subscription.subscriber(event)
        except (Exception, Interrupt):
            logger.exception(
                "the subscriber %r failed on %r; the job continues", subscription.subscriber, event
            )


class _AtWork(NamedTuple):
    job_id: str
    job: str
    clock: Callable[[], float]


_at_work: ContextVar[_AtWork | None] = ContextVar("harness_at_work", default=None)


@contextmanager
def at_work(job_id: str, job: str, clock: Callable[[], float]) -> Iterator[None]:
    """Name the job of this context, for code that reads pages without knowing the job."""
    token = _at_work.set(_AtWork(job_id, job, clock))
    try:
        yield
    finally:
        _at_work.reset(token)


def watch_page() -> Callable[[int], None]:
    """Return a function to call with the number of rows after a page was read; it emits :class:`PageRead`."""
    job = _at_work.get() if of_pages else None
    if job is None:
        return _unwatched
    began = job.clock()
    return lambda rows: emit(PageRead(job.job_id, job.job, rows, job.clock() - began))


def _unwatched(_: int) -> None:
    """Do nothing."""
