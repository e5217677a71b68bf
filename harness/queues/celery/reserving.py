"""Leases on messages that a worker has received and not started.

A thread asks for them, several in one round trip, so that no message waits for Redis on its way to a process. Most
messages reach a process at once and need none: a timer of Celery's event loop passes only the others on, so that the
thread does not compete with the loop for the interpreter while a message is on its way. A worker without an event loop
leaves the delay to the thread.

A process of the pool may claim the job first; the lease is then not given. Crash before a lease is asked for,
:data:`DELAY_SECONDS` after the message came: the ticket still says that the job waits, and a copy of the message is
sent after the queue's stray time, unless the broker delivers it again.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
import weakref
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

from kombu.asynchronous import get_event_loop
from redis.exceptions import RedisError

from harness.queues.holding import new_owner
from harness.queues.periodic import shown
from harness.queues.turns import turn

if TYPE_CHECKING:
    from harness.queues.holding import Held
    from harness.queues.tickets import Tickets

DELAY_SECONDS = 0.01
"""Seconds that a process of the pool has for taking a message, before a lease is asked for."""

TIMER_SECONDS = 1.0
"""Seconds after which a timer that has not run is set again: Celery drops its timers when it resets its loop."""

log = logging.getLogger("harness.queues")

_Message: TypeAlias = "tuple[weakref.ref[Any], int]"
"""Request, and number of its ticket."""


class Reservations:
    """Leases on the messages of one process, taken by a thread and kept as long as Celery keeps the request.

    A message that Celery forgets is then sent again by a sweep.
    """

    def __init__(self, tickets: Tickets, held: Held) -> None:
        self._tickets, self._held = tickets, held
        self._asked: SimpleQueue[list[_Message] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._arrived: list[_Message] = []
        self._timer_at = -math.inf

    def add(self, request: Any, n: int) -> None:
        """Ask for a lease on the message of a request, which has the number *n*."""
        if self._thread is None or self._pid != os.getpid() or not self._thread.is_alive():
            self._start()
        message = weakref.ref(request), n
        if (loop := get_event_loop()) is None:
            self._asked.put([message])
            return
        self._arrived.append(message)
        if (now := time.monotonic()) >= self._timer_at + TIMER_SECONDS:
            self._timer_at = now
            loop.call_later(DELAY_SECONDS, self._pass_on)

    def close(self) -> None:
        """End the thread, and wait for that."""
        self._pass_on()
        thread, self._thread = self._thread, None
        if thread is not None and self._pid == os.getpid():
            self._asked.put(None)
            thread.join(timeout=5)

    def _start(self) -> None:
        self._pid, self._asked = os.getpid(), SimpleQueue()
        self._arrived, self._timer_at = [], -math.inf
        self._thread = threading.Thread(target=self._run, name="harness-reservations", daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        """Have the thread ask for the leases of messages that no process has taken."""
        arrived, self._arrived, self._timer_at = self._arrived, [], -math.inf
        if waiting := [each for each in arrived if _waits(each[0]())]:
            self._asked.put(waiting)

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGALRM})
        asked = self._asked
        while True:
            batches = [asked.get()]
            if get_event_loop() is None:
                time.sleep(DELAY_SECONDS)
            while not asked.empty():
                batches.append(asked.get())
            with turn():
                self._reserve([each for batch in batches for each in batch or ()])
            if None in batches:
                return

    def _reserve(self, batch: list[_Message]) -> None:
        asked = [(found, message) for found, n in batch if (message := self._marked(found(), n)) is not None]
        if not asked:
            return
        try:
            given = self._tickets.received([message for _, message in asked])
        except RedisError as error:
            log.warning(
                "%d messages have no lease: %s; they are started all the same", len(asked), shown(error)
            )
            return
        for (found, (job_id, _, owner)), held in zip(asked, given, strict=True):
            if held:
                self._held.add(job_id, owner)
                if found() is None:  # it was forgotten in the meantime
                    self._held.remove(job_id, owner)

    def _marked(self, request: Any, n: int) -> tuple[str, int, str] | None:
        """Write the mark of a lease into a request, and return its id, number and mark; None if it needs no lease."""
        if not _waits(request):
            return None
        owner = request.reservation = new_owner()
        weakref.finalize(request, self._held.forget, request.id, owner).atexit = False
        return request.id, n, owner


def _waits(request: Any) -> bool:
    """Return whether no process has taken the message of a request; one that Celery has forgotten needs no lease."""
    return request is not None and request.worker_pid is None
