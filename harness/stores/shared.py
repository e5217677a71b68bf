"""Values that several jobs share, kept in Redis, for the stores that use Redis."""

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
"""Seconds that it is kept after the last change."""

_RQ = os.environ.get("RQ_KEY_PREFIX", "rq")

PREFIX = "harness:" if _RQ == "rq" else f"{_RQ}:harness:"
"""Prefix of all keys of this package, which follows RQ's own: applications with two RQ prefixes keep apart."""


def read(connection: Redis, key: str, *, prefix: str = PREFIX) -> str | None:
    """Return what is shared under the key, or None."""
    return _text(connection, f"{prefix}shared:{key}", key)


def replace(connection: Redis, key: str, before: str | None, after: str, *, prefix: str = PREFIX) -> bool:
    """Share *after* if *before* is what is shared now; one transaction under ``WATCH``.

    If only the answer is lost, this raises; a caller that tries again reads the shared value first.

    :raises RedisError: if the connection fails; it may be shared or not.
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
    """Return what a Redis key holds as text.

    :raises CorruptProgress: if it has another type, or is not UTF-8.
    """
    what = f"the shared record {key}"
    try:
        return plain_text(connection.get(name), what)
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        raise CorruptProgress(f"{what} has another type than text; it was left as it is") from error
