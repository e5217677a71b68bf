"""A job that has failed, was stopped or was cancelled goes back into its queue, with its progress kept."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import WatchError
from rq.job import JobStatus

from harness.errors import Superseded, UsageError
from harness.job import find
from harness.queues.connections import check_connection
from harness.queues.rq import requests, strays
from harness.queues.rq.instances import enqueue_of
from harness.queues.rq.keys import OPEN
from harness.queues.rq.leases import DEAD_STARTS
from harness.queues.rq.places import UNKNOWN, fetch, is_ours, places_of, queue_of
from harness.queues.rq.submit import INSTANCES
from harness.stores.rq_meta import RQMetaStore

if TYPE_CHECKING:
    from redis import Redis
    from rq.job import Job as RQJob

    from harness.progress import Store

GOES_ON = {JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED}
"""Statuses of jobs that can be requeued."""

_OVER = {str(status.value) for status in strays.OVER}


def requeue(connection: Redis, job_id: str, *, at_front: bool = False) -> RQJob:
    """Requeue a job that failed, was stopped or was cancelled; it resumes at its cursor.

    It is the same enqueue, so the same round of the job. A pending request to cancel, pause or stop it is forgotten.

    Progress that says "cancelled" is saved as interrupted first, else the next execution would end at once. A crash
    after that: the job is still cancelled in RQ, and a second call does the rest. Then one transaction requeues it,
    only if the job is unchanged. A crash after it, or a lost answer: the job is in its queue, and a second call
    says that it is not over.

    :raises UsageError: if there is no such job, it is not one of this package's, it is not over, it has finished, or
        another round of it is at work.
    """
    check_connection(connection)
    found = fetch(connection, job_id)
    if found is not None:
        _check(connection, found)
        _revive(connection, found)
    while True:
        with connection.pipeline() as pipeline:
            job = fetch(connection, job_id)
            if job is None:
                raise UsageError(
                    f"there is no job {job_id!r}; RQ may have forgotten it, then enqueue it again"
                )
            pipeline.watch(job.key)
            job.refresh()
            _check(connection, job)
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

    :raises UsageError: if the progress is kept elsewhere, and the class of the job cannot be imported here.
    """
    if job.get_status(refresh=False) != JobStatus.CANCELED:
        return
    store: Store = RQMetaStore(connection)
    progress = store.load(job.id)
    if progress is None:
        own = find(job.args[0]).progress_store()
        if own is None:
            return  # it was cancelled before it began
        store, progress = own, own.load(job.id)
    if progress is not None and progress.state == "cancelled":
        progress.state, progress.reason = "interrupted", "requeued"
        with suppress(
            Superseded
        ):  # another call was first, and the job has begun; the check that follows says so
            store.save(progress)


def _check(connection: Redis, job: RQJob) -> None:
    """Refuse a job that would be done twice, or not at all.

    :raises UsageError: saying why, and what to do.
    """
    if not is_ours(job):
        raise UsageError(f"job {job.id} is no ContinuableJob or IterationJob; use `rq requeue {job.id}`")
    status = job.get_status(refresh=False)
    if status == JobStatus.FINISHED:
        raise UsageError(
            f"job {job.id} is finished: all is done; enqueue it again under its id for a new round"
        )
    elsewhere = places_of(job) - _OVER
    if status not in GOES_ON or elsewhere:
        where = status.value if status not in GOES_ON else ", ".join(sorted(elsewhere))
        raise UsageError(f"job {job.id} is not over: {where}; only a failed or cancelled job can be requeued")
    if job.has_rate_limit:
        raise UsageError(f"job {job.id} has a rate limit, which RQ keeps; use `rq requeue {job.id}`")
    _check_rounds(connection, job)


def _check_rounds(connection: Redis, job: RQJob) -> None:
    more: dict[str, Any] = job.args[3] if len(job.args) > 3 else {}
    if "instance" in more:
        family = fetch(connection, more["instance"][0])
        if family is not None and more.get("round") and enqueue_of(family) != more["round"]:
            raise UsageError(
                f"job {job.id} is an instance of an earlier round of {family.id}, which was enqueued again; "
                f"requeue {family.id}"
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
