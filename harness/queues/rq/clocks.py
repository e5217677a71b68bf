"""Clocks that differ: RQ uses the clock of each worker, this package uses the Redis server's clock.

RQ's maintenance fails a job as abandoned when the time in the started registry is past. The worker of the job
writes that time with its own clock, and the worker that cleans compares it with its own clock. If one of the
clocks is wrong, running jobs fail.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from rq.utils import as_text, current_timestamp, parse_composite_key

from harness.queues.rq.keys import LEASES
from harness.queues.rq.places import fetch, is_ours

if TYPE_CHECKING:
    from redis import Redis
    from rq import Queue

SPARED_SECONDS = 120
"""Seconds for which an execution is protected from RQ's maintenance, by the clock of the latter."""


def redis_now(connection: Redis) -> datetime:
    """Return the time of the Redis server's clock."""
    seconds, micros = connection.time()
    return datetime.fromtimestamp(seconds + micros / 1e6, UTC)


def spare(connection: Redis, queues: Iterable[Queue]) -> int:
    """Protect executions of this package from the clock of this worker; return their number.

    They have leases, and a sweep restores those whose lease has ended. Call it right before RQ's maintenance.
    Crash after it, or a lost answer: RQ's maintenance handles such an execution later, if nothing else has.
    An entry that was removed is not created again.
    """
    here = current_timestamp()
    spared = 0
    for queue in queues:
        key = queue.started_job_registry.key
        expired: list[Any] = connection.zrangebyscore(key, 0, here)
        if not expired:
            continue
        ends: list[Any] = connection.zmscore(LEASES, expired)
        held = [entry for entry, end in zip(expired, ends, strict=True) if end is not None and end < math.inf]
        # Other jobs get a lease too, until it is known that they do not belong to this package.
        ours = [entry for entry in held if _is_ours(connection, as_text(entry))]
        if ours:
            connection.zadd(key, dict.fromkeys(ours, here + SPARED_SECONDS), xx=True, gt=True)
            spared += len(ours)
    return spared


def _is_ours(connection: Redis, entry: str) -> bool:
    try:
        job = fetch(connection, parse_composite_key(entry)[0])
    except RedisError:
        raise
    except Exception:  # noqa: BLE001 - depends on what somebody has put there
        return False
    return job is not None and is_ours(job)
