"""Care of a worker for its work horse: renew the lease of the job, and end leftover child processes of the horse.

The horse renews its own lease in a thread. An item that holds the interpreter's lock for longer than a lease
stops that thread. The job would then count as crashed and start elsewhere. So the worker renews the lease
too, while the horse runs. It does not if the horse has ended or is stopped (SIGSTOP), because a stopped
process may never go on. If the worker is killed, the horse's own thread renews. A SimpleWorker has no second
process: there ``HARNESS_RECOVER_SECONDS`` must be longer than any such item.

A crashed horse may leave child processes that still work on the item. They are in its process group, and
the worker kills them before it requeues the job. Children that made a session or group of their own are out of reach,
and so are those of a horse that was killed together with its worker.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rq.worker import BaseWorker

from harness.queues.periodic import PeriodicThread, lease_seconds
from harness.queues.rq.leases import renew

if TYPE_CHECKING:
    from rq import Queue
    from rq.executions import Execution as RQExecution
    from rq.job import Job as RQJob


class Horses(BaseWorker):
    """Part of the workers that waits for a work horse."""

    _ours = False
    _renewed: tuple[str, str] | None = None
    """Registry and entry of the execution in the horse, if there is one."""

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """Work, with a thread that renews the lease of the running job."""
        beat = PeriodicThread("harness-horse-lease", lease_seconds() / 4, self._renew)
        beat.start()
        try:
            return super().work(*args, **kwargs)
        finally:
            beat.close()

    def monitor_work_horse(self, job: RQJob, queue: Queue, execution: RQExecution) -> None:
        """Wait for the horse."""
        if self._ours:
            self._renewed = job.started_job_registry.key, execution.composite_key
        try:
            super().monitor_work_horse(job, queue, execution)  # type: ignore[misc]  # of RQ's workers that have horses
        finally:
            self._renewed = None

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """Wait until the horse ends; if it crashed, kill its children before its end is reported.

        Its process group keeps its number until the horse is reaped, so no other group can be hit.
        """
        horse = self.horse_pid
        with suppress(ChildProcessError):
            ended = os.waitid(os.P_PID, horse, os.WEXITED | os.WNOWAIT)
            if self._ours and ended is not None and (ended.si_code != os.CLD_EXITED or ended.si_status):
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(horse, signal.SIGKILL)
        return super().wait_for_horse()

    def _renew(self) -> None:
        renewed = self._renewed
        if renewed is not None and _runs(self.horse_pid):
            renew(self.connection, *renewed)


def _runs(pid: int) -> bool:
    """Return whether a child process has neither ended nor been stopped, without reaping it."""
    try:
        state = os.waitid(os.P_PID, pid, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return state is None
