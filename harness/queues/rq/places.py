"""Where a job is: in its queue, at work, in one of RQ's registries, or nowhere.

What a job's status says is not enough: an application that saves an old copy of a job writes the status of that copy
too. So a status counts only together with the queue or registry that goes with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.executions import ExecutionRegistry
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.serializers import JSONSerializer
from rq.utils import as_text

if TYPE_CHECKING:
    from redis import Redis

PERFORM = "harness.queues.rq.perform"
"""What is enqueued: a name that stays, wherever the function is."""

UNKNOWN = "unknown_starts"
"""Field of an RQ job: how many workers in a row did not know its class or its steps."""

TAKEN_OVER = "taken_over"
"""Field of an RQ job: how many executions in a row were superseded without another having the job."""

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
    """Return whether the RQ job is one of this package's; one whose data cannot be read is not."""
    try:
        return job.func_name == PERFORM
    except Exception:  # noqa: BLE001 - depends on the serializer, and on what somebody has put there
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
    """Return where the job is; empty if it is nowhere.

    :param entry: an execution that does not count, as in RQ's started registry: its job is about to be put back.
    :param running: entries of that registry the caller has seen; those of other jobs do not count.
    """
    connection, queue, status = job.connection, queue_of(job), job.get_status(refresh=False)
    registry = _REGISTRIES.get(status)
    # A job whose entry says that it is at work is not looked for in its queue, which may be long. Should it be there
    # as well, it is there twice, and the second execution finds nothing to do.
    looked_for = entry is None or status != JobStatus.STARTED
    with connection.pipeline(transaction=False) as pipeline:
        pipeline.zrange(ExecutionRegistry(job.id, connection).key, 0, -1)
        pipeline.zscore(queue.scheduled_job_registry.key, job.id)
        if registry is not None:
            pipeline.zscore(getattr(queue, registry).key, job.id)
        if looked_for:
            pipeline.lpos(queue.key, job.id)
        if entry is None:
            pipeline.lpos(queue.intermediate_queue_key, job.id)
        executions, scheduled, *rest = pipeline.execute()
    places = set()
    if scheduled is not None:
        places.add(SCHEDULED)
    if status == JobStatus.RATE_LIMITED:
        places.add(RATE_LIMITED)
    if registry is not None and rest.pop(0) is not None:
        places.add(str(status.value))
    if looked_for and rest.pop(0) is not None:
        places.add(QUEUED)
    if rest and rest.pop(0) is not None:
        places.add(DEQUEUED)
    entries = {f"{job.id}:{as_text(each)}" for each in executions} | set(running)
    if _registered(connection, queue, job.id, entries - {entry}):
        places.add(AT_WORK)
    return places


def _registered(connection: Redis, queue: Queue, job_id: str, entries: set[str]) -> bool:
    """Return whether one of the executions of a job is in the started registry."""
    own = [each for each in entries if each.rpartition(":")[0] == job_id]
    if not own:
        return False
    return any(score is not None for score in connection.zmscore(queue.started_job_registry.key, own))
