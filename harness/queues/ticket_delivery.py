"""One delivery of a job by a queue with tickets: the part that Celery and Dramatiq share."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from redis.exceptions import RedisError

from harness.errors import CrashLimit, ProgressUnavailable
from harness.job import Job
from harness.queues.calls import more_of
from harness.queues.delivery import (
    TRY_SECONDS,
    UNAVAILABLE_SECONDS,
    Again,
    Begun,
    check_tries,
    deliver,
)
from harness.queues.history import HistoryRecorder
from harness.queues.periodic import Waking
from harness.queues.requests import Requests
from harness.queues.ticket_calls import digest_of_call, order_of
from harness.stops import Flag
from harness.stores.redis import RedisStore

if TYPE_CHECKING:
    from harness.progress import StopSource, Store
    from harness.queues.ticketed import Queue
    from harness.queues.tickets import Claimed

log = logging.getLogger("harness.queues")

Report = TypeVar("Report")


class TicketDelivery(ABC, Generic[Report]):
    """One delivery of a job with a ticket; see :class:`harness.queues.delivery.Delivery`.

    :param claimed: the claim of this process. :param worker: name of the worker, for the history.
    """

    def __init__(self, queue: Queue, claimed: Claimed, call: list[Any], worker: str) -> None:
        self.queue, self.claimed, self.call = queue, claimed, call
        self.job_id = claimed.job_id
        self.lost = Flag()
        started, store = claimed.started, queue.store
        self.history = HistoryRecorder(
            queue.connection, claimed.job_id, worker=worker,
            found=None if started is None else (started.time, started.heartbeat), heartbeats=queue.heartbeats,
        )  # fmt: skip
        self.requests = Requests(queue.connection, found=None if started is None else started.controls)
        found = claimed.progress
        self.store: Store = (
            store.taking(found) if found is not None and isinstance(store, RedisStore) else store
        )
        """The progress store of jobs without one of their own."""

    def run(self) -> Report | None:
        """Run one execution, with its lease renewed until :meth:`release`, or until this raises.

        :raises CrashLimit: if the process has crashed too often before it reached the job's code.
        """
        claimed = self.claimed
        self.queue.held.add(claimed.job_id, claimed.owner, self.lost, self.owns)
        try:
            if claimed.starts > Job.max_crashes + 1:
                raise CrashLimit(
                    f"the worker of job {self.job_id} crashed {claimed.starts - 1} times before it reached "
                    f"the job's code; the limit is {Job.max_crashes}; its progress is kept: enqueue it "
                    "again when the cause is fixed"
                )
            order = order_of(self.call)
            if claimed.started is None:  # else it was imported before the claim
                self.queue.import_class(order.job)
            return deliver(order, self)
        except BaseException:
            self.release()
            raise

    @abstractmethod
    def stored_message(self) -> str:
        """Return the stored form of the message that is delivered."""

    def release(self) -> None:
        """Stop renewing the lease. An adapter calls this when its queue has stored the result."""
        self.queue.held.remove(self.claimed.job_id, self.claimed.owner)

    def begin(self) -> Begun:
        """Record that the code of the job is reached, unless its claim has done that.

        :raises ProgressUnavailable: if Redis cannot be used now.
        """
        try:
            if self.claimed.started is None:
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
        yield [*self.queue.stop_sources(), self.lost, Waking(self.queue.heartbeats)]

    def owns(self) -> bool:
        """Return whether the claim still holds. Restore the ticket if Redis has lost it.

        :raises ProgressUnavailable: if Redis is unreachable.
        """
        try:
            tickets = self.queue.tickets
            return tickets.owned(self.claimed) or tickets.restored(
                self.claimed, digest_of_call(self.call), self.stored_message()
            )
        except RedisError as error:
            raise ProgressUnavailable(
                f"Redis does not answer who owns job {self.job_id} ({type(error).__name__})"
            ) from error

    def enqueue(self, number: int, round_id: str) -> None:
        """Enqueue an instance of a parallel run, unless it is there."""
        run_id, _ = more_of(self.call).get("instance", (self.job_id, None))
        more = {"instance": [run_id, number], **({"round": round_id} if round_id else {})}
        self.queue.send_instance(f"{run_id}-{number}", [*self.call[:3], more], self.claimed)

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
            self.left_to_sweep(error)
        return self.report(again.reason, "interrupted")

    def send_again(
        self,
        delay: float,
        queue: str | None = None,
        *,
        known: bool = True,
        retried: bool = False,
        error: Exception | None = None,
    ) -> None:
        """Change the ticket and send the job's message with the next number; *retried* counts a retry."""
        result = self.queue.tickets.requeue(
            self.claimed, delay=delay, queue=queue, known=known, retried=retried
        )
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
        try:
            if cancelled:
                self.queue.tickets.close(self.job_id, "cancelled", self.claimed.owner)
            else:
                self.queue.tickets.park(self.claimed)
        except RedisError as error:
            # No failure: the lease expires, a sweep sends the job, and it ends like this again before any work.
            self.left_to_sweep(error)
            return self.report(reason, "interrupted")
        return self.report(reason, "cancelled" if cancelled else "paused")

    def result(self, job_class: type[Job]) -> dict[str, Any] | Report:
        """Return the result of the whole job, which is completed: ``id``, ``done``, ``total`` and others.

        If the store is unreachable, the job is requeued. Its next delivery finds that it is completed, does no work,
        and reads the result. Crash before that: the same, after the lease has expired.
        """
        store = job_class.progress_store() or self.queue.store
        try:
            progress = store.load(self.job_id)
        except store.unavailable as error:
            problem = ProgressUnavailable(
                f"the result of job {self.job_id} cannot be read now ({type(error).__name__}); the job is completed"
            )
            log.warning("%s; it goes back to its queue, to read it later", problem)
            return self.requeue(Again(str(problem), error=problem))
        if progress is None:
            return {"id": self.job_id}
        return {
            "id": self.job_id, "done": progress.done, "total": progress.total, "executions": progress.epoch,
            "interruptions": progress.interruptions,
        }  # fmt: skip

    def left_to_sweep(self, error: RedisError) -> None:
        """Log that the ticket could not be changed: when the lease has expired, a sweep sends the job."""
        log.warning(
            "job %s: Redis cannot be used now (%s); a sweep requeues it", self.job_id, type(error).__name__
        )

    @abstractmethod
    def report(self, reason: str, outcome: str) -> Report:
        """Return or raise the queue's value for an execution that did not complete the job."""
