"""Runs an explored job on Dramatiq: its StubBroker, and its own worker thread's code in this process."""

from __future__ import annotations

import json
from queue import PriorityQueue
from threading import get_ident
from typing import TYPE_CHECKING, Any

import dramatiq
from dramatiq import worker as workers
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker

from harness.explore.crash import current
from harness.explore.ticketed import QUEUE, TicketTarget, plain
from harness.queues import dramatiq as queues

if TYPE_CHECKING:
    from harness.queues.dramatiq import DramatiqQueue

PLAIN = "harness_explore_plain"
"""Name of the actor that runs a function."""


class Consumer:
    """Consumer that acknowledges the messages that a worker has processed.

    :ivar error: why the last message failed, if it did.
    """

    def __init__(self, target: DramatiqTarget) -> None:
        self._target = target
        self.error: BaseException | None = None

    def post_process_message(self, message: Any) -> None:
        """Acknowledge or reject a message, as Dramatiq's own consumer does."""
        simulated = current()
        if simulated is not None and simulated.dead:
            simulated.reach("before-ack", QUEUE)  # a crashed process has no further effects
        self.error = message._exception if message.failed else None  # noqa: SLF001 - Dramatiq's consumers read it
        if message.failed and not self._target.documented:
            return  # the explorer retries it
        what = "nack" if message.failed else "ack"
        self._target.broker.emit_before(what, message)
        self._target.messages.acknowledge(message.raw)
        self._target.broker.emit_after(what, message)


class DramatiqTarget(TicketTarget):
    """Job or function on Dramatiq."""

    queue: DramatiqQueue

    def _install(self) -> None:
        self.broker = StubBroker()
        self.queue = queues.install(self.broker, redis=self._connection, queue_name=QUEUE)
        declare: Any = dramatiq.actor  # its overloads do not know all options
        self._plain = declare(plain, broker=self.broker, actor_name=PLAIN, queue_name=QUEUE, max_retries=0)
        self.broker.queues[QUEUE] = self.messages

    def _enqueue(self) -> None:
        args, kwargs = self._call
        if self.documented:
            queues.enqueue(
                self.broker, self.versions.old, *args, options={"message_id": self.job_id}, **kwargs
            )
        else:
            message = self._plain.message_with_options(args=(self.name, list(args), kwargs))
            self.broker.enqueue(message.copy(message_id=self.job_id))

    def _id_of(self, message: Any) -> str:
        return str(json.loads(message)["message_id"])

    def _deliver(self, message: Any) -> Exception | None:
        self._forget()
        consumer = Consumer(self)
        made: Any = workers.WorkerThread
        thread = made(
            broker=self.broker, consumers={QUEUE: consumer}, work_queue=PriorityQueue(), worker_timeout=1000
        )
        proxy: Any = MessageProxy(dramatiq.Message.decode(message))
        proxy.raw = message
        thread.work_queue.put((0, 0))  # it reports each finished message
        thread.process_message(proxy)
        error = consumer.error
        return error if isinstance(error, Exception) else None

    def _forget(self) -> None:
        """Forget the delivery of a process that crashed in this thread."""
        delivery = self.queue.deliveries.get(self.job_id)
        if delivery is not None and delivery.thread == get_ident():
            del self.queue.deliveries[self.job_id]

    def close(self) -> None:
        """Close the broker, too."""
        super().close()
        self.broker.close()
