"""Redis keys of this package's records about RQ jobs.

They start with ``harness:``, or with ``<prefix>:harness:`` if ``RQ_KEY_PREFIX`` changes RQ's own prefix: two
applications that share a Redis under two prefixes then never touch each other's leases.
"""

from __future__ import annotations

from harness.stores import shared

PREFIX = shared.PREFIX
"""Prefix of all keys."""

LEASES = PREFIX + "leases"
"""Sorted set of executions; the score is the time the lease ends, in seconds of the Redis server's clock."""

OWNERS = PREFIX + "owners"
"""Hash of the processes at work on each execution (:mod:`harness.queues.rq.owners`)."""

OPEN = PREFIX + "open"
"""Sorted set of jobs that are not over; the score is the time when :mod:`harness.queues.rq.strays` looks next."""

ENDED = PREFIX + "ended"
"""Sorted set of jobs that ended a short while ago; the score is the time of the end, in seconds."""

STRAYS = PREFIX + "strays"
"""Sorted set of jobs found in no queue and no registry; the score is the time, in seconds, of the first look."""

DELAYED = PREFIX + "delayed"
"""Sorted set of jobs that wait for a delay to pass; the score is the time when they are due."""

SWEEP_LOCK = PREFIX + "sweep"
"""Lock of the worker that sweeps."""

SWEEPING = PREFIX + "sweeping"
"""Key that exists while a worker of this package, or ``harness recover``, looks for crashed executions."""

PROBE = PREFIX + "probe"
"""Key that is read to learn which commands a server knows; it never exists."""


def history(job_id: str) -> str:
    """Return the key of the stream with the history of a job."""
    return f"{PREFIX}history:{job_id}"


def pulse(job_id: str) -> str:
    """Return the key of the latest state a running job has published."""
    return f"{PREFIX}pulse:{job_id}"


def stop(job_id: str) -> str:
    """Return the key of a request to stop a job."""
    return f"{PREFIX}stop:{job_id}"


def control(job_id: str) -> str:
    """Return the key of a request to pause or cancel a job."""
    return f"{PREFIX}control:{job_id}"
