"""Dramatiq's middleware for jobs: tickets of messages that are enqueued, their ends, and the worker's start and end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dramatiq.middleware import Middleware

from harness.queues.dramatiq import ages
from harness.queues.dramatiq.messages import ACTOR, STAMP, current, resending
from harness.queues.ticket_calls import claimed_number
from harness.queues.ticket_workers import process_name

if TYPE_CHECKING:
    from dramatiq import Broker

    from harness.queues.dramatiq.queue import DramatiqQueue


class JobMiddleware(Middleware):
    """Connects a broker to a queue with tickets."""

    def __init__(self, queue: DramatiqQueue) -> None:
        self.queue, self._failed = queue, set[int]()

    def before_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
        """Write the number of its ticket into a message."""
        if message.actor_name == ACTOR and not resending.get():
            self.queue.stamp(message, delay)

    def after_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
        """Record that the broker has a message; enqueued again later, the same object begins a new round.

        The broker's copy keeps its stamp. Crash before the record: the sweep sends the message again.
        """
        if message.actor_name != ACTOR:
            return
        stamp = message.options.pop(STAMP, None) or {}
        if n := stamp.get("n"):
            self.queue.tickets.sent(message.message_id, n)

    def before_process_message(self, broker: Broker, message: Any) -> None:
        """Keep the message for the actor; it is too old only if its job has not started before."""
        current.set(message if message.actor_name == ACTOR else None)
        if message.actor_name == ACTOR:
            ages.check(self.queue.tickets, broker, message, claimed_number(message.options.get(STAMP)))

    def after_process_message(
        self,
        broker: Broker,
        message: Any,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Note that a message failed, which Dramatiq acknowledges where there is no ``Retries``."""
        current.set(None)
        if exception is not None and message.actor_name == ACTOR:
            self._failed.add(id(message))

    def after_skip_message(self, broker: Broker, message: Any) -> None:
        """Forget the message, and leave its ticket as it is."""
        current.set(None)
        if message.actor_name == ACTOR:
            self.queue.forget(message)

    def after_ack(self, broker: Broker, message: Any) -> None:
        """Close the ticket: the result is stored, and the next message of a pipeline is sent."""
        if message.actor_name == ACTOR:
            failed = id(message) in self._failed
            self._failed.discard(id(message))
            self.queue.finish(message, "failed" if failed else "completed")

    def after_nack(self, broker: Broker, message: Any) -> None:
        """Close the ticket: the failure is stored."""
        if message.actor_name == ACTOR:
            self._failed.discard(id(message))
            self.queue.finish(message, "failed")

    def after_worker_boot(self, broker: Broker, worker: Any) -> None:
        """Sweep for crashed workers from now on."""
        self.queue.shutdown.clear()
        queues = worker.consumer_whitelist or broker.get_declared_queues()
        self.queue.enrol(process_name("dramatiq"), queues)

    def before_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        """Stop all jobs of this process at their next checkpoint."""
        self.queue.shutdown.set("worker leaves")

    def after_worker_shutdown(self, broker: Broker, worker: Any) -> None:
        """End the threads."""
        self.queue.close()
