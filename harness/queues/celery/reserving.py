"""Leases on messages that a worker has received and not started.

A thread asks for them, several in one round trip, so that no message waits for Redis on its way to a process. Most
messages reach a process at once and need none.

A process of the pool may claim the job first; the lease is then not given. Crash before a lease is asked for,
:data:`DELAY_SECONDS` after the message came: the ticket still says that the job waits, and a copy of the message is
sent after the queue's stray time, unless the broker delivers it again.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import weakref
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from harness.queues.holding import new_owner
from harness.queues.periodic import shown
from harness.queues.turns import turn

if TYPE_CHECKING:
    from harness.queues.holding import Held
    from harness.queues.tickets import Tickets

DELAY_SECONDS = 0.01
"""Seconds that a process of the pool has for taking a message, before a lease is asked for."""

log = logging.getLogger("harness.queues")


class Reservations:
    """Leases on the messages of one process, taken by a thread and kept as long as Celery keeps the request.

    A message that Celery forgets is then sent again by a sweep.
    """

    def __init__(self, tickets: Tickets, held: Held) -> None:
        self._tickets, self._held = tickets, held
        self._asked: SimpleQueue[tuple[weakref.ref[Any], str, int, str] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pid = 0

    def add(self, request: Any, n: int) -> None:
        """Ask for a lease on the message of a request, which has the number *n*."""
        if self._thread is None or self._pid != os.getpid() or not self._thread.is_alive():
            self._start()
        owner = request.reservation = new_owner()
        weakref.finalize(request, self._held.forget, request.id, owner).atexit = False
        self._asked.put((weakref.ref(request), request.id, n, owner))

    def close(self) -> None:
        """End the thread, and wait for that."""
        thread, self._thread = self._thread, None
        if thread is not None and self._pid == os.getpid():
            self._asked.put(None)
            thread.join(timeout=5)

    def _start(self) -> None:
        self._pid, self._asked = os.getpid(), SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="harness-reservations", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGALRM})
        asked = self._asked
        while True:
            batch = [asked.get()]
            time.sleep(DELAY_SECONDS)
            while not asked.empty():
                batch.append(asked.get())
            with turn():
                self._reserve([each for each in batch if each is not None and _waits(each[0]())])
            if None in batch:
                return

    def _reserve(self, batch: list[tuple[weakref.ref[Any], str, int, str]]) -> None:
        if not batch:
            return
        try:
            given = self._tickets.received([each[1:] for each in batch])
        except RedisError as error:
            log.warning(
                "%d messages have no lease: %s; they are started all the same", len(batch), shown(error)
            )
            return
        for (request, job_id, _, owner), held in zip(batch, given, strict=True):
            if held:
                self._held.add(job_id, owner)
                if request() is None:  # it was forgotten in the meantime
                    self._held.remove(job_id, owner)


def _waits(request: Any) -> bool:
    """Return whether no process has taken the message of a request; one that Celery has forgotten needs no lease."""
    return request is not None and request.worker_pid is None
