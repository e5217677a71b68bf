"""Location of a job: in its queue, running, in one of RQ's registries, or nowhere.

A job's status is not enough: an application that saves an old copy of a job writes the status of that copy
too. So a status counts only together with its queue or registry.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.executions import ExecutionRegistry
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.serializers import JSONSerializer
from rq.utils import as_text

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

PERFORM = "harness.queues.rq.perform"
"""Name of the function in the queue; it stays the same if the function moves."""

UNKNOWN = "unknown_starts"
"""Field of an RQ job: number of workers in a row that did not know its class or its steps."""

TAKEN_OVER = "taken_over"
"""Field of an RQ job: number of executions in a row that were superseded without another owner."""

RATE_LIMITED, AT_WORK, SCHEDULED, QUEUED, DEQUEUED = (
    "rate limited",
    "at work",
    "scheduled",
    "queued",
    "dequeued",
)

_REGISTRIES = {
    JobStatus.FINISHED: "finished_job_registry", JobStatus.FAILED: "failed_job_registry",
    JobStatus.STOPPED: "failed_job_registry", JobStatus.CANCELED: "canceled_job_registry",
    JobStatus.DEFERRED: "deferred_job_registry", JobStatus.READY_TO_ENQUEUE: "ready_job_registry",
}  # fmt: skip
"""Registries that go with a status."""


def is_ours(job: RQJob) -> bool:
    """Return whether the RQ job belongs to this package; an unreadable one does not."""
    try:
        return job.func_name == PERFORM
    except Exception:  # noqa: BLE001 - depends on the serializer and on the stored bytes
        return False


def queue_of(job: RQJob) -> Queue:
    """Return the queue that the job came from."""
    return Queue(job.origin, connection=job.connection, serializer=JSONSerializer)


def fetch(connection: Redis, job_id: str) -> RQJob | None:
    """Return the RQ job, or None if there is none."""
    try:
        return RQJob.fetch(job_id, connection=connection, serializer=JSONSerializer)
    except NoSuchJobError:
        return None


def places_of(job: RQJob, *, entry: str | None = None, running: Iterable[str] = ()) -> set[str]:
    """Return the places of the job; empty if it is nowhere.

    :param entry: entry of RQ's started registry to ignore: its job is about to be requeued. :param running:
        entries of that registry that the caller has read; those of other jobs are ignored.
    """
    executions: Any = job.connection.zrange(ExecutionRegistry(job.id, job.connection).key, 0, -1)
    entries = {f"{job.id}:{as_text(each)}" for each in executions}
    own = {each for each in running if each.rpartition(":")[0] == job.id}
    where = Where(job, entry, (entries | own) - {entry or ""})
    with job.connection.pipeline(transaction=False) as pipeline:
        where.ask(pipeline)
        return where.read(pipeline.execute())


class Where:
    """Query for the places of a job, for a pipeline with many jobs.

    :param entry: entry of RQ's started registry to ignore. :param others: entries of the job's other
        executions, some of which may be in that registry. :ivar asked: number of commands that :meth:`ask`
        queued.
    """

    def __init__(self, job: RQJob, entry: str | None, others: set[str]) -> None:
        self._job, self._entry, self._others = job, entry, sorted(others)
        self._queue, self._status = queue_of(job), job.get_status(refresh=False)
        self._names: list[str] = []

    @property
    def asked(self) -> int:
        """Number of commands."""
        return len(self._names)

    def ask(self, pipeline: Pipeline) -> None:
        """Queue the commands."""
        queue, job_id = self._queue, self._job.id
        registry = _REGISTRIES.get(self._status)
        pipeline.zscore(queue.scheduled_job_registry.key, job_id)
        self._names = [SCHEDULED]
        if registry is not None:
            pipeline.zscore(getattr(queue, registry).key, job_id)
            self._names.append(str(self._status.value))
        # If its entry says that a job is running, the queue, which may be long, is not searched. If the job
        # is there too, its second execution finds nothing to do.
        if self._entry is None or self._status != JobStatus.STARTED:
            pipeline.lpos(queue.key, job_id)
            self._names.append(QUEUED)
        if self._entry is None:
            pipeline.lpos(queue.intermediate_queue_key, job_id)
            self._names.append(DEQUEUED)
        if self._others:
            pipeline.zmscore(queue.started_job_registry.key, self._others)
            self._names.append(AT_WORK)

    def read(self, answers: list[Any]) -> set[str]:
        """Return the places in the answers."""
        places = {
            name
            for name, answer in zip(self._names, answers, strict=True)
            if answer is not None and (name != AT_WORK or any(score is not None for score in answer))
        }
        return places | ({RATE_LIMITED} if self._status == JobStatus.RATE_LIMITED else set())
