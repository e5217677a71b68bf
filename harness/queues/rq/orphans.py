"""Stop source of a work horse whose worker was killed and can no longer pass on a signal.

On Linux a thread waits for the end of the worker and wakes the job, which stops at its next checkpoint. The thread
holds a descriptor of the worker's process (``pidfd_open``). Two alternatives have disadvantages:

* ``PR_SET_PDEATHSIG`` sends a signal when the *thread* that forked ends, interrupts whatever the item waits for, and
  needs a signal that no job uses;
* a pipe from the worker stays open as long as any process has inherited its end, such as RQ's scheduler, which outlives
  the worker.

If the kernel has no such descriptor, or a sandbox forbids it, the job checks once a second.
"""

from __future__ import annotations

import os
import select
import signal
import threading

from harness.progress import Position
from harness.queues.turns import turn
from harness.stops import Flag

REASON = "worker died"


class Orphaned(Flag):
    """Stops a job when the worker of its process has ended.

    :param parent: pid of the worker; None for a process without a worker to wait for.
    """

    interval = 1.0

    def __init__(self, parent: int | None) -> None:
        super().__init__()
        self.parent = parent
        self._thread: threading.Thread | None = None
        self._closing: int | None = None

    def __call__(self, at: Position | None = None) -> bool | str:
        """Return the reason to stop if the parent is another process, and wake the job."""
        if self.parent is not None and os.getppid() != self.parent and not super().__call__(at):
            self.set(REASON)
        return super().__call__(at)

    def watch(self) -> None:
        """Wait for the end of the worker in a thread, if the system supports it."""
        if self.parent is None:
            return
        try:
            worker = os.pidfd_open(self.parent)
        except (AttributeError, OSError):  # not Linux, an old kernel, a sandbox, or the worker is gone
            self()
            return
        if self():  # it ended before, and the descriptor is of another process
            os.close(worker)
            return
        self._closing = os.eventfd(0)
        self._thread = threading.Thread(
            target=self._wait, args=(worker, self._closing), name="harness-orphaned", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        if self._thread is None or self._closing is None:
            return
        os.eventfd_write(self._closing, 1)
        self._thread.join(timeout=5)
        self._thread = self._closing = None

    def _wait(self, worker: int, closing: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGALRM})
        try:
            poll = select.poll()
            for each in (worker, closing):
                poll.register(each, select.POLLIN)
            if worker in dict(poll.poll()):
                with turn():
                    self.set(REASON)
        finally:
            os.close(worker)
            os.close(closing)
