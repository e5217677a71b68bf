"""Dramatiq as a queue with tickets: its actor, its middleware, and how a stored message is sent again.

A message is acknowledged after the actor has returned and Dramatiq has stored the result and sent the next message of a
pipeline; then the ticket is closed. Crash before: the job is delivered again, finds that it is completed, and returns
its result once more. A message that was sent in the moment before such a crash is then sent a second time.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

import dramatiq
from dramatiq.middleware import MiddlewareError
from redis.exceptions import RedisError

from harness.errors import ProgressUnavailable, Superseded, UsageError
from harness.job import find_stored
from harness.queues.calls import encoded_call
from harness.queues.dramatiq.messages import ACTOR, STAMP, current, resending, skip, stored_form
from harness.queues.dramatiq.middleware import JobMiddleware
from harness.queues.ticket_calls import claimed_number, digest_of_call, refusal
from harness.queues.ticket_delivery import TicketDelivery
from harness.queues.ticket_workers import process_name
from harness.queues.ticketed import Queue
from harness.queues.tickets import Claimed, Sending
from harness.runtime import forks

if TYPE_CHECKING:
    from dramatiq import Broker, Message
    from redis import Redis

    from harness.context import Portion
    from harness.job import Job
    from harness.progress import Store

LATEST_DELAY_MS = 7 * 24 * 3600 * 1000
"""Longest delay that Dramatiq takes, in milliseconds."""

log = logging.getLogger("harness.queues")

_checked: ContextVar[bool] = ContextVar("harness_checked", default=False)
"""True while a job is enqueued under an id that the caller has chosen."""


class _Unsent(MiddlewareError):
    """Ends ``broker.enqueue`` before a message is sent: Dramatiq logs other errors of a middleware, and goes on.

    :ivar error: for the caller; None if the message joins the job that is there.
    """

    def __init__(self, error: Exception | None) -> None:
        super().__init__(error)
        self.error = error


class DramatiqQueue(Queue):
    """A Dramatiq broker for which :func:`install` was called."""

    kind = "dramatiq"
    # Dramatiq has no hook for a message that a worker has received: this finds those that a crashed worker has lost.
    stray_seconds = 10.0

    def __init__(
        self,
        broker: Broker,
        redis: Redis | str,
        store: Store | Callable[[], Store] | None = None,
        queue_name: str = "default",
    ) -> None:
        super().__init__(redis, store)
        self.broker, self.deliveries = broker, dict[str, DramatiqDelivery]()
        known = broker.actor_options
        options = {
            "max_retries": 0, "time_limit": float("inf"), "notify_shutdown": False, "store_results": True,
        }  # fmt: skip
        self.stores_results = "store_results" in known
        chosen: dict[str, Any] = {name: value for name, value in options.items() if name in known}
        declare: Any = dramatiq.actor  # its overloads do not know all options
        self.actor = declare(self._perform, broker=broker, actor_name=ACTOR, queue_name=queue_name, **chosen)

    def send(self, sending: Sending) -> None:
        """Enqueue a stored message with its number and its delay."""
        stored = json.loads(sending.message)
        stored["options"][STAMP] = {**stored["options"].get(STAMP, {}), "n": sending.n}
        message: Message[Any] = dramatiq.Message(**{**stored, "args": tuple(stored["args"])})
        if sending.queue:
            self.broker.declare_queue(sending.queue)
            message = message.copy(queue_name=sending.queue)
        self._resend(message, min(int(sending.delay * 1000), LATEST_DELAY_MS))

    def _put_back(self, message: Message[Any]) -> None:
        """Enqueue a message that was delivered again, with the stamp of its sender."""
        stored = json.loads(stored_form(message))
        if STAMP in message.options:
            stored["options"][STAMP] = message.options[STAMP]
        self._resend(dramatiq.Message(**{**stored, "args": tuple(stored["args"])}))

    def _resend(self, message: Message[Any], delay: int = 0) -> None:
        token = resending.set(True)
        try:
            self.broker.enqueue(message, delay=delay or None)
        finally:
            resending.reset(token)

    def send_instance(self, job_id: str, call: list[Any], model: Claimed) -> None:
        """Enqueue an instance of a parallel run in the queue of the job that starts it, unless it is there."""
        ticket = self.tickets.read(job_id)
        if ticket and ticket.get("digest") == digest_of_call(call):
            return
        queue_name = json.loads(self.tickets.read(model.job_id)["message"])["queue_name"]
        message = self.actor.message_with_options(args=tuple(call))
        self.broker.enqueue(message.copy(message_id=job_id, queue_name=queue_name))

    def stamp(self, message: Message[Any], delay: int | None) -> None:
        """Make the ticket of a message that is about to be enqueued, and write its number into its options.

        A message that Dramatiq's ``Retries`` enqueues again keeps its ticket. Crash after this: the sweep sends it. If
        Redis cannot be reached, the message goes without a number, and the worker makes the ticket.
        """
        seconds = (delay or 0) / 1000
        delivery = self.deliveries.get(message.message_id)
        if delivery is not None and delivery.thread == threading.get_ident():
            try:
                again = self.tickets.requeue(delivery.claimed, delay=seconds)
            except RedisError as error:
                # The ticket says that the job runs, or is sent with the next number. It must not be closed as failed:
                # while the lease lasts, the message that is sent now is dropped. Then the sweep sends the job.
                delivery.left_to_sweep(error)
                self.forget(delivery.message)
                return
            if again is not None:
                stamp = message.options.get(STAMP) or {}
                message.options[STAMP] = {**stamp, "n": again[0].n}
                self.tickets.replace_message(message.message_id, stored_form(message))
            return
        if message.options.get(STAMP):
            return  # its delay is over, and Dramatiq moves it to the queue
        digest, checked, round_id = digest_of_call(list(message.args)), _checked.get(), uuid.uuid4().hex
        try:
            stored = stored_form(message)
            opened = self.tickets.open(message.message_id, round_id, digest, stored, seconds)
        except RedisError as error:
            if checked:
                raise _Unsent(error) from error
            # The worker knows by it that this is another enqueue.
            message.options[STAMP] = {"round": round_id}
            raise
        if not opened.n:
            if checked:
                raise _Unsent(refusal(message.message_id, opened, digest))
            log.info("job %s is %s already; this message joins it", message.message_id, opened.state)
        message.options[STAMP] = {"n": opened.n, "round": opened.round}

    def _perform(self, *call: Any) -> dict[str, Any] | None:
        """Run one execution, and return the result of the whole job if it is completed.

        :raises SkipMessage: if it is not, or another delivery has the job.
        :raises Exception: what the job raised, if it is not resumed.
        """
        message = current.get()
        if message is None:
            raise UsageError("the actor harness_job runs in a Dramatiq worker only; use enqueue()")
        with forks.guarding():
            return self._deliver(message, json.loads(json.dumps(call)))

    def _deliver(self, message: Any, call: list[Any]) -> dict[str, Any] | None:
        stamp = message.options.get(STAMP)
        job_id, n, round_id = message.message_id, claimed_number(stamp), (stamp or {}).get("round")
        if self.shutdown():
            # The worker still takes messages while it leaves. Crash after this: two of the same number, one counts.
            self._put_back(message)
            skip(message, "worker leaves")
        try:
            claimed = self.claim(job_id, n, call, lambda: stored_form(message), str(round_id or job_id))
        except ProgressUnavailable as error:
            skip(message, str(error))
        if isinstance(claimed, str):
            log.info("job %s: this message is out of date (%s) and is dropped", job_id, claimed)
            skip(message, claimed)
        delivery = DramatiqDelivery(self, claimed, call, message)
        self.deliveries[job_id] = delivery
        try:
            delivery.run()
        except Superseded as error:
            skip(message, str(error))
        if not (self.stores_results or message.options.get("pipe_target")):
            return None
        return delivery.result(find_stored(call[0]))

    def forget(self, message: Any) -> DramatiqDelivery | None:
        """Release the lease of a message, and return its delivery; None if it has none.

        A skipped message ends here: its ticket says what becomes of the job. A requeue that did not reach Redis leaves
        it running, so it must not be closed; the lease expires, and the sweep sends the job.
        """
        delivery = self.deliveries.get(message.message_id)
        if delivery is None or delivery.message is not message:
            return None
        del self.deliveries[message.message_id]
        delivery.release()
        return delivery

    def finish(self, message: Any, outcome: str) -> None:
        """Close the ticket of a message that Dramatiq is done with, unless it was requeued."""
        delivery = self.forget(message)
        if delivery is None:
            return
        try:
            self.tickets.close(message.message_id, outcome, delivery.claimed.owner)
        except RedisError as error:
            # The lease runs out; the sweep sends the job again, and it finds that it is completed.
            log.warning("job %s: its ticket was not closed (%r)", message.message_id, error)


class DramatiqDelivery(TicketDelivery["NoReturn"]):
    """One delivery of a job by Dramatiq."""

    def __init__(self, queue: DramatiqQueue, claimed: Claimed, call: list[Any], message: Any) -> None:
        super().__init__(queue, claimed, call, process_name("dramatiq"))
        self.message, self.thread = message, threading.get_ident()

    def stored_message(self) -> str:
        """Return the stored form of the message."""
        return stored_form(self.message)

    def report(self, reason: str, outcome: str) -> NoReturn:
        """End the message without a result.

        :raises SkipMessage: always.
        """
        skip(self.message, reason)


def install(
    broker: Broker,
    *,
    redis: Redis | str,
    store: Store | Callable[[], Store] | None = None,
    queue_name: str = "default",
) -> DramatiqQueue:
    """Let a Dramatiq broker run jobs, and return its queue. Call it after all other middleware was added.

    :param redis: connection or URL of the Redis that keeps tickets, history and requests; the broker may be another
        server, such as RabbitMQ.
    :param store: progress store of jobs without a ``progress_store()`` of their own: a store, or a function that
        returns one and is called once in each process. In Redis if None.
    :param queue_name: queue of jobs that name none.
    """
    queue = DramatiqQueue(broker, redis, store, queue_name)
    # The first: what it does after a message comes after all others have done what they do.
    first = type(broker.middleware[0]) if broker.middleware else None
    broker.add_middleware(JobMiddleware(queue), before=first)
    return queue


def installed(broker: Broker) -> DramatiqQueue:
    """Return the queue of a broker.

    :raises UsageError: if :func:`install` was not called for it.
    """
    found = next((each for each in broker.middleware if isinstance(each, JobMiddleware)), None)
    if found is None:
        raise UsageError(
            "this Dramatiq broker runs no jobs; call harness.queues.dramatiq.install(broker, redis=…) in its module"
        )
    return found.queue


def message(
    broker: Broker,
    job_class: type[Job],
    *args: Any,
    options: dict[str, Any] | None = None,
    portion: Portion | None = None,
    **kwargs: Any,
) -> Message[Any]:
    """Return a job's message without enqueueing it, for pipelines and groups; *options* are those of :func:`enqueue`.

    A pipeline passes the result of a message to the next one, unless that has the option ``pipe_ignore``.
    """
    queue = installed(broker)
    call = encoded_call(job_class, args, kwargs, portion)
    settings = dict(options or {})
    attributes = {name: settings.pop(name) for name in ("message_id", "queue_name") if name in settings}
    settings.pop("delay", None)
    if "queue_name" in attributes:
        broker.declare_queue(attributes["queue_name"])
    made: Message[Any] = queue.actor.message_with_options(args=tuple(call), **settings)
    return made.copy(**attributes)


def enqueue(
    broker: Broker,
    job_class: type[Job],
    *args: Any,
    options: dict[str, Any] | None = None,
    portion: Portion | None = None,
    **kwargs: Any,
) -> Message[Any]:
    """Enqueue a job and return its message, whose result is that of the whole job.

    Under the id of a job that is over, this begins a new round. Under the id of one that is not, with the same class
    and arguments, it enqueues nothing.

    :param options: ``message_id``, ``queue_name``, ``delay`` in milliseconds, and options of messages such as
        ``max_retries`` (0 by default) and ``min_backoff``.
    :param portion: the part of an iteration job to do.
    :raises UsageError: if no worker could find the class, the job cannot take this, or the id belongs to another job
        that is not over.
    :raises CursorError: if an argument would not come back equal.
    """
    made = message(broker, job_class, *args, options=options, portion=portion, **kwargs)
    token = _checked.set("message_id" in (options or {}))
    try:
        sent: Message[Any] = broker.enqueue(made, delay=(options or {}).get("delay"))
    except _Unsent as unsent:
        if unsent.error is not None:
            raise unsent.error from None
        return made
    finally:
        _checked.reset(token)
    return sent
