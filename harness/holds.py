"""Behaviour of an execution while its store of progress cannot be reached: hold at a checkpoint, save patiently.

Nothing is written here but by ``save``. Crash while a job holds, or while an end is tried again: the next execution
goes on from the latest save, and repeats what came after it.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from harness import events
from harness.errors import ProgressUnavailable
from harness.policy import read_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

HOLD_SECONDS = 0.2
"""Seconds between two tries to save while a job holds, and between two looks at its stop sources."""


class Holds:
    """The part of an execution that waits for its store."""

    job: Any
    job_id: str
    clock: Callable[[], float]
    _failing_since: float | None

    if TYPE_CHECKING:  # of Checkpoints

        @property
        def _name(self) -> str: ...
        @property
        def _deadline(self) -> float: ...

        def save(self, why: str) -> None:
            """Store the progress."""

        def save_on_the_way(self, why: str = "checkpoint") -> None:
            """Store the progress while the job is at work."""

        def interrupt(self, reason: str) -> None:
            """Stop here."""

        def _ask_sources(self) -> None: ...

    def save_patiently(self, why: str) -> None:
        """Save an end; while the store is unreachable, try again for the grace period.

        :raises ProgressUnavailable: if the store could not be reached in that time.
        :raises Superseded: if another execution has claimed the job since.
        """
        grace = read_seconds(self.job, "grace_period") or 0.0
        give_up, tries = self.clock() + grace, math.ceil(min(grace, 1e6) / HOLD_SECONDS)
        while True:
            try:
                self.save(why)
            except ProgressUnavailable as error:
                if tries <= 0 or self.clock() >= give_up:
                    raise
                if self._failing_since is None:
                    self._failing_since = self.clock()
                    events.emit(events.SaveFailed(self.job_id, self._name, error))
                tries -= 1
                time.sleep(HOLD_SECONDS)
            else:
                return

    def _hold(self) -> None:
        """Wait at this checkpoint until the progress is saved or the job is to stop.

        :raises Interrupt: then. The work since the latest save is saved by the end, or repeated.
        """
        while self._failing_since is not None:
            time.sleep(HOLD_SECONDS)
            if self.clock() >= self._deadline:
                self.interrupt("max_runtime")
            self._ask_sources()
            with suppress(ProgressUnavailable):
                self.save_on_the_way()
