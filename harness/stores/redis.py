"""Progress in keys of its own in Redis: it outlives the RQ job, and may live in another Redis than the queue.

One key a job, its value the JSON text, so that ``GET harness:progress:17`` shows where job 17 stands. What a death
means for each write is said in :mod:`harness.stores.watched`. What Redis itself loses when it dies is its
configuration's business: with ``appendonly yes`` at most the last second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.stores import shared
from harness.stores.scripts import IN_KEY, replaced
from harness.stores.watched import WatchedStore

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

DAY = 24 * 3600
"""Seconds."""

PREFIX = f"{shared.PREFIX}progress:"
"""Key prefix: ``harness:progress:``, or ``<prefix>:harness:progress:`` where ``RQ_KEY_PREFIX`` is set."""


class RedisStore(WatchedStore):
    """Keeps progress in Redis, written through.

    :param connection: to the Redis that keeps it.
    :param ttl: seconds that progress is kept after it was last written; None keeps it until it is deleted.
    :param prefix: of the key, before the id of the job.
    """

    def __init__(self, connection: Redis, *, ttl: int | None = 30 * DAY, prefix: str = PREFIX) -> None:
        super().__init__(connection)
        self._ttl, self._prefix = ttl, prefix

    def _key(self, job_id: str) -> str:
        return self._prefix + job_id

    def _get(self, connection: Redis, key: str) -> Any:
        return connection.get(key)

    def _text(self, job_id: str, held: Any) -> str | bytes | None:  # noqa: ARG002 - the value is nothing else
        text: str | bytes = held
        return text

    def _put(self, pipeline: Pipeline, key: str, held: Any, text: str | None) -> None:  # noqa: ARG002
        if text is None:
            pipeline.delete(key)
        else:
            pipeline.set(key, text, ex=self._ttl)

    def _replace(self, job_id: str, expected: str, text: str) -> bool:
        ttl = "" if self._ttl is None else self._ttl
        return replaced(self._connection, IN_KEY, self._key(job_id), expected=expected, text=text, last=ttl)
