"""Journal entries for executions on Celery or Dramatiq, and the wait until a signal has reached the job.

The queue drops an outdated message without an execution. So an execution starts with the job's event, and ends when
the queue has finished the message.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from harness import events
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.lab.journal import Journal
    from harness.queues.ticketed import Queue

HEARD_SECONDS = 120.0
"""Time limit of the wait for a signal, in seconds."""
LOOK_SECONDS = 0.005


class Executions:
    """Subscriber that writes the starts of executions of this process; :meth:`end` writes their end."""

    def __init__(self, journal: Journal) -> None:
        self._journal, self._open = journal, False

    def __call__(self, event: events.Event) -> None:
        """Receive an event."""
        if isinstance(event, events.JobStarted | events.JobResumed):
            self._open = True
            self._journal.write("start")

    def end(self) -> None:
        """Write the end, if an execution has started."""
        if self._open:
            self._open = False
            self._journal.write("end")


def wait_for_shutdown(queue: Queue, seconds: float = 0.0) -> None:
    """Return *seconds* after a process has noticed that its worker exits.

    :raises HarnessError: if the process does not notice it.
    """
    sources = queue.stop_sources()
    until = time.monotonic() + HEARD_SECONDS
    while not any(source(None) for source in sources):  # type: ignore[arg-type]  # flags use no position
        if time.monotonic() > until:
            raise HarnessError(f"the worker did not hear of its signal within {HEARD_SECONDS:g} s")
        time.sleep(LOOK_SECONDS)
    time.sleep(seconds)
