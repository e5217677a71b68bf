"""Explored jobs on RQ: with fakeredis as the broker, and RQ's own worker in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from rq import Queue, Retry, SimpleWorker
from rq.job import JobStatus
from rq.timeouts import BaseDeathPenalty

from harness import errors
from harness.explore.crash import current, living
from harness.explore.queued import QueuedTarget
from harness.explore.redis_tables import EXPLORED
from harness.explore.targets import counts_executions
from harness.explore.trials import RETRIES
from harness.queues.rq import enqueue

if TYPE_CHECKING:
    from rq.job import Job as RQJob

    from harness.explore.external_state import ExternalState
    from harness.explore.versions import Versions


class NoPenalty(BaseDeathPenalty):
    """Timeout without an alarm: the explorer has its own limit, and a frozen worker is not in the main thread."""

    def setup_death_penalty(self) -> None:
        """Set none."""

    def cancel_death_penalty(self) -> None:
        """Cancel none."""


class Worker(SimpleWorker):
    """RQ's worker without signals and without a thread for commands, which need a separate process."""

    death_penalty_class = NoPenalty

    def subscribe(self) -> None:
        """Open no command channel."""

    def unsubscribe(self) -> None:
        """Close no command channel."""

    def _install_signal_handlers(self) -> None:
        """Leave the signals to the explorer."""


class RQTarget(QueuedTarget):
    """Job or function enqueued on RQ; after a crash it is put into its queue again.

    That is what RQ's cleanup of its registry of started jobs does, some minutes later.
    """

    def __init__(
        self, versions: Versions, args: tuple[Any, ...], kwargs: dict[str, Any], redis: str | None = None
    ) -> None:
        super().__init__(versions, redis)
        job = versions.old
        self.counts_executions = self.documented and counts_executions(job)
        self._queue = Queue("explored", connection=self._connection, serializer="json")
        self._job: RQJob
        job_id = f"{EXPLORED.decode()}{uuid4()}"
        if self.documented:
            self._job = enqueue(self._queue, job, *args, options={"timeout": -1, "job_id": job_id}, **kwargs)
        else:
            self._job = self._queue.enqueue_call(
                job, args=args, kwargs=kwargs, retry=Retry(max=RETRIES), timeout=-1, job_id=job_id
            )

    def attempt(self, external: ExternalState, *, deployed: bool = False) -> bool:
        """Let a worker run the job once."""
        del external
        simulated = current()
        with living(None):
            self._put_back()
        with living(simulated), self.versions.deployed(deployed), self._set():
            worker = Worker([self._queue], connection=self._connection, serializer="json")
            worker.log_job_description = False
            worker.work(burst=True, max_jobs=1)
        with living(None):
            status = self._job.get_status(refresh=True)
            if status == JobStatus.FAILED and not (simulated and simulated.dead):
                result = self._job.latest_result()
                raise _error(str(result.exc_string if result else "failed").strip().splitlines()[-1])
            return status in {JobStatus.FINISHED, JobStatus.CANCELED}

    def _put_back(self) -> None:
        """Move the job to the front of its queue, from wherever a crashed worker or a delay left it.

        Jobs that it enqueued there come after it, because the next execution must be its own.
        """
        waiting = self._queue.get_job_ids()
        if waiting and waiting[0] == self._job.id:
            return
        self._queue.remove(self._job.id)
        for registry in (self._queue.started_job_registry, self._queue.scheduled_job_registry):
            registry.connection.zrem(registry.key, self._job.id)
        self._job.refresh()
        self._queue._enqueue_job(self._job, at_front=True)  # noqa: SLF001 - RQ's own registries do the same


def _error(line: str) -> Exception:
    """Return the error in the last line of a traceback."""
    name, _, message = line.partition(": ")
    kind = getattr(errors, name.rpartition(".")[2], None) if name.startswith(errors.__name__) else None
    if isinstance(kind, type) and issubclass(kind, errors.HarnessError):
        return kind(message)
    return RuntimeError(line)
