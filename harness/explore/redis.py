"""Redis as a place: read and restored key by key, through a connection of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redis import ConnectionPool, Redis
from redis.exceptions import RedisError
from rq.defaults import RQ_KEY_PREFIX

from harness.errors import UsageError
from harness.explore.crash import living
from harness.explore.places import Table

_RQ_KEYS = (
    "canceled:", "clean_groups", "clean_registries:", "cron_", "deferred:", "execution:", "executions:", "failed:",
    "finished:", "group:", "groups", "job:", "pubsub:", "queue:", "queues", "ready:", "registry:", "results:",
    "rl-keys", "rl:", "scheduled:", "scheduler-lock:", "scheduler:", "suspended", "wip:", "worker:", "workers",
)  # fmt: skip


def not_the_jobs(rq_prefix: str) -> tuple[bytes, ...]:
    """Return prefixes of keys that are not an outcome of the job: those of its queue, and those of this package.

    All keys below ``rq:`` are RQ's. A prefix that the application has chosen may be that of its own keys as well, so
    there only the names RQ gives count.
    """
    rq_keys = ("",) if rq_prefix == "rq" else (*_RQ_KEYS, "harness:")
    return (b"harness:", *(f"{rq_prefix}:{name}".encode() for name in rq_keys))


NOT_THE_JOBS = not_the_jobs(RQ_KEY_PREFIX)
"""Prefixes of keys that are not an outcome of the job."""
LOCAL = {None, "localhost", "127.0.0.1", "::1"}
"""Hosts whose Redis the explorer agrees to empty and fill again."""

Kept = dict[bytes, tuple[bytes, Any]]
"""Type and value, by key; how long they live is not kept."""


def identity(client: Any) -> str:
    """Return what two clients of the same database have in common."""
    given = client.connection_pool.connection_kwargs
    server = given.get("server")
    where = (
        f"fake {id(server)}"
        if server is not None
        else f"{given.get('path') or given.get('host')}:{given.get('port')}"
    )
    return f"redis {where}/{given.get('db', 0)}"


class RedisPlace:
    """A Redis database; it is compared after every command, since Redis has no version to look at.

    :raises UsageError: for a Redis on another machine, because it is emptied for every trial.
    """

    def __init__(self, client: Any) -> None:
        pool = client.connection_pool
        given = pool.connection_kwargs
        if given.get("server") is None and not given.get("path") and given.get("host") not in LOCAL:
            raise UsageError(
                f"the job uses Redis on {given.get('host')}, and the explorer would empty it for every trial; "
                "allowed are fakeredis and a Redis on this machine"
            )
        self._client: Any = Redis(
            connection_pool=ConnectionPool(
                connection_class=pool.connection_class, **{**given, "decode_responses": False}
            )
        )
        self.touched = False
        self._seen = self.keep()

    def changed(self) -> bool:
        """Return whether a command changed anything."""
        if not self.touched:
            return False
        self.touched = False
        kept = self.keep()
        if kept == self._seen:
            return False
        self._seen = kept
        return True

    def keep(self, without: tuple[bytes, ...] = ()) -> Kept:
        """Return all keys, but those that begin so."""
        with living(None):
            found: list[bytes] = self._client.keys()
            keys = sorted(key for key in found if not key.startswith(without))
            return {
                key: (kind, self._read(key, kind)) for key, kind in zip(keys, self._kinds(keys), strict=True)
            }

    def restore(self, kept: Kept) -> None:
        """Write all keys, in one transaction."""
        with living(None), suppress(RedisError):  # a server without scripts has none to forget
            # As before the job, which loads them at its first call: else it would pass other crash points now.
            self._client.script_flush()
        with living(None), self._client.pipeline() as pipeline:
            pipeline.flushdb()
            for key, (kind, value) in kept.items():
                _write(pipeline, key, kind, value)
            pipeline.execute()
        self._seen, self.touched = kept, False

    def contents(self, kept: Kept | None = None) -> dict[str, Table]:
        """Return the job's own keys."""
        found = self.keep(NOT_THE_JOBS) if kept is None else kept
        rows = [
            (key.decode(errors="replace"), _shown(value))
            for key, (_, value) in found.items()
            if not key.startswith(NOT_THE_JOBS)
        ]
        return {"keys": Table(("key", "value"), rows, key=(0,))}

    def close(self) -> None:
        """Close the connection."""
        self._client.connection_pool.disconnect()

    def _kinds(self, keys: list[bytes]) -> list[bytes]:
        with self._client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.type(key)
            kinds: list[bytes] = pipeline.execute()
        return kinds

    def _read(self, key: bytes, kind: bytes) -> Any:
        client = self._client
        readers: dict[bytes, Callable[[], Any]] = {
            b"string": lambda: client.get(key),
            b"hash": lambda: client.hgetall(key),
            b"list": lambda: client.lrange(key, 0, -1),
            b"set": lambda: sorted(client.smembers(key)),
            b"zset": lambda: client.zrange(key, 0, -1, withscores=True),
            b"stream": lambda: client.xrange(key),
        }
        return readers[kind]() if kind in readers else None


def _write(pipeline: Any, key: bytes, kind: bytes, value: Any) -> None:
    if kind == b"string":
        pipeline.set(key, value)
    elif kind == b"hash":
        pipeline.hset(key, mapping=value)
    elif kind == b"list":
        pipeline.rpush(key, *value)
    elif kind == b"set":
        pipeline.sadd(key, *value)
    elif kind == b"zset":
        pipeline.zadd(key, dict(value))
    elif kind == b"stream":
        for entry, fields in value:
            pipeline.xadd(key, fields, id=entry)


def _shown(value: Any) -> Any:
    """Return a value as it may be compared and shown: numbers as numbers, so that more and less can be compared."""
    if isinstance(value, bytes):
        text = value.decode(errors="replace")
        return int(text) if text.lstrip("-").isdecimal() else text
    return repr(value)
