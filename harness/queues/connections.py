"""Checks of Redis connections that a caller passes.

A connection with ``decode_responses=True`` cannot read RQ's jobs, which are bytes. A job that cannot be read looks
like a plain job, so a sweep would not restore it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.exceptions import ResponseError

from harness.errors import UsageError
from harness.queues import keys

if TYPE_CHECKING:
    from redis import Redis

OLDEST = "6.2"
"""The oldest Redis that has GETDEL, LMOVE and ZADD with GT."""


def check_connection(connection: Redis) -> None:
    """Refuse a connection that cannot read RQ's jobs.

    :raises UsageError: if it has ``decode_responses=True``.
    """
    if connection.get_encoder().decode_responses:
        raise UsageError(
            "the Redis connection has decode_responses=True, but RQ keeps jobs as bytes; make another one without it, "
            "such as Redis.from_url(url)"
        )


def check_worker_connection(connection: Redis) -> None:
    """Refuse a connection that a worker cannot share with its threads and work horses.

    :raises UsageError: if it has ``decode_responses=True`` or ``single_connection_client=True``.
    """
    check_connection(connection)
    if connection.connection is not None:
        raise UsageError(
            "the Redis connection has single_connection_client=True: a worker and its work horse would share one "
            "socket; make another one without it"
        )


def check_server(connection: Redis) -> None:
    """Refuse a Redis that is too old for a worker.

    :raises UsageError: if the server is too old.
    """
    try:
        connection.getdel(keys.PROBE)
    except ResponseError as error:
        if "unknown command" not in str(error).lower():
            raise
        raise UsageError(
            f"this Redis is too old: it does not know GETDEL; use Redis {OLDEST} or newer, or Valkey"
        ) from error
