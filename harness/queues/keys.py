"""Redis keys of this package's records about jobs, whatever their queue.

They start with ``harness:``, or with ``<prefix>:harness:`` if ``RQ_KEY_PREFIX`` changes RQ's own prefix: two
applications with different prefixes on one Redis then never touch each other's records.
"""

from __future__ import annotations

from harness.stores import shared

PREFIX = shared.PREFIX
"""Prefix of all keys."""

PROBE = PREFIX + "probe"
"""Key that never exists; it is read to check which commands a server knows."""


def history(job_id: str) -> str:
    """Return the key of the stream with the history of a job."""
    return f"{PREFIX}history:{job_id}"


def heartbeat(job_id: str) -> str:
    """Return the key of the latest heartbeat of a running job."""
    return f"{PREFIX}pulse:{job_id}"


def stop(job_id: str) -> str:
    """Return the key of a request to stop a job."""
    return f"{PREFIX}stop:{job_id}"


def control(job_id: str) -> str:
    """Return the key of a request to pause or cancel a job."""
    return f"{PREFIX}control:{job_id}"


def ticket(job_id: str) -> str:
    """Return the key of a job's ticket; see :mod:`harness.queues.tickets`."""
    return f"{PREFIX}ticket:{job_id}"


def due(kind: str) -> str:
    """Return the key of the sorted set of tickets of one kind of queue that are not over."""
    return f"{PREFIX}due:{kind}"


def over(kind: str, outcome: str) -> str:
    """Return the key of the sorted set of the latest tickets of one kind of queue with an outcome."""
    return f"{PREFIX}over:{kind}:{outcome}"


def workers(kind: str) -> str:
    """Return the key of the sorted set of workers of one kind of queue, by the time until which each is shown."""
    return f"{PREFIX}workers:{kind}"


def worker(kind: str, name: str) -> str:
    """Return the key of the record of such a worker."""
    return f"{PREFIX}worker:{kind}:{name}"
