"""Trials on Celery: the app, its job, and the program of its workers.

The plain form is a task with the settings that prevent losses: ``acks_late`` and ``reject_on_worker_lost``. It is
delivered again if a process of the pool is lost, and starts at its first item. If the main process is lost
too, RabbitMQ delivers it again immediately, and Redis after the visibility timeout, an hour by default.
"""

from __future__ import annotations

import os
import sys
import uuid
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.signals import task_postrun, worker_process_init

from harness import events
from harness.lab.backends import TicketBackend, new_queue_name, run_plain
from harness.lab.executions import Executions, wait_for_shutdown
from harness.lab.parent_pipe import obey
from harness.lab.worker import working
from harness.queues import celery
from harness.queues.celery.shutdown import SECONDS

if TYPE_CHECKING:
    import signal

    from harness.job import Job
    from harness.scenario import Scenario

PLAIN = "harness.lab.plain"
"""Name of the task that runs a plain form."""


def made(broker: str, queue: str) -> Celery:
    """Return an app without remote control, whose queue would conflict with the next worker.

    :param broker: URL of a Redis or a RabbitMQ. :param queue: name of the queue.
    """
    url = broker.replace("unix://", "redis+socket://")  # Celery's name for Redis on a Unix socket
    app = Celery("trials", broker=url, set_as_current=False)
    app.conf.update(
        task_default_queue=queue, worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True,
        broker_channel_error_retry=True, worker_enable_remote_control=False,
    )  # fmt: skip
    return app


class CeleryBackend(TicketBackend):
    """Celery."""

    def __init__(self, broker: str, redis: str, scenario: Scenario, form: str) -> None:
        self._on_redis, name = broker == redis, new_queue_name()
        self.app = made(broker, name)
        super().__init__(celery.install(self.app, redis=redis), name, scenario, form)

    def send_job(self, job: type[Job]) -> str:
        """Enqueue a job."""
        return str(celery.enqueue(self.app, job).id)

    def send_plain(self, path: str, arguments: list[int]) -> str:
        """Send the task."""
        return str(self.app.send_task(PLAIN, (path, arguments)).id)

    def leaves_alone(self, by: str | signal.Signals) -> bool:
        """Return True for Redis, if the main process is lost."""
        return self._on_redis and by != "kill:horse"

    def close(self) -> None:
        """Close the connections."""
        super().close()
        self.app.close()


def main() -> None:
    """Run a worker with one process in the pool, until a signal stops it."""
    pipe = os.dup(0)  # Celery closes the standard input of the processes of its pool
    obey(pipe)
    with working() as trial:
        app = made(trial.config.broker, trial.config.queue)
        queue = celery.install(app, redis=trial.config.redis)
        executions = Executions(trial.journal)

        def plain(path: str, arguments: list[int]) -> None:
            run_plain(path, arguments, trial.journal, trial.connection)

        def booted(**_: Any) -> None:
            obey(pipe)

        def ended(**_: Any) -> None:
            executions.end()

        app.task(plain, name=PLAIN, shared=False, acks_late=True, reject_on_worker_lost=True)
        worker_process_init.connect(booted, weak=False)
        task_postrun.connect(ended, weak=False)
        trial.interrupter.heard = lambda: wait_for_shutdown(queue, SECONDS)
        with events.subscribe(executions):
            worker = app.Worker(
                hostname=f"{uuid.uuid4().hex}@lab", pool="prefork", concurrency=1, loglevel="WARNING",
                without_gossip=True, without_mingle=True, without_heartbeat=True,
            )  # fmt: skip
            worker.start()
    sys.exit(worker.exitcode)
