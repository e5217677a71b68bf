"""Progress in separate keys in Redis: progress outlives the RQ job, and may be in another Redis than the queue.

Each job has one key with the JSON text, so ``GET harness:progress:17`` shows the position of job 17.
:mod:`harness.stores.watched` says what a crash means for each write. Redis's configuration determines what a
crash of Redis loses: with ``appendonly yes`` at most the last second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.stores import shared
from harness.stores.scripts import IN_KEY, replaced
from harness.stores.watched import WatchedStore, next_claim

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from harness.progress import Progress

DAY = 24 * 3600
"""A day, in seconds."""

PREFIX = f"{shared.PREFIX}progress:"
"""Key prefix: ``harness:progress:``, or ``<prefix>:harness:progress:`` where ``RQ_KEY_PREFIX`` is set."""


class RedisStore(WatchedStore):
    """Store in Redis; each save is written immediately.

    :param connection: connection to the Redis of the progress. :param ttl: TTL of progress after its last
        write, in seconds; None keeps it until it is deleted. :param prefix: key prefix.
    """

    def __init__(self, connection: Redis, *, ttl: int | None = 30 * DAY, prefix: str = PREFIX) -> None:
        super().__init__(connection)
        self._ttl, self._prefix = ttl, prefix

    def is_on(self, connection: Redis) -> bool:
        """Return whether the store uses this connection, and so the same server and database."""
        return self._connection is connection

    def claimable(self, job_id: str) -> tuple[tuple[str, str, int], Progress]:
        """Return the key, text and TTL of the first claim of a job without progress, and that progress."""
        progress = next_claim(None, job_id)
        progress.stored = progress.to_json()
        return (self._key(job_id), progress.stored, self._ttl or 0), progress

    def taking(self, found: Progress | str | bytes) -> ClaimedStore:
        """Return this store for an execution whose progress another command has read or created.

        :param found: text that the command read, or progress that it stored.
        """
        return ClaimedStore(self._connection, found, ttl=self._ttl, prefix=self._prefix)

    def _key(self, job_id: str) -> str:
        return self._prefix + job_id

    def _get(self, connection: Redis, key: str) -> Any:
        return connection.get(key)

    def _text(self, job_id: str, held: Any) -> str | bytes | None:  # noqa: ARG002 - the value is the text itself
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


class ClaimedStore(RedisStore):
    """Store whose first claim needs no round trip to read, because another command has read or stored the progress."""

    def __init__(
        self, connection: Redis, found: Progress | str | bytes, *, ttl: int | None, prefix: str
    ) -> None:
        super().__init__(connection, ttl=ttl, prefix=prefix)
        self._found: Progress | str | bytes | None = found

    def claim(self, job_id: str) -> Progress:
        """Take the job over with a raised epoch.

        Crash after the other command and before this one: the progress that it stored counts as an execution that
        crashed. If it only read the progress, the script for saves replaces that progress here if it is unchanged.
        """
        found, self._found = self._found, None
        if found is None:
            return super().claim(job_id)
        if not isinstance(found, str | bytes):
            return found
        text = found.decode() if isinstance(found, bytes) else found
        progress = next_claim(self._progress(job_id, text), job_id)
        claimed = progress.to_json()
        if self._replace(job_id, text, claimed):
            progress.stored = claimed
            return progress
        return super().claim(job_id)
