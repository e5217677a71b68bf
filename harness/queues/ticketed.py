"""Delivery of jobs by queues with tickets: the part that Celery and Dramatiq share."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from redis import Redis
from redis.exceptions import RedisError

from harness import cursor as cursors
from harness.context import Portion
from harness.errors import CrashLimit, ProgressUnavailable, UsageError
from harness.job import Job
from harness.queues import requests
from harness.queues.calls import check_call, more_of
from harness.queues.delivery import (
    TRY_SECONDS,
    UNAVAILABLE_SECONDS,
    Again,
    Begun,
    Order,
    check_tries,
    deliver,
)
from harness.queues.history import HistoryRecorder
from harness.queues.holding import Held, Sweep, new_owner
from harness.queues.requests import Requests
from harness.queues.tickets import Claimed, Sending, Tickets, server_time
from harness.stops import Flag
from harness.stores.redis import RedisStore
from harness.stores.watched import UNAVAILABLE

if TYPE_CHECKING:
    from harness.progress import StopSource, Store

log = logging.getLogger("harness.queues")

Report = TypeVar("Report")


class Queue(ABC):
    """Queue with tickets: its Redis, its progress store, and its way to send messages.

    :param redis: connection or URL of the Redis with the tickets, the history and the requests.
    :param store: progress store of jobs without one of their own, or a function that returns it, which is called once
        in each process; a :class:`~harness.stores.redis.RedisStore` if None.
    """

    kind: str
    stray_seconds = 300.0

    def __init__(self, redis: Redis | str, store: Store | Callable[[], Store] | None = None) -> None:
        self.connection = Redis.from_url(redis) if isinstance(redis, str) else redis
        self.tickets = Tickets(self.connection, self.kind, stray_seconds=self.stray_seconds)
        self.held = Held(self.tickets)
        self.sweep = Sweep(self.tickets, self.send)
        self.shutdown = Flag()
        self._store = store

    @property
    def store(self) -> Store:
        """The progress store of jobs without one of their own."""
        if self._store is None:
            self._store = RedisStore(self.connection)
        elif not hasattr(self._store, "claim"):
            self._store = self._store()
        return self._store  # type: ignore[return-value]

    @abstractmethod
    def send(self, sending: Sending) -> None:
        """Send a stored message to the broker, with its number."""

    @abstractmethod
    def send_instance(self, job_id: str, call: list[Any], model: Claimed) -> None:
        """Enqueue an instance of a parallel run like the job that starts it, unless it exists."""

    def stop_sources(self) -> Sequence[StopSource]:
        """Return the sources that stop every job of this process."""
        return [self.shutdown]

    def close(self) -> None:
        """End the threads of this process when its worker exits."""
        self.sweep.close()
        self.held.close()

    def resend(self, sending: Sending) -> None:
        """Send one message, and confirm it in its ticket."""
        self.sweep.resend(sending)

    # Requests of users.

    def request_stop(self, job_id: str, reason: str = "requested") -> None:
        """Ask a job to stop once at its next checkpoint; it is requeued and continues later."""
        requests.request_stop(self.connection, job_id, reason)

    def pause(self, job_id: str) -> None:
        """Stop a job at its next checkpoint, or before it starts, until :meth:`resume`."""
        requests.pause(self.connection, job_id)

    def cancel(self, job_id: str) -> None:
        """Stop a job permanently at its next checkpoint, or before it starts; its ``on_cancel`` runs."""
        requests.cancel(self.connection, job_id)

    def resume(self, job_id: str) -> bool:
        """End a pause, and enqueue a paused job; return whether it was paused.

        Crash after the ticket has changed: the sweep sends the message.
        """
        sending = self.tickets.resume(job_id)
        if sending is None:
            return False
        self.resend(sending)
        return True

    # Calls of an adapter.

    def claim(self, job_id: str, n: int, call: list[Any], **more: str) -> Claimed | str:
        """Claim a delivered job, or return why it may not run.

        While Redis is unreachable this waits, unless the worker exits, because the broker no longer has the
        message.

        :raises redis.exceptions.ResponseError: if this package does not write such tickets.
        """
        owner = new_owner()
        while True:
            try:
                claimed = self.tickets.claim(job_id, n, owner, digest=digest_of_call(call), **more)
            except UNAVAILABLE as error:
                if any(source(None) for source in self.stop_sources()):  # type: ignore[arg-type]  # flags
                    raise ProgressUnavailable(
                        f"Redis cannot be used now ({type(error).__name__}); run the job again later"
                    ) from error
                log.warning("job %s: Redis cannot be used now (%s); it waits", job_id, type(error).__name__)
                time.sleep(UNAVAILABLE_SECONDS)
                continue
            return claimed


def encoded_call(
    job_class: type[Job], args: Sequence[Any], kwargs: dict[str, Any], portion: Portion | None = None
) -> list[Any]:
    """Return the arguments of a message: path, args, kwargs and options, as JSON data.

    :raises UsageError: if the job cannot take this, or no worker could find the class.
    :raises CursorError: if an argument would not come back equal.
    """
    if not (isinstance(job_class, type) and issubclass(job_class, Job)):
        raise UsageError(f"enqueue() takes a ContinuableJob or an IterationJob; got {job_class!r}")
    if job_class.__module__ == "__main__" or "<locals>" in job_class.__qualname__:
        raise UsageError(
            f"{job_class.__qualname__} is defined in __main__ or in a function, where no worker finds it; "
            "move it into a module that both can import"
        )
    job_class.check_arguments(kwargs, portion)
    encoded = [cursors.encode(value, f"argument {index}") for index, value in enumerate(args)]
    named = {name: cursors.encode(value, f"argument {name!r}") for name, value in kwargs.items()}
    job_class.check_call(args, kwargs)
    call: list[Any] = [job_class.path(), encoded, named]
    if portion is not None:
        call.append({"portion": [cursors.encode(portion.after), portion.limit]})
    return call


def digest_of_call(call: Sequence[Any]) -> str:
    """Return a hash of the arguments of a message."""
    text = json.dumps(call, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def order_of(call: Sequence[Any]) -> Order:
    """Return the order in the arguments of a message.

    :raises CorruptProgress: if this package does not write such arguments.
    """
    arguments = list(call)
    check_call(*arguments)
    more = more_of(arguments)
    portion = None
    if "portion" in more:
        after, limit = more["portion"]
        portion = Portion(cursors.decode(after), limit)
    path, args, kwargs = arguments[:3]
    return Order(path, args, kwargs, portion=portion, instance=more.get("instance"))


class TicketDelivery(ABC, Generic[Report]):
    """One delivery of a job with a ticket; see :class:`harness.queues.delivery.Delivery`.

    :param claimed: the claim of this process. :param worker: name of the worker, for the history.
    """

    def __init__(self, queue: Queue, claimed: Claimed, call: list[Any], worker: str) -> None:
        self.queue, self.claimed, self.call = queue, claimed, call
        self.job_id = claimed.job_id
        self.lost = Flag()
        self.history = HistoryRecorder(queue.connection, claimed.job_id, worker=worker)
        self.requests = Requests(queue.connection)

    def run(self) -> Report | None:
        """Run one execution, with its lease renewed until :meth:`release`, or until this raises.

        :raises CrashLimit: if the process has crashed too often before it reached the job's code.
        """
        claimed = self.claimed
        self.queue.held.add(claimed.job_id, claimed.owner, self.lost)
        try:
            if claimed.starts > Job.max_crashes + 1:
                raise CrashLimit(
                    f"the worker of job {self.job_id} crashed {claimed.starts - 1} times before it reached "
                    f"the job's code; the limit is {Job.max_crashes}; its progress is kept: enqueue it "
                    "again when the cause is fixed"
                )
            return deliver(order_of(self.call), self)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Stop renewing the lease. An adapter calls this when its queue has stored the result."""
        self.queue.held.remove(self.claimed.job_id, self.claimed.owner)

    @property
    def store(self) -> Store:
        """The progress store of jobs without one of their own."""
        return self.queue.store

    def begin(self) -> Begun:
        """Record that the code of the job is reached.

        :raises ProgressUnavailable: if Redis cannot be used now.
        """
        try:
            self.queue.tickets.begun(self.claimed)
        except RedisError as error:
            raise ProgressUnavailable(
                f"Redis cannot be used now ({type(error).__name__}); run the job again later"
            ) from error
        claimed = self.claimed
        enqueued = str(more_of(self.call).get("round", claimed.round))
        return Begun(enqueued, first=not claimed.executions, unknown=claimed.unknown)

    @contextmanager
    def stop_sources(self) -> Iterator[Sequence[StopSource]]:
        """Return the shutdown of the worker and the loss of the lease."""
        yield [*self.queue.stop_sources(), self.lost]

    def owns(self) -> bool:
        """Return whether the claim still holds.

        :raises ProgressUnavailable: if Redis cannot be asked now.
        """
        try:
            return self.queue.tickets.owned(self.claimed)
        except RedisError as error:
            raise ProgressUnavailable(
                f"Redis does not answer who owns job {self.job_id} ({type(error).__name__})"
            ) from error

    def enqueue(self, number: int, round_id: str) -> None:
        """Enqueue an instance of a parallel run, unless it is there."""
        family, _ = more_of(self.call).get("instance", (self.job_id, None))
        more = {"instance": [family, number], **({"round": round_id} if round_id else {})}
        self.queue.send_instance(f"{family}-{number}", [*self.call[:3], more], self.claimed)

    def requeue(self, again: Again) -> Report:
        """Requeue the job under the same id.

        The ticket is changed first. Crash before the message: the sweep sends it. If Redis is unreachable,
        the lease expires, and the sweep sends the job again.
        """
        if isinstance(again.error, ProgressUnavailable):
            time.sleep(UNAVAILABLE_SECONDS)
        try:
            self.send_again(
                TRY_SECONDS if again.unknown else again.delay,
                again.queue,
                known=not again.unknown,
                error=again.error,
            )
        except RedisError as error:
            log.warning(
                "job %s: Redis cannot be used now (%s); a sweep requeues it",
                self.job_id,
                type(error).__name__,
            )
        return self.report(again.reason, "interrupted")

    def send_again(
        self, delay: float, queue: str | None = None, *, known: bool = True, error: Exception | None = None
    ) -> None:
        """Change the ticket and send the job's message with the next number."""
        result = self.queue.tickets.requeue(self.claimed, delay=delay, queue=queue, known=known)
        if result is None:
            return
        sending, unknown = result
        if error is not None and not known:
            check_tries(error, unknown)  # type: ignore[arg-type]  # the errors of this package
        try:
            self.queue.resend(sending)
        except RedisError:
            raise
        except Exception as problem:  # noqa: BLE001 - depends on the broker's client
            log.warning("job %s: the broker cannot be used now (%r); a sweep sends it", self.job_id, problem)

    def park(self, reason: str, *, cancelled: bool) -> Report:
        """Keep the job without a message: until it is resumed, or permanently."""
        if cancelled:
            self.queue.tickets.close(self.job_id, "cancelled", self.claimed.owner)
        else:
            self.queue.tickets.park(self.claimed)
        return self.report(reason, "cancelled" if cancelled else "paused")

    @abstractmethod
    def report(self, reason: str, outcome: str) -> Report:
        """Return or raise the queue's value for an execution that did not complete the job."""


def result_of(queue: Queue, job_id: str, job_class: type[Job]) -> dict[str, Any]:
    """Return the result of a whole job: ``id``, ``done``, ``total``, ``executions`` and ``interruptions``."""
    progress = (job_class.progress_store() or queue.store).load(job_id)
    if progress is None:
        return {"id": job_id}
    return {
        "id": job_id, "done": progress.done, "total": progress.total, "executions": progress.epoch,
        "interruptions": progress.interruptions,
    }  # fmt: skip


__all__ = [
    "Queue",
    "TicketDelivery",
    "digest_of_call",
    "encoded_call",
    "order_of",
    "result_of",
    "server_time",
]
