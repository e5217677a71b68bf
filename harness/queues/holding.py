"""Leases of a process on tickets, and the sweep for expired leases of other processes.

Each process has one thread that renews its leases, and each worker one that sweeps. Both end with their
process after any kind of exit, so a crash is noticed.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.queues import owners
from harness.queues.periodic import PeriodicThread, lease_seconds, recover_seconds, shown
from harness.stops import Flag
from harness.stores.watched import UNAVAILABLE

if TYPE_CHECKING:
    from harness.queues.tickets import Sending, Tickets

log = logging.getLogger("harness.queues")


CHECK_SECONDS = 1.0
"""Interval at which a worker checks for lost processes of its machine, in seconds."""


def new_owner() -> str:
    """Return a mark for one claim of this process: ``<machine> <pid>:<start> <random text>``.

    See :mod:`harness.queues.owners`; if the kernel does not provide these facts, the first part is ``-``.
    """
    process = owners.owner(None) or f"- {os.getpid()}:0"
    return f"{process} {secrets.token_hex(4)}"


def pid_of(owner: str) -> int | None:
    """Return the process id in a mark."""
    parts = owner.split(" ")
    pid = parts[1].partition(":")[0] if len(parts) == 3 else ""
    return int(pid) if pid.isdecimal() else None


class Held:
    """Leases of this process, renewed by a thread. A forked child has none of its parent's leases."""

    def __init__(self, tickets: Tickets) -> None:
        self._tickets = tickets
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._held: dict[tuple[str, str], tuple[Flag | None, Callable[[], bool]]] = {}
        self._forgotten: deque[tuple[str, str]] = deque()
        self._beat: PeriodicThread | None = None

    def add(
        self, job_id: str, owner: str, lost: Flag | None = None, owns: Callable[[], bool] = lambda: False
    ) -> None:
        """Renew a lease from now on.

        :param lost: set if the lease turns out to be lost.
        :param owns: asked then: it returns True if it has taken the lease again, because Redis has lost the ticket.
        """
        if self._pid != os.getpid():
            self._reset()
        with self._lock:
            self._held[job_id, owner] = (lost, owns)
            if self._beat is None or not self._beat.is_alive():
                self._beat = PeriodicThread(
                    f"harness-leases-{self._tickets.kind}", lease_seconds() / 4, self._renew
                )
                self._beat.start()

    def remove(self, job_id: str, owner: str) -> None:
        """Stop renewing a lease."""
        if self._pid == os.getpid():
            with self._lock:
                self._held.pop((job_id, owner), None)

    def forget(self, job_id: str, owner: str) -> None:
        """Stop renewing a lease from the next renewal on; the garbage collector may call this at any moment."""
        if self._pid == os.getpid():
            self._forgotten.append((job_id, owner))

    def close(self) -> None:
        """End the thread; the next lease starts another."""
        beat, self._beat = self._beat, None
        if beat is not None and self._pid == os.getpid():
            beat.close()

    def _renew(self) -> None:
        with self._lock:
            while self._forgotten:
                self._held.pop(self._forgotten.popleft(), None)
            held = list(self._held)
        if not held:
            return
        lost = self._tickets.renew(held)
        for pair in held:
            flag, owns = self._held.get(pair, (None, bool))
            if pair[1] not in lost or owns():
                continue
            with self._lock:
                self._held.pop(pair, None)
            if flag is not None:
                flag.set("lease lost")

    def _reset(self) -> None:
        self._pid, self._lock, self._held, self._beat = os.getpid(), threading.Lock(), {}, None
        self._forgotten = deque()


class Sweep:
    """Sends the jobs of due tickets again, in a thread of a worker.

    :param send: sends a message to the broker; the ticket is then confirmed.
    """

    def __init__(self, tickets: Tickets, send: Callable[[Sending], None]) -> None:
        self._tickets, self._send = tickets, send
        self._beat: PeriodicThread | None = None

    def start(self) -> None:
        """Sweep now and three times within the recovery time; check for lost processes more often.

        A worker calls this again after it lost and found its broker; its thread continues.
        """
        if self._beat is not None and self._beat.is_alive():
            return
        every = min(CHECK_SECONDS, recover_seconds() / 3)
        self._beat = PeriodicThread(f"harness-sweep-{self._tickets.kind}", every, self.turn, at_once=True)
        self._beat.start()

    def close(self) -> None:
        """End the thread."""
        if self._beat is not None:
            self._beat.close()

    def turn(self) -> list[str]:
        """Send the jobs that are due, and the jobs of lost processes on this machine; return their ids.

        Crash between the ticket and the message: the ticket is due again after a lease.
        """
        sent = []
        machine = owners.here()
        gone = [
            (job_id, owner)
            for job_id, owner in (self._tickets.held_now() if machine is not None else [])
            if owners.are_gone(owner.rpartition(" ")[0], machine or "")
        ]
        for job_id, owner in [*gone, *((job_id, "") for job_id in self._tickets.due())]:
            try:
                sending = self._tickets.take(job_id, owner)
                if sending is not None:
                    log.warning(
                        "job %s: its worker crashed or its message is missing; it is sent again", job_id
                    )
                    self.resend(sending)
                    sent.append(job_id)
            except UNAVAILABLE:
                raise  # Redis is away for all of them
            except Exception as error:  # noqa: BLE001 - depends on what is stored, and on the broker's client
                log.warning("job %s was not sent again: %s; a later sweep tries it", job_id, shown(error))
                self._tickets.put_off(job_id)
        return sent

    def resend(self, sending: Sending) -> None:
        """Send one message, and confirm it."""
        self._send(sending)
        self._tickets.sent(sending.job_id, sending.n)
