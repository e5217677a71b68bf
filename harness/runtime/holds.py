"""Time limit for the end of an execution to wait for its progress store.

This module only decides. The caller waits, in a thread or a task.
"""

from __future__ import annotations

import math
from collections.abc import Callable

HOLD_SECONDS = 0.2
"""Seconds between two attempts to save while a job holds, and between two checks of its stop sources."""


class Patience:
    """Decides whether a save that found the store unreachable is tried again.

    :param seconds: time limit, from now on.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._clock, self._give_up = clock, clock() + seconds
        # A test's clock may not move.
        self._tries = math.ceil(min(seconds, 1e6) / HOLD_SECONDS)

    def is_over(self) -> bool:
        """Count a failed attempt, and return whether it was the last one."""
        self._tries -= 1
        return self._tries < 0 or self._clock() >= self._give_up
