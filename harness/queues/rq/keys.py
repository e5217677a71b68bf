"""Redis keys of this package's records about RQ jobs.

They start with ``harness:``, or with ``<prefix>:harness:`` if ``RQ_KEY_PREFIX`` changes RQ's own prefix: two
applications that share a Redis under two prefixes then never touch each other's leases.
"""

from __future__ import annotations

from harness.queues.keys import PREFIX, PROBE, control, history, pulse, stop

__all__ = [
    "DELAYED", "ENDED", "LEASES", "OPEN", "PREFIX", "PROBE", "STRAYS", "SWEEPING", "SWEEP_LOCK", "control", "history",
    "pulse", "stop",
]  # fmt: skip

LEASES = PREFIX + "leases"
"""Sorted set of executions; the score is the time the lease ends, in seconds of the Redis server's clock."""

OWNERS = PREFIX + "owners"
"""Hash of the processes at work on each execution (:mod:`harness.queues.owners`)."""

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
