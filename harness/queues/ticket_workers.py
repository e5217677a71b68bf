"""Records of the workers of Celery and Dramatiq, for the monitor: one for each main process.

A thread of the worker writes the record every :data:`EVERY_SECONDS`. It expires after :data:`SHOWN_SECONDS`, so a
worker that was killed is shown for a while, with the age of its record. Nothing depends on it. Crash before a
write, or after it: the monitor shows the worker for longer, or not at all.
"""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

from harness.boundary.texts import bounded
from harness.queues import keys
from harness.queues.history import NAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis import Redis

EVERY_SECONDS, SHOWN_SECONDS = 5.0, 60
"""Interval of a worker's records, and time for which each is shown, in seconds."""


def process_name(kind: str) -> str:
    """Return a name for this process as a worker."""
    return f"{kind}@{socket.gethostname()}:{os.getpid()}"


class Enrolled:
    """This process as a worker.

    :param name: name of the worker in the history of jobs. :param queues: names of its queues.
    """

    def __init__(self, connection: Redis, kind: str, name: str, queues: Iterable[str]) -> None:
        self._connection, self._kind, self.name = connection, kind, bounded(name, NAME_BYTES)
        self._queues = sorted(queues)

    def tell(self, *, leaving: bool = False) -> None:
        """Write the record."""
        record = {
            "host": socket.gethostname(), "pid": os.getpid(), "queues": self._queues[:20], "leaving": leaving,
        }  # fmt: skip
        seconds: Any = self._connection.time()[0]
        with self._connection.pipeline() as pipeline:
            index = keys.workers(self._kind)
            pipeline.set(keys.worker(self._kind, self.name), json.dumps(record), ex=SHOWN_SECONDS)
            pipeline.zadd(index, {self.name: seconds + SHOWN_SECONDS})
            pipeline.zremrangebyscore(index, "-inf", seconds)
            pipeline.expire(index, 2 * SHOWN_SECONDS)
            pipeline.execute()

    def leave(self) -> None:
        """Remove the record."""
        with self._connection.pipeline() as pipeline:
            pipeline.delete(keys.worker(self._kind, self.name))
            pipeline.zrem(keys.workers(self._kind), self.name)
            pipeline.execute()
