"""Timer that wakes a job when a check of its stop sources is due, so that the job reads no clock for each item.

Each execution has one daemon thread. It starts when the first check is planned, and ends with the execution. The thread
never touches the job: it calls a function that stores one number. A forked child has no such thread; there the job
reads the clock.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
import weakref
from collections.abc import Callable
from threading import Event, Thread

SHORTEST = 0.05
"""Shortest wait for which a thread is worth its cost, in seconds; for shorter waits a job reads the clock."""

_LONGEST_WAIT = 1.0
"""Upper bound of one wait in seconds, so that a change of the system clock does not delay a check by more."""

_SIGNALS = {
    number
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGCHLD")
    if (number := getattr(signal, name, None)) is not None
}
"""Signals that must reach the main thread: their handlers run there, promptly only if it is interrupted."""

_tickers: weakref.WeakSet[Ticker] = weakref.WeakSet()


class Ticker:
    """Timer that calls *wake* at each time that :meth:`wake_at` has planned.

    :param wake: function that is safe in any thread; it is called again later if no new time was planned.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._due = self._waits_until = math.inf
        self._changed = Event()
        self._thread: Thread | None = None
        self.usable = not _cooperative()
        """False if no thread can be started: the job then has to read the clock."""

    def wake_at(self, due: float) -> bool:
        """Plan the next call for a time of ``time.monotonic``; return whether it will come."""
        self._due = due
        if self._thread is None:
            self._start()
        elif due < self._waits_until:
            self._changed.set()
        return self.usable

    def close(self) -> None:
        """End the thread, and wait for its end."""
        thread, self._thread, self.usable = self._thread, None, False
        if thread is not None:
            self._changed.set()
            thread.join(timeout=5)

    def forked(self) -> None:
        """Stop using the thread in a forked child, which has no such thread and whose locks may be locked."""
        self._thread, self.usable = None, False
        self._wake()

    def _start(self) -> None:
        if not self.usable:
            return
        thread = Thread(target=self._run, name="harness-ticker", daemon=True)
        try:
            with _blocked_signals():
                thread.start()
        except RuntimeError:  # no more threads, or the interpreter is about to end
            self.usable = False
            return
        self._thread = thread
        _tickers.add(self)

    def _run(self) -> None:
        while self.usable:
            self._waits_until = due = self._due
            left = due - time.monotonic()
            if left > 0:
                self._changed.wait(min(left, _LONGEST_WAIT))
            else:
                self._waits_until = math.inf  # before the call: the job may plan its next check immediately
                self._wake()
                self._changed.wait()
            self._changed.clear()


class _blocked_signals:  # noqa: N801 - reads as the state it is
    """Block signals, so that a thread started inside never receives any."""

    def __enter__(self) -> None:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS) if _MASKS else set()

    def __exit__(self, *_: object) -> None:
        if _MASKS:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)


_MASKS = hasattr(signal, "pthread_sigmask")


def _cooperative() -> bool:
    """Return whether threads are cooperative, as gevent and eventlet make them."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    return bool(
        (gevent is not None and gevent.is_module_patched("threading"))
        or (eventlet is not None and eventlet.is_monkey_patched("thread"))
    )


def _after_fork() -> None:
    for ticker in list(_tickers):
        ticker.forked()
    _tickers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
