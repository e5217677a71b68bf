"""Queues with tickets: the part that Celery and Dramatiq share; see also :mod:`harness.queues.ticket_delivery`."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from redis import Redis
from redis.exceptions import RedisError

from harness import overrides
from harness.errors import ProgressUnavailable
from harness.job import chooses_store, find_imported
from harness.queues import requests, ticket_requeuing
from harness.queues.delivery import UNAVAILABLE_SECONDS
from harness.queues.history import HEARTBEAT_SECONDS
from harness.queues.holding import Held, Sweep, new_owner
from harness.queues.periodic import Heartbeats, PeriodicThread
from harness.queues.ticket_calls import digest_of_call, run_id_of
from harness.queues.ticket_workers import EVERY_SECONDS, Enrolled
from harness.queues.tickets import Claimed, Sending, Start, Tickets
from harness.stops import Flag
from harness.stores.redis import RedisStore
from harness.stores.watched import UNAVAILABLE

if TYPE_CHECKING:
    from harness.progress import Progress, StopSource, Store

log = logging.getLogger("harness.queues")


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
        self.heartbeats = Heartbeats(f"harness-heartbeats-{self.kind}", HEARTBEAT_SECONDS)
        self.shutdown = Flag()
        self.worker: Enrolled | None = None
        self._calls: PeriodicThread | None = None
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

    def import_class(self, path: Any) -> None:  # noqa: B027 - few queues have a way of their own
        """Import the module of a job class in the queue's own way, if it has one; errors are for the delivery."""

    def stop_sources(self) -> Sequence[StopSource]:
        """Return the sources that stop every job of this process."""
        return [self.shutdown]

    def enrol(self, name: str, queues: Iterable[str]) -> None:
        """Sweep for crashed workers from now on, and show this process as a worker on the monitor.

        A worker that has lost its broker and found it again calls this once more.
        """
        if self.worker is None:
            self.worker = Enrolled(self.connection, self.kind, name, queues)
            self._calls = PeriodicThread(
                f"harness-worker-{self.kind}", EVERY_SECONDS, self.worker.tell, at_once=True
            )
            self._calls.start()
        self.sweep.start()

    def close(self) -> None:
        """End the threads of this process, when its worker leaves."""
        worker, self.worker = self.worker, None
        if worker is not None and self._calls is not None:
            self._calls.close()
            with suppress(RedisError):  # it expires
                worker.leave()
        self.sweep.close()
        self.held.close()
        self.heartbeats.close()

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
        """Stop a job permanently at its next checkpoint, or before it starts; its ``on_cancel`` runs.

        A paused job is sent to be cancelled. Crash before that: it stays paused, and a second call sends it.
        """
        requests.cancel(self.connection, job_id)
        if (sending := self.tickets.resume(job_id, cancelled=True)) is not None:
            self.resend(sending)

    def resume(self, job_id: str) -> bool:
        """End a pause, and enqueue a paused job; return whether it was paused.

        Crash after the ticket has changed: the sweep sends the message.
        """
        sending = self.tickets.resume(job_id)
        if sending is None:
            return False
        self.resend(sending)
        return True

    def requeue(self, job_id: str) -> None:
        """Requeue a job that failed or was cancelled; it resumes at its cursor.

        :raises UsageError: if it is not over, or has finished.
        """
        self.resend(ticket_requeuing.requeue(self.tickets, job_id, self.store))

    def rewind(self, job_id: str, *, step: str | None = None, cursor: Any = None) -> None:
        """Requeue a job that is over, a finished one too, to be done again from an earlier place.

        :param step: name of a step that it has reached; None for an iteration job.
        :param cursor: the work goes on after it; None is the beginning.
        :raises UsageError: if it is not over, is parallel, or has not reached that step.
        """
        self.resend(ticket_requeuing.rewind(self.tickets, job_id, self.store, step=step, cursor=cursor))

    def fork(
        self, job_id: str, *, step: str | None = None, cursor: Any = None, new_id: str | None = None
    ) -> str:
        """Enqueue a new job like one that is over, to be done again from an earlier place; return its id.

        The old job stays as it is. The new job has other idempotency keys.

        :param step: and *cursor*: as for :meth:`rewind`. :param new_id: id of the new job; by default a random one.
        :raises UsageError: as :meth:`rewind`, and if there is a job or progress under the new id.
        """
        sending = ticket_requeuing.fork(
            self.tickets, job_id, self.store, step=step, cursor=cursor, new_id=new_id
        )
        self.resend(sending)
        return sending.job_id

    def scale(self, job_id: str, instances: int) -> None:
        """Change the number of instances of a parallel run; a sweep sends the new ones.

        :raises UsageError: if it is no parallel run.
        """
        ticket_requeuing.scale(self.tickets, job_id, instances, self.store)

    # What an adapter calls.

    def claim(
        self, job_id: str, n: int, call: list[Any], message: Callable[[], str], round_id: str = ""
    ) -> Claimed | str:
        """Claim a job that was delivered, or return why it may not run.

        A message whose ticket Redis has lost, or that was sent without one, gets a ticket. Of several such messages
        of one job, the first gets it.

        While Redis cannot be reached this waits, unless the worker shuts down: the broker has forgotten the message.

        :raises redis.exceptions.ResponseError: if this package does not write such tickets.
        """
        owner, digest, (start, fresh), stored = (
            new_owner(),
            digest_of_call(call),
            self._start(job_id, call),
            "",
        )
        while True:
            try:
                claimed = self.tickets.claim(
                    job_id, n, owner, round_id=round_id, digest=digest, message=stored, start=start
                )
                if claimed == "over" and not n and self._is_another_round(job_id, round_id):
                    # Its sender could not reach Redis. Crash after this: the sweep sends the message.
                    n = self.tickets.open(job_id, round_id, digest, message()).n
                    continue
            except UNAVAILABLE as error:
                if any(source(None) for source in self.stop_sources()):  # type: ignore[arg-type]  # flags
                    raise ProgressUnavailable(
                        f"Redis cannot be used now ({type(error).__name__}); run the job again later"
                    ) from error
                log.warning("job %s: Redis cannot be used now (%s); it waits", job_id, type(error).__name__)
                time.sleep(UNAVAILABLE_SECONDS)
                continue
            if claimed == "none":
                stored = message()
                if n:
                    log.warning("job %s: Redis has lost its ticket; its message has made it again", job_id)
                continue
            if claimed == "other":
                log.warning(
                    "job %s: Redis has lost its ticket, and another job has its id now; its message is dropped",
                    job_id,
                )
            if isinstance(claimed, Claimed) and claimed.started is not None and claimed.started.usable:
                return replace(claimed, progress=claimed.started.progress or fresh)
            return claimed

    def _is_another_round(self, job_id: str, round_id: str) -> bool:
        """Return whether a message without a number is of an enqueue after the job was over.

        One of a sender that does not know this package has no round, and may be a copy of a message that was done.
        """
        return round_id not in {"", job_id} and self.tickets.read(job_id).get("round") != round_id

    def _start(self, job_id: str, call: list[Any]) -> tuple[Start | None, Progress | None]:
        """Return the data with which a claim starts the execution, and the progress to store if there is none.

        Return None twice if the class is not yet imported: a crash of the import must not count as a crash of the
        job's code.
        """
        job_class = find_imported(call[0] if call else None)
        if job_class is None:
            return None, None
        run_id, store = run_id_of(call) or job_id, self.store
        if chooses_store(job_class) or overrides.current.store or type(store) is not RedisStore:
            return Start(run_id), None
        if not store.is_on(self.connection):
            return Start(run_id), None
        progress, fresh = store.claimable(job_id)
        return Start(run_id, progress), fresh
