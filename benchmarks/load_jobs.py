"""Job of the load test."""

from __future__ import annotations

from typing import Any

from harness import Enumerator, IterationJob, times


class Few(IterationJob):
    """Does ten items that take no time."""

    def build_enumerator(self, *, cursor: Any) -> Enumerator[int]:
        """Count to ten."""
        return times(10, cursor=cursor)

    def each_iteration(self, index: int) -> None:
        """Do nothing."""
