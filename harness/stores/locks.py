"""Time limit of a store's statement that waits for another transaction's row lock on PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from harness.errors import ProgressLocked, UsageError
from harness.runtime.durations import in_seconds

LOCK_TIMEOUT = 10.0
"""Default time limit of a wait for the lock on a job's row, in seconds.

It is longer than a commit, and shorter than the usual 30 s between SIGTERM and SIGKILL: a worker that waits
in a claim still exits in time.
"""

LOCK_NOT_AVAILABLE = "55P03"
"""SQLSTATE of a statement that PostgreSQL ended after ``lock_timeout``."""

LONGEST_LOCK_TIMEOUT = (2**31 - 1) / 1000
"""Limit of PostgreSQL's ``lock_timeout``, in seconds."""


def locked(key: str) -> ProgressLocked:
    """Return the error about a row that another transaction has locked for too long."""
    return ProgressLocked(
        f"the progress of job {key} is locked by another transaction for longer than lock_timeout; run the "
        "job again later (the queues of this package do); if it happens again, end the frozen worker that "
        "holds the lock, or let PostgreSQL's idle_in_transaction_session_timeout end its connection"
    )


def is_locked(error: DBAPIError) -> bool:
    """Return whether PostgreSQL ended a statement because it waited too long for a lock, with any driver."""
    original: Any = error.orig
    # pg8000 has the SQLSTATE only in the arguments of its error.
    fields = original.args[0] if original is not None and original.args else None
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    return (state or (fields.get("C") if isinstance(fields, dict) else None)) == LOCK_NOT_AVAILABLE


def bound(lock_timeout: float | timedelta) -> sa.ColumnElement[bool]:
    """Return a condition that is always true, and limits the statement's lock waits when it is evaluated.

    It needs no extra round trip: PostgreSQL evaluates it for the row before it locks the row. An engine's own
    ``lock_timeout`` is kept.

    :raises UsageError: if PostgreSQL does not accept the time.
    """
    # Literals: as parameters, these constants would be sent with each save.
    name: sa.ColumnElement[str] = sa.literal_column("'lock_timeout'")
    milliseconds = _milliseconds(lock_timeout)
    return sa.or_(
        sa.func.current_setting(name) != sa.literal_column("'0'"),
        sa.func.set_config(name, sa.literal_column(f"'{milliseconds:d}'"), sa.true()).is_not(None),
    )


def _milliseconds(lock_timeout: Any) -> int:
    seconds = in_seconds(lock_timeout)
    if seconds is None or not 0.001 <= seconds <= LONGEST_LOCK_TIMEOUT:
        raise UsageError(
            f"got lock_timeout={lock_timeout!r}; use seconds from 0.001 to {LONGEST_LOCK_TIMEOUT:.0f}, or a timedelta"
        )
    return round(seconds * 1000)
