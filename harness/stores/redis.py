"""Progress in separate keys in Redis: it outlives the RQ job, and may be in another Redis than the queue.

Each job has one key with the JSON text, so ``GET harness:progress:17`` shows the position of job 17.
:mod:`harness.stores.watched` says what a crash means for each write. Redis's configuration determines what a
crash of Redis loses: with ``appendonly yes`` at most the last second.
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
    """Keeps progress in Redis, written immediately.

    :param connection: connection to the Redis that keeps it. :param ttl: TTL of progress after its last
        write, in seconds; None keeps it until it is deleted. :param prefix: key prefix.
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
