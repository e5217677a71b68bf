"""Periodic threads, and the intervals of leases and sweeps."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
from collections.abc import Callable

from redis.exceptions import RedisError

from harness.boundary.texts import bounded, told
from harness.errors import UsageError
from harness.queues.turns import turn

SETTING, DEFAULT_SECONDS = "HARNESS_RECOVER_SECONDS", 15.0

SHOWN_BYTES = 200
"""Limit of a name in a log line."""

log = logging.getLogger("harness.queues")


def shown(value: bytes | str | BaseException) -> str:
    """Return a name or an error for the log: one line, without control characters, of limited length."""
    if isinstance(value, BaseException):
        value = told(value)
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    text = text[: 2 * SHOWN_BYTES]
    return bounded("".join(each if each.isprintable() else ascii(each)[1:-1] for each in text), SHOWN_BYTES)


def recover_seconds() -> float:
    """Return the seconds within which the job of a crashed worker is requeued.

    The setting is in the environment, so that it reaches ``rq worker``, its pools and its work horses. It
    must be the same for all workers on one Redis.

    :raises UsageError: if ``HARNESS_RECOVER_SECONDS`` is not a number of seconds.
    """
    text = os.environ.get(SETTING)
    if text is None:
        return DEFAULT_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(f"{SETTING} takes seconds over 0, such as 15; got {text!r}")
    return seconds


def lease_seconds() -> float:
    """Return the duration of a lease, short enough that the sweep after its expiry is in time."""
    return recover_seconds() * 2 / 3


class PeriodicThread(threading.Thread):
    """Periodic thread, until it is closed; it logs an error once while the error lasts.

    Signals never go to it: a handler runs in the main thread, and only a signal to that thread interrupts it
    quickly.

    :param action: called each time; if it returns True, it is called again immediately.
    :param at_once: whether to call the action before the first interval.
    """

    def __init__(
        self, name: str, seconds: float, action: Callable[[], object], *, at_once: bool = False
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._seconds, self._action, self._end = seconds, action, threading.Event()
        self._wait = 0.0 if at_once else seconds
        self._failing = ""

    @property
    def closing(self) -> bool:
        """True if it is being closed; a long action should then return."""
        return self._end.is_set()

    def run(self) -> None:
        """Call the action until the thread is closed."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGALRM})
        while not self._end.wait(self._wait):
            self._wait = self._seconds
            try:
                with turn():
                    again = self._action() is True
                self._wait = 0.0 if again else self._seconds
                self._failing = ""
            except Exception as error:  # noqa: BLE001 - keeps the thread alive, whatever is stored in Redis
                self._log(error)

    def close(self) -> None:
        """End it, and wait for that."""
        self._end.set()
        self.join(timeout=5)

    def _log(self, error: Exception) -> None:
        kind = type(error).__name__
        if kind == self._failing:
            return
        self._failing = kind
        if isinstance(error, RedisError):
            log.warning("%s: %s; it will be tried again", self.name, shown(error))
        else:
            log.error("%s failed; it will be tried again", self.name, exc_info=error)
