"""Redis keys of this package's records about RQ jobs.

They start with ``harness:``, or with ``<prefix>:harness:`` if ``RQ_KEY_PREFIX`` changes RQ's own prefix: two
applications with different prefixes on one Redis then never touch each other's leases.
"""

from __future__ import annotations

from harness.queues.keys import PREFIX, PROBE, control, heartbeat, history, stop

__all__ = [
    "DELAYED", "ENDED", "LEASES", "OPEN", "PREFIX", "PROBE", "STRAYS", "SWEEPING", "SWEEP_LOCK", "control", "heartbeat",
    "history", "stop",
]  # fmt: skip

LEASES = PREFIX + "leases"
"""Sorted set of executions; the score is the expiry of the lease, in seconds of the Redis server's clock."""

OWNERS = PREFIX + "owners"
"""Hash of the processes of each execution (:mod:`harness.queues.owners`)."""

OPEN = PREFIX + "open"
"""Sorted set of unfinished jobs; the score is the time of the next check by :mod:`harness.queues.rq.strays`."""

ENDED = PREFIX + "ended"
"""Sorted set of jobs that ended recently; the score is the time of the end, in seconds."""

STRAYS = PREFIX + "strays"
"""Sorted set of jobs found in no queue and no registry; the score is the time of the first check, in seconds."""

DELAYED = PREFIX + "delayed"
"""Sorted set of jobs that wait for a delay to pass; the score is the time when they are due."""

SWEEP_LOCK = PREFIX + "sweep"
"""Lock of the worker that sweeps."""

SWEEPING = PREFIX + "sweeping"
"""Key that exists while a worker of this package, or ``harness recover``, checks for crashed executions."""
