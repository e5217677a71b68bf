"""Program of a worker of the demo; the fork server starts it, and it ends with its lane."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import redis
from rq import Queue

from harness.durability import every
from harness.lab.parent_pipe import obey
from harness.ledger import marking
from harness.overrides import Overrides, overriding
from harness.queues import rq
from harness.queues.rq.keys import PREFIX

if TYPE_CHECKING:
    from rq.executions import Execution as RQExecution
    from rq.job import Job as RQJob

CONFIG = "HARNESS_STAGE"
"""Environment variable with the :class:`Config`."""


@dataclass(frozen=True)
class Config:
    """Arguments of a worker.

    :ivar broker: URL of Redis. :ivar queue: its only queue. :ivar name: name of the worker. :ivar pace:
        duration of an item, in seconds.
    """

    broker: str
    queue: str
    name: str
    pace: float

    def to_json(self) -> str:
        """Return its form in the environment."""
        return json.dumps(asdict(self))


def horse_key(job_id: str) -> str:
    """Return the key with the pid of the process of a job of the demo."""
    return f"{PREFIX}stage:horse:{job_id}"


class Performer(rq.Worker):
    """Worker that records the process of each job, because the plain loop does not."""

    def perform_job(self, job: RQJob, queue: Queue, execution: RQExecution) -> bool:
        """Run a job in the work horse."""
        obey()
        self.connection.set(horse_key(job.id), os.getpid())
        return super().perform_job(job, queue, execution)


def main() -> None:
    """Work until a signal stops it."""
    obey()
    config = Config(**json.loads(os.environ.pop(CONFIG)))
    connection = redis.Redis.from_url(config.broker)
    # Saved after each order, so that the figures of a killed job are those of its database.
    asked = Overrides(durability=every(items=1))
    with marking(lambda _: time.sleep(config.pace)), overriding(asked):
        queue = Queue(config.queue, connection=connection, serializer="json")
        Performer([queue], name=config.name, connection=connection).work(logging_level="WARNING")
