"""Periodic threads, and the intervals of leases and sweeps."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable

from redis.exceptions import RedisError

from harness.boundary.texts import bounded, error_text
from harness.errors import UsageError
from harness.queues.turns import turn

SETTING, DEFAULT_SECONDS = "HARNESS_RECOVER_SECONDS", 15.0

CLOSE_SECONDS = 5.0
"""Limit of the time that the end of a thread, or of its work, is waited for."""

SHOWN_BYTES = 200
"""Limit of a name in a log line."""

log = logging.getLogger("harness.queues")


def shown(value: bytes | str | BaseException) -> str:
    """Return a name or an error for the log: one line, without control characters, of limited length."""
    if isinstance(value, BaseException):
        value = error_text(value)
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

    It receives no signals: a handler runs in the main thread, and only a signal to that thread interrupts it
    quickly.

    :param action: called each time; if it returns True, it is called again immediately.
    :param at_once: whether to call the action before the first interval.
    """

    def __init__(
        self, name: str, seconds: float, action: Callable[[], object], *, at_once: bool = False
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._seconds, self._action = seconds, action
        self._end, self._woken = False, threading.Event()
        self._wait = 0.0 if at_once else seconds
        self._failing = ""

    @property
    def closing(self) -> bool:
        """True if it is being closed, so that a long action should return."""
        return self._end

    def wake(self) -> None:
        """Call the action now."""
        self._woken.set()

    def run(self) -> None:
        """Call the action until the thread is closed."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGALRM})
        while not self._end:
            self._woken.wait(self._wait)
            self._woken.clear()
            if self._end:
                return
            self._wait = self._seconds
            try:
                with turn():
                    again = self._action() is True
                self._wait = 0.0 if again else self._seconds
                self._failing = ""
            except Exception as error:  # noqa: BLE001 - an error must not end the thread
                self._log(error)

    def close(self) -> None:
        """End it, and wait for that."""
        self._end = True
        self._woken.set()
        self.join(timeout=CLOSE_SECONDS)

    def _log(self, error: Exception) -> None:
        kind = type(error).__name__
        if kind == self._failing:
            return
        self._failing = kind
        if isinstance(error, RedisError):
            log.warning("%s: %s; it will be tried again", self.name, shown(error))
        else:
            log.error("%s failed; it is tried again", self.name, exc_info=error)


class Heartbeats:
    """Actions of a process that one thread repeats, instead of one thread each.

    :param name: of the thread. :param seconds: between two calls of an action.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self._name, self._seconds = name, seconds
        self._thread: PeriodicThread | None = None
        self._reset()

    def add(self, action: Callable[[], object], *, at_once: bool = False) -> None:
        """Call an action from the next turn of the thread on, after an interval at most; :meth:`wake` asks for one.

        :param at_once: wake the thread now. It then competes with the caller for the interpreter.
        """
        if self._pid != os.getpid():  # a forked child has no such thread, and perhaps a locked lock
            self._reset()
        with self._lock:
            self._due[action] = 0.0
            if self._thread is None or not self._thread.is_alive():
                self._thread = PeriodicThread(self._name, self._seconds, self._turn, at_once=at_once)
                self._thread.start()
            elif at_once:
                self._thread.wake()

    def wake(self) -> None:
        """Call the actions that are due now."""
        if self._thread is not None and self._pid == os.getpid():
            self._thread.wake()

    def remove(self, action: Callable[[], object]) -> None:
        """Stop calling an action, and wait for a running call."""
        self._due.pop(action, None)
        if self._calling.acquire(timeout=CLOSE_SECONDS):
            self._calling.release()

    def close(self) -> None:
        """End the thread."""
        thread, self._thread = self._thread, None
        if thread is not None and self._pid == os.getpid():
            thread.close()

    def _reset(self) -> None:
        self._pid, self._lock, self._calling = os.getpid(), threading.Lock(), threading.Lock()
        self._thread = None
        self._due: dict[Callable[[], object], float] = {}

    def _turn(self) -> None:
        now = time.monotonic()
        failure: Exception | None = None
        for action, due in list(self._due.items()):
            if due > now:
                continue
            with self._calling:
                if self._due.get(action) != due:
                    continue  # removed
                self._due[action] = now + self._seconds
                try:
                    action()
                except Exception as error:  # noqa: BLE001 - the thread logs it; the other actions go on
                    failure = error
        if failure is not None:
            raise failure


class Waking:
    """Stop source that never stops a job: it wakes the thread of the heartbeats at the job's first checkpoint."""

    interval = math.inf

    def __init__(self, heartbeats: Heartbeats) -> None:
        self._heartbeats: Heartbeats | None = heartbeats

    def __call__(self, _: object = None) -> None:
        """Wake it once."""
        heartbeats, self._heartbeats = self._heartbeats, None
        if heartbeats is not None:
            heartbeats.wake()
