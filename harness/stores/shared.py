"""Records that several jobs share, for the stores in Redis."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from redis.exceptions import RedisError, ResponseError, WatchError

from harness.boundary.decoding import plain_text
from harness.errors import CorruptProgress

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

TTL = 30 * 24 * 3600
"""TTL of a record after its last change, in seconds."""

_RQ = os.environ.get("RQ_KEY_PREFIX", "rq")

PREFIX = "harness:" if _RQ == "rq" else f"{_RQ}:harness:"
"""Prefix of all keys of this package, derived from RQ's prefix, so that RQ prefixes separate applications."""


def read(connection: Redis, key: str, *, prefix: str = PREFIX) -> str | None:
    """Return the shared record under the key, or None."""
    return _text(connection, f"{prefix}shared:{key}", key)


def replace(connection: Redis, key: str, before: str | None, after: str, *, prefix: str = PREFIX) -> bool:
    """Store *after* if the current record is *before*, in one transaction under ``WATCH``.

    If only the answer is lost, it raises; a caller that tries again reads the record first. :raises RedisError: if the
    connection fails; the record may be stored or not.
    """
    name = f"{prefix}shared:{key}"
    with connection.pipeline() as pipeline:
        pipeline.watch(name)
        if _text(pipeline, name, key) != before:
            return False
        pipeline.multi()
        pipeline.set(name, after, ex=TTL)
        try:
            pipeline.execute()
        except WatchError as error:
            if isinstance(error.__context__, RedisError):
                # redis-py raises the same error when a connection breaks during EXEC: it is unknown what was stored
                raise error.__context__ from None
            return False
        return True


def _text(connection: Redis | Pipeline, name: str, key: str) -> str | None:
    """Return the value of a Redis key as text.

    :raises CorruptProgress: if it has another type, or is not UTF-8.
    """
    what = f"the shared record {key}"
    try:
        return plain_text(connection.get(name), what)
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        raise CorruptProgress(f"{what} has another type than text; it was not changed") from error
