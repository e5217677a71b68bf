"""Queues of trials: enqueue the job of a trial, and read its state.

The job is in one of :data:`KINDS`. Celery and Dramatiq are optional, so they have separate modules, which are
loaded when a lab uses them.
"""

from __future__ import annotations

import signal
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from redis import Redis
from rq import Queue, Retry
from rq.job import JobStatus

from harness.job import Job, find
from harness.queues import rq
from harness.queues.keys import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.lab.journal import Journal
    from harness.queues.ticketed import Queue as TicketQueue
    from harness.scenario import Scenario

RETRIES = 3
"""Number of retries of a failed plain form on RQ and Dramatiq."""
QUEUE = "trials"
"""Name of the queue; on RabbitMQ, where messages of an earlier trial may remain, it gets a suffix."""
PLAIN_END = f"{PREFIX}lab:plain"
"""Key of the outcome of a plain form on Celery or Dramatiq."""

Status = Literal["completed", "failed"]


@dataclass(frozen=True)
class Kind:
    """A kind of queue.

    :ivar title: its name in sentences. :ivar backend: class of the lab's side, as ``module:Name``.
    :ivar program: function of a worker's process. :ivar preload: modules that workers find imported.
    """

    name: str
    title: str
    backend: str
    program: str
    preload: tuple[str, ...]

    def made(self, broker: str, redis: str, scenario: Scenario, form: str) -> Backend:
        """Put a form of a scenario into the queue.

        :param broker: URL of the messages' server. :param redis: URL of the Redis with everything else.
        """
        backend: Callable[..., Backend] = find(self.backend)
        return backend(broker, redis, scenario, form)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("rq", "RQ", "harness.lab.backends:RQBackend", "harness.lab.worker:main",
             ("harness.lab.worker", "rq.worker", "rq.executions")),
        Kind("celery", "Celery", "harness.lab.on_celery:CeleryBackend", "harness.lab.on_celery:main",
             ("harness.lab.on_celery", "celery.apps.worker", "celery.concurrency.prefork", "kombu.transport.redis",
              "kombu.transport.pyamqp")),
        Kind("dramatiq", "Dramatiq", "harness.lab.on_dramatiq:DramatiqBackend", "harness.lab.on_dramatiq:main",
             ("harness.lab.on_dramatiq", "dramatiq.cli")),
    )
}  # fmt: skip
"""Queues that run trials, by name."""


class Backend(ABC):
    """Queue with one job for the lab.

    :ivar job_id: id of the job. :ivar queue_name: name of its queue. :ivar connection: connection to the
        Redis of the trial.
    """

    job_id: str
    queue_name = QUEUE
    connection: Redis
    detects: ClassVar[bool] = False
    """True if workers notice a lost process on their machine immediately, so that no lease has to expire."""
    slow: ClassVar[bool] = False
    """True if a worker without a job needs seconds to exit, so that the lab does not wait for it."""

    @abstractmethod
    def status(self) -> Status | None:
        """Return the end of the job; None if it is unfinished."""

    @abstractmethod
    def leaves_alone(self, by: str | signal.Signals) -> bool:
        """Return whether, after such an interruption, the plain form starts again only after a long timeout."""

    def close(self) -> None:
        """Close the connections."""
        self.connection.close()


class RQBackend(Backend):
    """RQ.

    :ivar queue: the queue. :ivar job: RQ's job.
    """

    def __init__(self, broker: str | Redis, redis: str, scenario: Scenario, form: str) -> None:
        del redis  # RQ has one
        self.connection = Redis.from_url(broker) if isinstance(broker, str) else broker
        self.queue = Queue(QUEUE, connection=self.connection, serializer="json")
        job = scenario.forms[form]
        if form == "plain":
            arguments = (scenario.arguments(),)
            self.job = self.queue.enqueue_call(job, args=arguments, retry=Retry(max=RETRIES))
        else:
            self.job = rq.enqueue(self.queue, job)
        self.job_id = self.job.id

    def status(self) -> Status | None:
        """Ask RQ."""
        status = self.job.get_status()
        if status == JobStatus.FINISHED:
            return "completed"
        return "failed" if status == JobStatus.FAILED else None

    def leaves_alone(self, by: str | signal.Signals) -> bool:
        """Return True if the worker is lost too: only RQ's worker retries the job of a crashed work horse."""
        return by == "kill:both" or isinstance(by, signal.Signals)


class TicketBackend(Backend):
    """Queue with tickets.

    :param queue: the queue of the trial.
    """

    detects = slow = True

    def __init__(self, queue: TicketQueue, queue_name: str, scenario: Scenario, form: str) -> None:
        self.queue, self.queue_name, self.connection = queue, queue_name, queue.connection
        job: Any = scenario.forms[form]
        self._plain = form == "plain"
        if self._plain:
            self.job_id = self.send_plain(f"{job.__module__}:{job.__qualname__}", scenario.arguments())
        else:
            self.job_id = self.send_job(job)

    @abstractmethod
    def send_job(self, job: type[Job]) -> str:
        """Enqueue a job and return its id."""

    @abstractmethod
    def send_plain(self, path: str, arguments: list[int]) -> str:
        """Enqueue a plain form as a task of the queue itself, and return its id."""

    def status(self) -> Status | None:
        """Read the outcome from the ticket, or from the record of a plain form's task."""
        if self._plain:
            end = self.connection.get(PLAIN_END)
            return None if end is None else "completed" if end == b"completed" else "failed"
        ticket = self.queue.tickets.read(self.job_id)
        if ticket.get("state") != "over":
            return None
        return "completed" if ticket.get("outcome") == "completed" else "failed"

    def close(self) -> None:
        """End the threads and close the connections."""
        self.queue.close()
        super().close()


def new_queue_name() -> str:
    """Return a unique name of a queue."""
    return f"{QUEUE}-{uuid.uuid4().hex[:12]}"


def run_plain(path: str, arguments: list[int], journal: Journal, connection: Redis) -> None:
    """Run a plain form in a task of Celery or Dramatiq, and record its end.

    Crash before the end is recorded: the message is not acknowledged either, so the queue decides whether to deliver it
    again.
    """
    journal.write("start")
    try:
        find(path)(arguments)
    except Exception as error:
        journal.write("outcome", ended="failed", reason=f"{type(error).__name__}: {error}")
        connection.set(PLAIN_END, "failed")
        raise
    else:
        connection.set(PLAIN_END, "completed")
    finally:
        journal.write("end")
