"""Durations in job classes: seconds, or a ``timedelta``."""

from __future__ import annotations

from datetime import timedelta
from numbers import Real
from typing import Any

LONGEST = 10 * 365 * 24 * 3600.0
"""Maximum delay in seconds, ten years: a longer one is a mistake, and no queue could schedule it."""


def in_seconds(value: Any) -> float | None:
    """Return a number of seconds or a ``timedelta`` as seconds; None for everything else, such as a bool or NaN."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if seconds == seconds else None  # noqa: PLR0124 - NaN is not equal to itself
