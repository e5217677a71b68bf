"""Redis as a resource: read and restored key by key, through its own connection."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redis import ConnectionPool, Redis
from redis.exceptions import RedisError
from rq.defaults import RQ_KEY_PREFIX

from harness.errors import UsageError
from harness.explore.crash import living
from harness.explore.redis_tables import enqueued, tables, write
from harness.explore.tables import Table

_RQ_KEYS = (
    "canceled:", "clean_groups", "clean_registries:", "cron_", "deferred:", "execution:", "executions:", "failed:",
    "finished:", "group:", "groups", "job:", "pubsub:", "queue:", "queues", "ready:", "registry:", "results:",
    "rl-keys", "rl:", "scheduled:", "scheduler-lock:", "scheduler:", "suspended", "wip:", "worker:", "workers",
)  # fmt: skip


def not_the_jobs(rq_prefix: str) -> tuple[bytes, ...]:
    """Return prefixes of keys that are not an outcome of the job: those of its queue, and those of this package.

    All keys with the prefix ``rq:`` are RQ's. An application may use its own RQ prefix for other keys too, so there
    only RQ's names count.
    """
    rq_keys = ("",) if rq_prefix == "rq" else (*_RQ_KEYS, "harness:")
    return (b"harness:", *(f"{rq_prefix}:{name}".encode() for name in rq_keys))


NOT_THE_JOBS = not_the_jobs(RQ_KEY_PREFIX)
"""Prefixes of keys that are not an outcome of the job."""
_GONE = -2
"""TTL of a missing key."""
_FOREVER = -1
"""TTL of a key that does not expire."""
LOCAL = {None, "localhost", "127.0.0.1", "::1"}
"""Hosts on which the explorer may empty and refill a Redis database."""

Kept = dict[bytes, tuple[bytes, Any, int | None]]
"""Type, value and TTL in milliseconds, by key."""


def identity(client: Any) -> str:
    """Return the identity of a client's database."""
    given = client.connection_pool.connection_kwargs
    server = given.get("server")
    where = (
        f"fake {id(server)}"
        if server is not None
        else f"{given.get('path') or given.get('host')}:{given.get('port')}"
    )
    return f"redis {where}/{given.get('db', 0)}"


class RedisResource:
    """Redis database; it is compared after every command, because Redis has no version number of its data.

    :raises UsageError: for a Redis on another machine, because it is emptied for every trial.
    """

    def __init__(self, client: Any) -> None:
        pool = client.connection_pool
        given = pool.connection_kwargs
        # A client of fakeredis without a server has an invented host.
        self.is_fake = pool.connection_class.__module__.partition(".")[0] == "fakeredis"
        is_local = self.is_fake or given.get("path") or given.get("host") in LOCAL
        if not is_local:
            raise UsageError(
                f"the job uses Redis on {given.get('host')}, and the explorer would empty it for every "
                "trial; use fakeredis or a Redis on this machine"
            )
        self._client: Any = Redis(
            connection_pool=ConnectionPool(
                connection_class=pool.connection_class, **{**given, "decode_responses": False}
            )
        )
        self.touched = False
        self._seen = self.keep()

    def changed(self) -> bool:
        """Return whether a command changed anything; a decreasing TTL is no change."""
        if not self.touched:
            return False
        self.touched = False
        kept = self.keep()
        seen, self._seen = self._seen, kept
        return _without_ttl(kept) != _without_ttl(seen)

    def keep(self, without: tuple[bytes, ...] = ()) -> Kept:
        """Return all keys, except those with these prefixes."""
        with living(None):
            found: list[bytes] = self._client.keys()
            keys = sorted(key for key in found if not key.startswith(without))
            with self._client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.type(key)
                kinds: list[bytes] = pipeline.execute()
                for key, kind in zip(keys, kinds, strict=True):
                    _READERS.get(kind, _nothing)(pipeline, key)
                    pipeline.pttl(key)
                answers = iter(pipeline.execute())
            # A key may have expired since it was listed: then it has no type, or no TTL.
            return {
                key: (kind, self._value(key, kind, value), None if left == _FOREVER else max(left, 1))
                for key, kind, value, left in zip(keys, kinds, answers, answers, strict=True)
                if kind != b"none" and left != _GONE
            }

    def has(self, prefix: bytes) -> bool:
        """Return whether there is a key with a prefix."""
        with living(None):
            return bool(self._client.keys(prefix + b"*"))

    def restore(self, kept: Kept) -> None:
        """Write all keys in one transaction, each with its old TTL."""
        with living(None), suppress(RedisError):  # a server may not support scripts
            # The job loads scripts at its first call, so remove them: otherwise it would pass other crash
            # points.
            self._client.script_flush()
        with living(None), self._client.pipeline() as pipeline:
            pipeline.flushdb()
            for key, (kind, value, left) in kept.items():
                write(pipeline, key, kind, value)
                if left is not None:
                    pipeline.pexpire(key, left)
            pipeline.execute()
        self._seen, self.touched = kept, False

    def contents(self, kept: Kept | None = None) -> dict[str, Table]:
        """Return the job's own keys, their elements, and the jobs in RQ's queues."""
        found = self.keep() if kept is None else kept
        own = {key: entry for key, entry in found.items() if not key.startswith(NOT_THE_JOBS)}
        return {**tables(own), "enqueued jobs": enqueued(found)}

    def close(self) -> None:
        """Close the connection."""
        self._client.connection_pool.disconnect()

    def _value(self, key: bytes, kind: bytes, value: Any) -> Any:
        """Return the value of a key by what its reader returned."""
        if kind == b"stream":
            return value, self._groups(key)
        if kind not in _READERS:
            return None
        return sorted(value) if kind == b"set" else value

    def _groups(self, key: bytes) -> Any:
        """Return the groups of a stream with their pending entries."""
        return [
            (
                group["name"],
                group["last-delivered-id"],
                [
                    (each["message_id"], each["consumer"], each["times_delivered"])
                    for each in self._client.xpending_range(key, group["name"], "-", "+", group["pending"])
                ]
                if group["pending"]
                else [],
            )
            for group in self._client.xinfo_groups(key)
        ]


_READERS: dict[bytes, Callable[[Any, bytes], Any]] = {
    b"string": lambda client, key: client.get(key),
    b"hash": lambda client, key: client.hgetall(key),
    b"list": lambda client, key: client.lrange(key, 0, -1),
    b"set": lambda client, key: client.smembers(key),
    b"zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
    b"stream": lambda client, key: client.xrange(key),
}
"""Commands that read a key, by its type."""


def _nothing(client: Any, key: bytes) -> Any:
    """Send a command that is valid for every type, for a key without a reader."""
    return client.exists(key)


def _without_ttl(kept: Kept) -> dict[bytes, Any]:
    return {key: (kind, value, left is not None) for key, (kind, value, left) in kept.items()}
