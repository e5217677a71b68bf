"""Runs an explored job on Celery: its in-memory transport, and its own tracer in this process.

The worker's main process reserves and acknowledges the message, and its pool traces the task. Here one process does
both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.app.trace import build_tracer
from kombu.transport.memory import Channel

from harness.explore.ticketed import QUEUE, TicketTarget, plain
from harness.queues import celery
from harness.queues.celery.task import TASK

if TYPE_CHECKING:
    from harness.queues.celery import CeleryQueue

PLAIN = "harness.explore.plain"
"""Name of the task that runs a function."""


class Received:
    """The parts of a request in Celery's main process that the reservation of a job needs."""

    reservation: str | None = None

    def __init__(self, headers: dict[str, Any]) -> None:
        self.id, self.request_dict = headers["id"], headers


class CeleryTarget(TicketTarget):
    """Job or function on Celery."""

    queue: CeleryQueue

    def _install(self) -> None:
        name = f"{QUEUE}-{self.job_id}"  # the whole process shares one transport
        self._app = Celery("explored", broker="memory://", set_as_current=False)
        self._app.conf.task_default_queue = name
        self.queue = celery.install(self._app, redis=self._connection)
        self._plain = self._app.task(plain, name=PLAIN, shared=False, acks_late=True)
        self._app.finalize()
        self._name = name
        Channel.queues[name] = self.messages

    def _enqueue(self) -> None:
        args, kwargs = self._call
        if self.documented:
            celery.enqueue(self._app, self.versions.old, *args, options={"task_id": self.job_id}, **kwargs)
        else:
            self._plain.apply_async((self.name, list(args), kwargs), task_id=self.job_id)

    def _id_of(self, message: Any) -> str:
        return str(message["headers"]["id"])

    def _deliver(self, message: Any) -> Exception | None:
        with self._app.connection_for_read() as connection, connection.channel() as channel:
            received = channel.message_to_python(dict(message))
            headers = received.headers
            args, kwargs, embedded = received.decode()
        task = self._app.tasks[headers["task"]]
        if not task.acks_late:
            if headers["task"] == TASK:
                self.queue.reserve(Received(headers))
            self.messages.acknowledge(message)
        tracer = build_tracer(task.name, task, hostname="explorer", app=self._app)
        request = {
            **headers,
            **embedded,
            "args": args,
            "kwargs": kwargs,
            "hostname": "explorer",
            "is_eager": False,
        }
        _, info, _, _ = tracer(headers["id"], args, kwargs, request)
        error = info.retval if info is not None and info.state == "FAILURE" else None
        if task.acks_late and error is None:
            self.messages.acknowledge(message)
        return error

    def close(self) -> None:
        """Forget the queue of the transport, too."""
        Channel.queues.pop(self._name, None)
        super().close()
        self._app.close()
