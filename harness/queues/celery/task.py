"""Celery's task that runs jobs, and the request that Celery's main process keeps of it.

Celery stores the result and starts the next task of a chain before it calls ``on_success``; there the ticket is closed.
Crash before: the job is delivered again, finds that it is completed, and returns its result once more. A task that was
started in the moment before such a crash is then started a second time; everything else happens once.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery import Task
from celery.exceptions import Ignore, Retry
from celery.worker.request import Request
from kombu.utils import json as kombu_json
from redis.exceptions import RedisError

from harness.boundary.texts import error_text
from harness.errors import ProgressUnavailable, Superseded
from harness.job import find_stored
from harness.queues.celery.shutdown import Termination
from harness.queues.expiry import expires
from harness.queues.inline import InlineRun
from harness.queues.ticket_calls import claimed_number, order_of
from harness.queues.ticket_delivery import TicketDelivery
from harness.runtime import forks

if TYPE_CHECKING:
    from harness.queues.celery.queue import CeleryQueue
    from harness.queues.tickets import Claimed

TASK = "harness.job"
"""Name of the task."""

DEAD_LETTER = ("x-death", "x-first-death-", "x-last-death-")
"""Prefixes of RabbitMQ's headers about the way of one message, which the next message must not have."""

log = logging.getLogger("harness.queues")


def _queue() -> CeleryQueue:
    from harness.queues.celery.queue import installed  # noqa: PLC0415 - it registers this task

    return installed()


class CeleryDelivery(TicketDelivery[NoReturn]):
    """One delivery of a job by Celery."""

    def __init__(self, queue: CeleryQueue, claimed: Claimed, call: list[Any], task: Perform) -> None:
        super().__init__(queue, claimed, call, task.request.hostname or "")
        self.task, self.termination = task, Termination(queue.shutdown)
        self._request = task.request  # of this thread; the thread of the leases asks for it too

    def stored_message(self) -> str:
        """Return the stored form of the message."""
        return stored_form(self._request)

    def report(self, reason: str, outcome: str) -> NoReturn:
        """End the task without a result; one that was cancelled is revoked.

        :raises Ignore: always.
        """
        if outcome == "cancelled":
            request = self.task.request
            self.task.backend.mark_as_revoked(request.id, reason, request=request)
        raise Ignore(reason)

    def retry(self, error: Exception) -> None:
        """Requeue a job that has failed, if it has retries left.

        The retry is counted with the requeue. If Redis is unreachable, neither has happened, or both and only the
        answer is lost: the sweep sends the job again. It is no failure, and an uncounted retry does no harm.

        :raises Retry: then. :raises Ignore: if it is left to the sweep.
        """
        request = self.task.request
        options = request.get("harness_options") or {}
        if (request.retries or 0) >= options.get("max_retries", 0):
            return
        delay = options.get("retry_delay", 0.0)
        try:
            self.send_again(delay, retried=True)
        except RedisError as problem:
            self.left_to_sweep(problem)
            raise Ignore(error_text(error)) from error
        raise Retry(error_text(error), exc=error, when=delay) from error


class JobRequest(Request):  # type: ignore[misc]  # Celery has no types
    """Handling of a delivery in a worker's main process: a crash of a pool process is not a failure of the job."""

    reservation: str | None = None
    """Mark of the lease on this message, while it waits for a process."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Send the job of a process that was lost again, and record no failure."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        queue = _queue()
        if isinstance(error, WorkerLostError | SystemExit):
            queue.crashed(self.id, self.worker_pid, self.reservation)
            exc_info = _Ended(Ignore(error_text(error)))
        if self.reservation is not None:
            queue.held.remove(self.id, self.reservation)
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def maybe_expire(self) -> bool:
        """Let a message expire only if its job has not started before.

        Celery's own would refuse the id from then on, also for the job's next round.
        """
        if not self.expires or datetime.now(UTC if self.expires.tzinfo else None) <= self.expires:
            return False
        number = claimed_number(self.request_dict.get("harness"))
        return expires(_queue().tickets, self.id, number, "cancelled")

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Close the ticket of a job that Celery has killed for its hard time limit, after the failure is stored."""
        super().on_timeout(soft, timeout)
        if not soft:
            _queue().tickets.close(self.id, "failed")

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:  # noqa: ARG002 - Celery's
        """Let the job stop at its next checkpoint in a cold shutdown; Celery waits for its processes to exit."""
        _queue().leaving.set()


class _Ended:
    """Replacement of Celery's ``ExceptionInfo`` for an execution that ended without a failure."""

    traceback, internal = "", True

    def __init__(self, exception: Exception) -> None:
        self.exception = exception


class Perform(Task):  # type: ignore[misc]  # Celery has no types
    """Runs one execution of a job."""

    name = TASK
    Request = "harness.queues.celery.task:JobRequest"
    acks_late = False
    """A long job would outlast the visibility timeout of Redis and the consumer timeout of RabbitMQ.

    Its ticket brings it back after a crash.
    """
    serializer = "json"
    track_started = False
    ignore_result = False
    max_retries = None

    def __init__(self) -> None:
        self._deliveries: dict[str, CeleryDelivery] = {}

    def run(self, *call: Any) -> dict[str, Any]:
        """Run one execution, and return the result of the whole job if it is completed.

        :raises Ignore: if it is not, or another delivery has the job.
        :raises Retry: if it failed and is retried.
        :raises Exception: what the job raised, if it is not resumed.
        """
        arguments = list(call)
        if self.request.is_eager:
            return self._run_eagerly(arguments)
        with forks.guarding():
            return self._run(_queue(), arguments)

    def _run(self, queue: CeleryQueue, call: list[Any]) -> dict[str, Any]:
        request = self.request
        stamp = request.get("harness")
        try:
            claimed = queue.claim(
                request.id, claimed_number(stamp), call, lambda: stored_form(request),
                str((stamp or {}).get("round") or request.id),
            )  # fmt: skip
        except ProgressUnavailable as error:
            raise Ignore(str(error)) from error
        if isinstance(claimed, str):
            log.info("job %s: this message is out of date (%s) and is dropped", request.id, claimed)
            raise Ignore(claimed)
        delivery = CeleryDelivery(queue, claimed, call, self)
        self._deliveries[request.id] = delivery
        delivery.termination.hold()
        try:
            delivery.run()
        except Superseded as error:
            raise Ignore(str(error)) from error
        except Ignore:
            raise
        except Exception as error:
            delivery.retry(error)
            raise
        return delivery.result(find_stored(call[0]))

    def _run_eagerly(self, call: list[Any]) -> dict[str, Any]:
        """Run the whole job here: Celery's eager mode has no queue that could deliver it again."""
        order = order_of(call)
        args, kwargs = order.arguments()
        run = InlineRun(order.job_class(), *args, job_id=self.request.id, portion=order.portion, **kwargs)
        run.drain()
        progress = run.progress
        return {"id": self.request.id, "done": 0 if progress is None else progress.done}

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:  # noqa: ARG002 - Celery's
        """Close the ticket: the result is stored, and the next task of a chain has started."""
        self._close(task_id, "completed")

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:  # noqa: ARG002
        """Close the ticket: the failure is stored."""
        self._close(task_id, "failed")

    def finish(self, task_id: str) -> None:
        """Release the lease at every end of a task; a SIGTERM that came takes effect now."""
        delivery = self._deliveries.pop(task_id, None)
        if delivery is not None:
            delivery.release()
            delivery.termination.release()

    def _close(self, task_id: str, outcome: str) -> None:
        delivery = self._deliveries.get(task_id)
        if delivery is None:
            return
        try:
            delivery.queue.tickets.close(task_id, outcome, delivery.claimed.owner)
        except RedisError as error:
            # The lease expires, and the sweep sends the job again. If it is completed, it finds that, and does no work.
            log.warning("job %s: its ticket was not closed (%r)", task_id, error)


def stored_form(request: Any) -> str:
    """Return the stored form of the message that is delivered."""
    known = (
        "lang", "task", "id", "root_id", "parent_id", "group", "argsrepr", "kwargsrepr", "origin", "timelimit",
        "ignore_result", "harness_options",
    )  # fmt: skip
    info = request.delivery_info or {}
    # Celery leaves here the headers that it does not know: the sender's own.
    own = {
        name: value
        for name, value in (request.headers or {}).items()
        if name != "harness" and not name.startswith(DEAD_LETTER)
    }
    headers = own | {name: request.get(name) for name in known if request.get(name) is not None}
    embedded = {name: request.get(name) for name in ("callbacks", "errbacks", "chain", "chord")}
    properties = {
        "correlation_id": request.correlation_id or request.id, "reply_to": request.reply_to,
        "priority": info.get("priority") or 0,
    }  # fmt: skip
    stored = {
        "headers": {"lang": "py", **headers}, "body": [request.args, request.kwargs or {}, embedded],
        "properties": properties, "exchange": info.get("exchange") or "", "routing_key": info.get("routing_key"),
        "queue": None,
    }  # fmt: skip
    return str(kombu_json.dumps(stored))
