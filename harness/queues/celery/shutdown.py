"""Shutdown of a Celery worker, reported to the jobs in its pool.

Celery's ``worker_shutting_down`` fires in the main process only, and the processes of the pool reset SIGTERM. So the
main process sets a byte of memory that it shares with its pool, and a stop source reads it. In a cold shutdown Celery
also sends SIGTERM to the pool: while a job runs, the signal means the same, and takes effect after the job has stopped.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

from harness.stops import Flag

if TYPE_CHECKING:
    from mmap import mmap
    from types import FrameType

    from harness.progress import Position

SECONDS = 0.05
"""Interval at which jobs read the byte, in seconds."""


class SharedFlag:
    """Stop source that processes of one worker share.

    :param memory: one byte, mapped before the pool is forked.
    """

    interval = SECONDS

    def __init__(self, memory: mmap) -> None:
        self._memory = memory

    def set(self) -> None:
        """Ask all jobs of the worker to stop."""
        self._memory[0] = 1

    def clear(self) -> None:
        """Withdraw the request."""
        self._memory[0] = 0

    def __call__(self, _: Position | None = None) -> str | None:
        """Return the reason to stop if the flag is set."""
        return "worker leaves" if self._memory[0] else None


class Termination:
    """SIGTERM of a process of the pool, held back while a job runs.

    :param flag: set when the signal comes.
    """

    def __init__(self, flag: Flag) -> None:
        self._flag, self._before, self._came = flag, None, False
        self._installed = False

    def hold(self) -> None:
        """Take the signal over, in a process of a pool; elsewhere Celery handles it."""
        from billiard.process import current_process  # noqa: PLC0415 - only workers have it loaded

        if (
            threading.current_thread() is not threading.main_thread()
            or current_process().name == "MainProcess"
        ):
            return
        self._before = signal.signal(signal.SIGTERM, self._handle)  # type: ignore[assignment]
        self._installed = True

    def release(self) -> None:
        """Give the signal back; if it came, it takes effect now."""
        if not self._installed:
            return
        self._installed = False
        signal.signal(signal.SIGTERM, self._before)
        self._flag.clear()
        if self._came:
            os.kill(os.getpid(), signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler
        self._came = True
        self._flag.set("worker leaves")
