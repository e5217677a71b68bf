"""Trials on Dramatiq: the broker, its job, and the program of its workers.

The plain form is an actor with Dramatiq's defaults. Its message is acknowledged at its end, so it is
delivered again after a crash, and starts at its first item: immediately on RabbitMQ, on Redis when the
worker's heartbeat is a minute old.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from typing import TYPE_CHECKING, Any

import dramatiq
from dramatiq import cli
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Middleware
from redis import Redis

from harness import events
from harness.lab.backends import RETRIES, TicketBackend, new_queue_name, run_plain
from harness.lab.executions import Executions, wait_for_shutdown
from harness.lab.parent_pipe import obey
from harness.lab.worker import working
from harness.queues import dramatiq as queues

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

    from harness.job import Job
    from harness.scenario import Scenario

PLAIN = "harness_lab_plain"
"""Name of the actor that runs a plain form."""

broker: Any = None
"""Broker of a worker's process; Dramatiq's command looks for it under this name."""


def made(url: str) -> Any:
    """Return a broker on a Redis or a RabbitMQ."""
    if url.startswith("amqp"):
        from dramatiq.brokers.rabbitmq import RabbitmqBroker  # noqa: PLC0415 - it needs pika

        return RabbitmqBroker(url=url, confirm_delivery=True)
    return RedisBroker(client=Redis.from_url(url))  # type: ignore[no-untyped-call]


def declare_plain(on: Any, queue: str, function: Callable[[str, list[int]], None]) -> Any:
    """Declare the actor that runs plain forms."""
    declare: Any = dramatiq.actor  # its overloads do not know all options
    return declare(function, broker=on, actor_name=PLAIN, queue_name=queue, max_retries=RETRIES)


class DramatiqBackend(TicketBackend):
    """Dramatiq."""

    def __init__(self, broker: str, redis: str, scenario: Scenario, form: str) -> None:
        self._on_redis, name = broker == redis, new_queue_name()
        self.broker = made(broker)
        super().__init__(queues.install(self.broker, redis=redis, queue_name=name), name, scenario, form)

    def send_job(self, job: type[Job]) -> str:
        """Enqueue a job."""
        return queues.enqueue(self.broker, job).message_id

    def send_plain(self, path: str, arguments: list[int]) -> str:
        """Send the message of the actor."""
        actor = declare_plain(self.broker, self.queue_name, lambda _path, _arguments: None)
        return str(actor.send(path, arguments).message_id)

    def leaves_alone(self, by: str | signal.Signals) -> bool:
        """Return True for Redis; if only the main process is lost, the other one continues."""
        return self._on_redis and by != "kill:worker"

    def close(self) -> None:
        """Close the connections."""
        super().close()
        self.broker.close()


class TrialMiddleware(Middleware):
    """Middleware that ends the worker's process with the lab, and writes the ends of executions."""

    def __init__(self, pipe: int, executions: Executions) -> None:
        self._pipe, self._executions = pipe, executions

    def after_process_boot(self, _broker: Any) -> None:
        """End this process when the lab ends."""
        obey(self._pipe)

    def after_ack(self, _broker: Any, _message: Any) -> None:
        """Write the end."""
        self._executions.end()

    def after_nack(self, _broker: Any, _message: Any) -> None:
        """Write the end."""
        self._executions.end()


def main() -> None:
    """Run a worker with one process of one thread, until a signal stops it."""
    global broker
    pipe = os.dup(0)  # multiprocessing closes the standard input of its processes
    obey(pipe)
    multiprocessing.set_start_method("fork", force=True)  # so that they inherit the trial
    with working() as trial:
        broker, executions = made(trial.config.broker), Executions(trial.journal)

        def plain(path: str, arguments: list[int]) -> None:
            run_plain(path, arguments, trial.journal, trial.connection)

        queue = queues.install(broker, redis=trial.config.redis, queue_name=trial.config.queue)
        declare_plain(broker, trial.config.queue, plain)
        # Before the other middleware, so that its work after a message comes last.
        broker.add_middleware(TrialMiddleware(pipe, executions), before=queues.JobMiddleware)
        trial.interrupter.heard = lambda: wait_for_shutdown(queue)
        command: Any = cli  # it has no type hints
        arguments = command.make_argument_parser().parse_args([f"{__name__}:broker", "-p", "1", "-t", "1"])
        with events.subscribe(executions):
            code = command.main(arguments)
    sys.exit(code)
