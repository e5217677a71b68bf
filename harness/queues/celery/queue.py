"""Celery as a queue with tickets: install it in an app, enqueue jobs, and send stored messages again."""

from __future__ import annotations

import logging
import mmap
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery import signals as celery_signals
from kombu.utils import json as kombu_json
from redis.exceptions import RedisError

from harness.boundary import allowed
from harness.errors import UsageError
from harness.job import find_imported
from harness.queues import requests
from harness.queues.calls import encoded_call
from harness.queues.celery.reserving import Reservations
from harness.queues.celery.shutdown import SharedFlag
from harness.queues.celery.task import TASK, Perform
from harness.queues.holding import pid_of
from harness.queues.ticket_calls import claimed_number, digest_of_call, refusal
from harness.queues.ticketed import Queue
from harness.queues.tickets import Claimed, Sending

if TYPE_CHECKING:
    from celery.canvas import Signature
    from celery.result import AsyncResult
    from redis import Redis

    from harness.context import Portion
    from harness.job import Job
    from harness.progress import StopSource, Store

STAMP, OPTIONS = "harness", "harness_options"
"""Headers of a message: the number and the round of its ticket; the retries that it was enqueued with."""

RETRY_DELAY = 180.0
"""Seconds before a retry, as in Celery."""

log = logging.getLogger("harness.queues")


class CeleryQueue(Queue):
    """A Celery app in which :func:`install` was called."""

    kind = "celery"
    # A broker that loses a message without a trace, as RabbitMQ may when it dies, holds a job up for so long.
    stray_seconds = 60.0

    def __init__(
        self, app: Celery, redis: Redis | str, store: Store | Callable[[], Store] | None = None
    ) -> None:
        super().__init__(redis, store)
        self.app = app
        self.leaving = SharedFlag(mmap.mmap(-1, 1))
        self.reservations = Reservations(self.tickets, self.held)

    def stop_sources(self) -> Sequence[StopSource]:
        """Return the sources that stop every job of this process: the worker's shutdown, however it hears of it."""
        return [self.shutdown, self.leaving]

    def import_class(self, path: Any) -> None:
        """Import the module of a job class as Celery imports modules of tasks: from the worker's folder, too."""
        if isinstance(path, str) and find_imported(path) is None and allowed.is_allowed(path):
            with suppress(Exception):  # the delivery imports it again, and says what is wrong
                self.app.loader.import_from_cwd(path.partition(":")[0])

    def send(self, sending: Sending) -> None:
        """Publish a stored message with its number, its delay and its number of retries."""
        stored = kombu_json.loads(sending.message)
        headers, properties = stored["headers"], stored["properties"]
        headers[STAMP] = {**headers.get(STAMP, {}), "n": sending.n}
        headers["retries"] = sending.retries
        headers["eta"] = (
            (datetime.now(UTC) + timedelta(seconds=sending.delay)).isoformat() if sending.delay else None
        )
        exchange, routing_key, declared = stored["exchange"], stored["routing_key"], stored["queue"]
        if sending.queue:
            exchange, routing_key, declared = "", sending.queue, sending.queue
        with self.app.producer_or_acquire() as producer:
            producer.publish(
                stored["body"], exchange=exchange, routing_key=routing_key, headers=headers, serializer="json",
                declare=[self.app.amqp.queues[declared]] if declared else None, retry=True,
                retry_policy=self.app.conf.task_publish_retry_policy,
                **{"delivery_mode": self.app.conf.task_default_delivery_mode, **properties},
            )  # fmt: skip

    def send_instance(self, job_id: str, call: list[Any], model: Claimed) -> None:  # noqa: ARG002 - as the contract says
        """Enqueue an instance of a parallel run, unless it is there."""
        ticket = self.tickets.read(job_id)
        if ticket and ticket.get("digest") == digest_of_call(call):
            return
        self.task.apply_async(call, task_id=job_id)

    @property
    def task(self) -> Any:
        """The task that runs jobs."""
        return self.app.tasks[TASK]

    # Celery's signals.

    def stamp(self, headers: dict[str, Any], body: Any, **message: Any) -> None:
        """Make the ticket of a message that is about to be published, and write its number into the headers.

        Crash after it: the sweep sends the message. If Redis cannot be reached, Celery logs the error and publishes the
        message without a number; the worker then makes the ticket.
        """
        args = list(body[0])
        declared = message.get("declare") or []
        stored = {
            "headers": {name: value for name, value in headers.items() if name != STAMP}, "body": body,
            "properties": message["properties"], "exchange": message["exchange"],
            "routing_key": message["routing_key"], "queue": declared[0].name if declared else None,
        }  # fmt: skip
        headers.pop(STAMP, None)
        delay = 0.0
        if headers.get("eta"):
            eta = datetime.fromisoformat(headers["eta"])
            delay = (eta - datetime.now(eta.tzinfo)).total_seconds()
        digest, checked, round_id = digest_of_call(args), _checked.get(), uuid.uuid4().hex
        try:
            opened = self.tickets.open(
                headers["id"], round_id, digest, kombu_json.dumps(stored), max(0.0, delay)
            )
        except RedisError as error:
            if checked:
                raise _Unsent(error) from error
            headers[STAMP] = {"round": round_id}  # the worker knows by it that this is another enqueue
            raise
        if not opened.n:
            if checked:
                raise _Unsent(refusal(headers["id"], opened, digest))
            log.info("job %s is %s already; this message joins it", headers["id"], opened.state)
        headers[STAMP] = {"n": opened.n, "round": opened.round}

    def confirm(self, headers: dict[str, Any]) -> None:
        """Record that the broker has a message."""
        if n := number_in(headers):
            self.tickets.sent(headers["id"], n)

    def reserve(self, request: Any) -> None:
        """Take a lease on a job whose message this worker has received, until a process of the pool claims it."""
        if n := number_in(request.request_dict):
            self.reservations.add(request, n)

    def close(self) -> None:
        """End the threads of this process."""
        self.reservations.close()
        super().close()

    def revoked(self, job_id: str) -> None:
        """Cancel a job that Celery has revoked; one that runs stops at its next checkpoint."""
        if self.tickets.read(job_id).get("state") == "running":
            requests.cancel(self.connection, job_id)
        else:
            self.tickets.close(job_id, "cancelled")

    def crashed(self, job_id: str, pid: int | None, reservation: str | None) -> None:
        """Send the job of a process of this worker's pool again, which has ended in the middle of it.

        :param reservation: mark of the lease on the message that the process had.
        """
        owner = self.tickets.read(job_id).get("owner", "")
        if owner and (pid_of(owner) == pid or owner == reservation):
            sending = self.tickets.take(job_id, owner)
            if sending is not None:
                log.warning("job %s: its process has crashed; it is sent again", job_id)
                self.resend(sending)


_checked: ContextVar[bool] = ContextVar("harness_checked", default=False)
"""True while a job is enqueued under an id that the caller has chosen."""


class _Unsent(BaseException):
    """Ends ``apply_async`` before a message is published: Celery logs an ``Exception`` of a handler, and goes on.

    :ivar error: for the caller; None if the message joins the job that is there.
    """

    def __init__(self, error: Exception | None) -> None:
        super().__init__(error)
        self.error = error


_installed: dict[str, CeleryQueue] = {}
"""The queue of this process, by the name of its task: Celery's signals do not say which app they are of."""


def install(
    app: Celery, *, redis: Redis | str, store: Store | Callable[[], Store] | None = None
) -> CeleryQueue:
    """Let a Celery app run jobs, and return its queue.

    A process has one such app. If this is called again, the latest call counts.

    :param redis: connection or URL of the Redis that keeps tickets, history and requests; the broker may be another
        server, such as RabbitMQ.
    :param store: progress store of jobs without a ``progress_store()`` of their own: a store, or a function that
        returns one and is called once in each process. In Redis if None.
    """
    queue = CeleryQueue(app, redis, store)
    _installed[TASK] = queue
    app.register_task(Perform())
    for name, handler in _HANDLERS.items():
        getattr(celery_signals, name).connect(handler, weak=False, dispatch_uid=f"harness-{name}")
    return queue


def installed(app: Celery | None = None) -> CeleryQueue:
    """Return the queue of this process.

    :raises UsageError: if :func:`install` was not called for the app.
    """
    queue = _installed.get(TASK)
    if queue is None or (app is not None and queue.app is not app):
        raise UsageError(
            "this Celery app runs no jobs; call harness.queues.celery.install(app, redis=…) in its module"
        )
    return queue


def enqueue(
    app: Celery,
    job_class: type[Job],
    *args: Any,
    options: dict[str, Any] | None = None,
    portion: Portion | None = None,
    **kwargs: Any,
) -> AsyncResult[Any]:
    """Enqueue a job and return Celery's result of the whole job.

    Under the id of a job that is over, this begins a new round. Under the id of one that is not, with the same class
    and arguments, it returns that job's result.

    :param options: for ``apply_async``: ``task_id``, ``queue``, ``countdown``, ``eta``, ``priority``, ``link``, …; also
        ``max_retries`` (0 by default) and ``retry_delay`` in seconds (180 by default), after errors.
    :param portion: the part of an iteration job to do.
    :raises UsageError: if no worker could find the class, the job cannot take this, or the id belongs to another job
        that is not over.
    :raises CursorError: if an argument would not come back equal.
    """
    queue = installed(app)
    call = encoded_call(job_class, args, kwargs, portion)
    settings = _settings(options)
    token = _checked.set("task_id" in settings)
    try:
        result: AsyncResult[Any] = queue.task.apply_async(call, **settings)
    except _Unsent as unsent:
        if unsent.error is None:
            return app.AsyncResult(settings["task_id"])
        raise unsent.error from None
    finally:
        _checked.reset(token)
    return result


def signature(
    app: Celery,
    job_class: type[Job],
    *args: Any,
    options: dict[str, Any] | None = None,
    portion: Portion | None = None,
    **kwargs: Any,
) -> Signature[Any]:
    """Return an immutable signature of a job, for chains, groups and chords; *options* are those of :func:`enqueue`."""
    call = encoded_call(job_class, args, kwargs, portion)
    found: Signature[Any] = installed(app).task.si(*call).set(**_settings(options))
    return found


def number_in(headers: dict[str, Any]) -> int:
    """Return the number of a message's ticket; 0 if the message has none, or joins a job that is not over."""
    return max(0, claimed_number(headers.get(STAMP)))


def _settings(options: dict[str, Any] | None) -> dict[str, Any]:
    settings = dict(options or {})
    retries = {
        "max_retries": settings.pop("max_retries", 0),
        "retry_delay": settings.pop("retry_delay", RETRY_DELAY),
    }
    for name, value in retries.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise UsageError(f"{name} takes a number of 0 or more, got {value!r}")
    if settings.get("serializer", "json") != "json":
        raise UsageError(f"jobs are JSON, got the serializer {settings['serializer']!r}; leave it out")
    settings["headers"] = {**(settings.get("headers") or {}), OPTIONS: retries}
    return settings


def _before_publish(sender: Any = None, **message: Any) -> None:
    if sender == TASK:
        installed().stamp(**{name: value for name, value in message.items() if name != "signal"})


def _after_publish(sender: Any = None, headers: Any = None, **_: Any) -> None:
    if sender == TASK:
        installed().confirm(headers)


def _received(request: Any = None, **_: Any) -> None:
    if request.name == TASK:
        installed().reserve(request)


def _revoked(request: Any = None, expired: bool = False, **_: Any) -> None:
    if expired:
        return  # the request has closed the ticket
    if getattr(request, "task", None) == TASK or getattr(request, "name", None) == TASK:
        installed().revoked(request.id)


def _worker_init(**_: Any) -> None:
    queue = installed()
    queue.shutdown.clear()
    queue.leaving.clear()


def _worker_ready(sender: Any = None, **_: Any) -> None:
    queue = installed()
    queues = getattr(sender, "task_consumer", None)
    names = [each.name for each in queues.queues] if queues is not None else []
    queue.enrol(getattr(sender, "hostname", None) or "", names)


def _worker_shutting_down(**_: Any) -> None:
    queue = installed()
    queue.leaving.set()
    queue.shutdown.set("worker leaves")


def _worker_shutdown(**_: Any) -> None:
    installed().close()


def _postrun(sender: Any = None, task_id: str = "", **_: Any) -> None:
    if getattr(sender, "name", None) == TASK:
        sender.finish(task_id)


_HANDLERS: dict[str, Callable[..., None]] = {
    "before_task_publish": _before_publish, "after_task_publish": _after_publish, "task_received": _received,
    "task_revoked": _revoked, "worker_init": _worker_init, "worker_ready": _worker_ready,
    "worker_shutting_down": _worker_shutting_down, "worker_shutdown": _worker_shutdown, "task_postrun": _postrun,
}  # fmt: skip
