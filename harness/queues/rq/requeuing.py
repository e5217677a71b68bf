"""Requeue a job that is over, with its progress: at its cursor, or rewound to an earlier position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import WatchError
from rq.job import JobStatus

from harness.errors import UsageError
from harness.job import find
from harness.queues.connections import check_connection
from harness.queues.rewinding import move_back, revive
from harness.queues.rq import requests, strays
from harness.queues.rq.instances import enqueue_of
from harness.queues.rq.keys import OPEN
from harness.queues.rq.leases import DEAD_STARTS
from harness.queues.rq.places import UNKNOWN, fetch, is_ours, places_of, queue_of
from harness.queues.rq.submit import INSTANCES
from harness.sources.parallel import SliceTable
from harness.stores.rq_meta import RQMetaStore

if TYPE_CHECKING:
    from redis import Redis
    from rq.job import Job as RQJob

    from harness.progress import Progress, Store

GOES_ON = {JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED}
"""Statuses of jobs that can be requeued."""

ENDED = GOES_ON | {JobStatus.FINISHED}
"""Statuses of jobs that can be rewound or forked."""

_OVER = {str(status.value) for status in strays.OVER}


def requeue(connection: Redis, job_id: str, *, at_front: bool = False) -> RQJob:
    """Requeue a job that failed, was stopped or was cancelled; it resumes at its cursor.

    It is the same enqueue, so the same round of the job. Pending requests to cancel, pause or stop it are
    deleted. Cancelled progress is first saved as interrupted, because otherwise the next execution would end
    immediately. A crash after that: the job is still cancelled in RQ, and a second call does the rest. Then
    one transaction requeues it, only if the job is unchanged. A crash after it, or a lost answer: the job is
    in its queue, and a second call says that it is not over.

    :raises UsageError: if there is no such job, it is not one of this package's, it is not over, it has
        finished, or another round of it is running.
    """
    check_connection(connection)
    found = fetch(connection, job_id)
    if found is not None:
        _check(connection, found, GOES_ON)
        _revive(connection, found)
    return _put_back(connection, job_id, GOES_ON, at_front=at_front)


def rewind(
    connection: Redis, job_id: str, *, step: str | None = None, cursor: Any = None, at_front: bool = False
) -> RQJob:
    """Requeue a job that is over, even a finished one, to repeat it from an earlier position.

    Attributes, counts and quarantined items are kept. Hooks of the end run again. Effects happen a second
    time, which the caller must allow.

    The progress is saved first. A crash after that: the job is still over in RQ, and a second call does the rest.
    Then one transaction requeues it, as :func:`requeue` does.

    :param step: name of a completed step, or of the one in progress; None for an iteration job.
    :param cursor: cursor in that step, or of the iteration: the work continues after it. None is the beginning.
    :raises UsageError: as :func:`requeue`, if it has no progress or is parallel, and if it has not reached that step.
    :raises CursorError: for a cursor that is no JSON value.
    """
    _, store, progress = set_back(connection, job_id, step, cursor)
    store.save(progress)
    return _put_back(connection, job_id, ENDED, at_front=at_front)


def set_back(connection: Redis, job_id: str, step: str | None, cursor: Any) -> tuple[RQJob, Store, Progress]:
    """Return a job that is over, its store, and its progress at an earlier place; nothing is written.

    :raises UsageError: and :raises CursorError: as :func:`rewind` does.
    """
    check_connection(connection)
    job = fetch(connection, job_id)
    if job is None:
        raise UsageError(f"there is no job {job_id!r}; RQ may have deleted it: enqueue it again")
    _check(connection, job, ENDED)
    store, progress = _kept(connection, job)
    if progress is None:
        raise UsageError(f"job {job_id} has no progress to rewind; use `harness requeue {job_id}`")
    more: dict[str, Any] = job.args[3] if len(job.args) > 3 else {}
    if "instance" in more or SliceTable.read(store, job.id, progress.round_id) is not None:
        raise UsageError(
            f"job {job_id} belongs to a parallel run, which is rewound as a whole; enqueue it again"
        )
    move_back(progress, step, cursor)
    return job, store, progress


def _put_back(connection: Redis, job_id: str, allowed: set[JobStatus], *, at_front: bool) -> RQJob:
    while True:
        with connection.pipeline() as pipeline:
            job = fetch(connection, job_id)
            if job is None:
                raise UsageError(f"there is no job {job_id!r}; RQ may have deleted it: enqueue it again")
            pipeline.watch(job.key)
            job.refresh()
            _check(connection, job, allowed)
            queue = queue_of(job)
            job.started_at = job.ended_at = None
            pipeline.multi()
            for registry in strays.REGISTRIES.values():
                pipeline.zrem(getattr(queue, registry).key, job.id)
            pipeline.hdel(job.key, UNKNOWN, DEAD_STARTS)
            requests.forget(pipeline, job.id)
            if job.ttl is None:
                pipeline.persist(job.key)  # else it would expire with the result of the execution before
            strays.add(pipeline, job.id)
            queue._enqueue_job(job, pipeline=pipeline, at_front=at_front)  # noqa: SLF001 - as RQ's registries do
            try:
                pipeline.execute()
            except WatchError:
                continue  # it was enqueued, requeued or deleted by another: look again
            return job


def _revive(connection: Redis, job: RQJob) -> None:
    """Save cancelled progress as interrupted.

    :raises UsageError: if the progress is in another store, and the class of the job cannot be imported here.
    """
    if job.get_status(refresh=False) != JobStatus.CANCELED:
        return
    store, progress = _kept(connection, job)  # None if it was cancelled before it began
    revive(store, progress)


def _kept(connection: Redis, job: RQJob) -> tuple[Store, Progress | None]:
    """Return the progress of a job and its store."""
    store: Store = RQMetaStore(connection)
    progress = store.load(job.id)
    if progress is None:
        own = find(job.args[0]).progress_store()
        if own is not None:
            return own, own.load(job.id)
    return store, progress


def _check(connection: Redis, job: RQJob, allowed: set[JobStatus]) -> None:
    """Refuse a job that would be done twice, or not at all.

    :raises UsageError: with the reason and the remedy.
    """
    if not is_ours(job):
        raise UsageError(f"job {job.id} is not a ContinuableJob or IterationJob; use `rq requeue {job.id}`")
    status = job.get_status(refresh=False)
    if status == JobStatus.FINISHED and status not in allowed:
        raise UsageError(
            f"job {job.id} is finished; enqueue it again under its id for a new round, or repeat a part of "
            "it with `harness rewind`"
        )
    elsewhere = places_of(job) - _OVER
    if status not in allowed or elsewhere:
        where = status.value if status not in allowed else ", ".join(sorted(elsewhere))
        raise UsageError(f"job {job.id} is not over: {where}; only a failed or cancelled job can be requeued")
    if job.has_rate_limit:
        raise UsageError(f"job {job.id} has a rate limit, which RQ keeps; use `rq requeue {job.id}`")
    _check_rounds(connection, job)


def _check_rounds(connection: Redis, job: RQJob) -> None:
    more: dict[str, Any] = job.args[3] if len(job.args) > 3 else {}
    if "instance" in more:
        first = fetch(connection, more["instance"][0])
        if first is not None and more.get("round") and enqueue_of(first) != more["round"]:
            raise UsageError(
                f"job {job.id} is an instance of an earlier round of {first.id}, which was enqueued again; "
                f"requeue {first.id}"
            )
        return
    names = [f"{job.id}-{number}" for number in range(INSTANCES)]
    with connection.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.zscore(OPEN, name)
        found = [name for name, score in zip(names, pipeline.execute(), strict=True) if score is not None]
    jobs = [each for each in (fetch(connection, name) for name in found) if each is not None]
    at_work = [
        each.id for each in jobs
        if is_ours(each) and _family(each) == job.id and each.get_status(refresh=False) not in strays.OVER
    ]  # fmt: skip
    if at_work:
        raise UsageError(
            f"job {job.id} has instances that are not over ({', '.join(at_work)}); wait, or cancel it first"
        )


def _family(job: RQJob) -> str | None:
    return job.args[3].get("instance", [None])[0] if len(job.args) > 3 else None
