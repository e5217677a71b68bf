"""Jobs that are enqueued at a time, after a delay, or in a group of RQ's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from redis import Redis
from rq import Queue, Retry
from rq.group import Group
from rq.job import JobStatus
from rq.utils import now

from harness import UsageError
from harness.queues.rq import SimpleWorker, enqueue, enqueue_at, enqueue_in, recover
from harness.queues.rq.delayed import enqueue_due
from harness.queues.rq.keys import DELAYED, OPEN
from tests.jobs import DONE, CountByIteration, Shared
from tests.worker_jobs import Numbers
from tests.workers import OURS, PATIENCE, Workers, told

PAST, FAR = datetime(2026, 1, 1, tzinfo=UTC), timedelta(days=400)


def work(queue: Queue) -> None:
    """Do all there is to do in the queue."""
    SimpleWorker([queue], connection=queue.connection, commands=False).work(burst=True, logging_level="ERROR")


def test_a_job_waits_for_its_time(queue: Queue) -> None:
    """A delayed job is in RQ's scheduled registry with the given time, and not in the queue."""
    when = now() + FAR
    at, later = enqueue_at(queue, when, CountByIteration, 3), enqueue_in(queue, FAR, CountByIteration, 3)
    assert queue.job_ids == []
    assert {at.get_status(), later.get_status()} == {JobStatus.SCHEDULED}
    scheduled = queue.scheduled_job_registry
    assert scheduled.get_scheduled_time(at) == when.replace(microsecond=0)
    assert abs(scheduled.get_scheduled_time(later) - when) < timedelta(minutes=5)
    work(queue)
    assert DONE == []
    assert recover(queue.connection) == []
    assert len(scheduled) == 2


def test_a_time_without_a_zone_is_local_time(queue: Queue) -> None:
    """A time without a zone is local time, as in ``Queue.enqueue_at``."""
    when = datetime(2126, 3, 4, 5, 6)  # noqa: DTZ001 - that is the point
    ours, rqs = enqueue_at(queue, when, CountByIteration, 3), queue.enqueue_at(when, len, ())
    scheduled = queue.scheduled_job_registry
    assert scheduled.get_scheduled_time(ours) == scheduled.get_scheduled_time(rqs)


def test_a_worker_without_a_scheduler_does_it_when_its_time_comes(
    jobs_queue: Queue, rq_workers: Workers
) -> None:
    """A worker starts such a job when its time comes; no scheduler of RQ is needed."""
    job = enqueue_in(
        jobs_queue, timedelta(seconds=1), Numbers, 3, options={"retry": Retry(max=2), "timeout": 77}
    )
    assert rq_workers.start(OURS, "--max-jobs", "1").wait(PATIENCE) == 0
    job.refresh()
    assert (job.get_status(), job.timeout, job.retries_left) == (JobStatus.FINISHED, 77, 2)
    assert told(jobs_queue.connection, job.id) == [0, 1, 2]


def test_a_job_at_the_front_goes_there_when_its_time_comes(queue: Queue) -> None:
    """With ``at_front`` the job goes to the front of the queue, not to the end."""
    first = enqueue(queue, CountByIteration, 1)
    urgent = enqueue_at(queue, PAST, CountByIteration, 2, options={"at_front": True})
    enqueue_due(queue.connection)
    assert queue.job_ids == [urgent.id, first.id]


def test_the_same_job_is_joined_and_keeps_its_time(queue: Queue) -> None:
    """While it waits, it is not enqueued twice and another is refused; when it is over, a new round begins."""
    options = {"job_id": "nightly"}
    enqueue_at(queue, PAST, CountByIteration, 3, options=options)
    enqueue_at(queue, now() + FAR, CountByIteration, 3, options=options)
    assert queue.scheduled_job_registry.get_scheduled_time("nightly") == PAST
    assert enqueue(queue, CountByIteration, 3, options=options).get_status() == JobStatus.SCHEDULED
    with pytest.raises(UsageError, match="'nightly' has other arguments, and is scheduled"):
        enqueue_in(queue, FAR, CountByIteration, 4, options=options)
    for _ in range(2):
        enqueue_due(queue.connection)
        work(queue)
        assert DONE == [0, 1, 2]
        DONE.clear()
        enqueue_at(queue, PAST, CountByIteration, 3, options=options)
        assert queue.fetch_job("nightly").get_status() == JobStatus.SCHEDULED  # type: ignore[union-attr]


def test_a_lost_note_of_the_time_is_found_again(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep makes it from RQ's registry."""
    monkeypatch.setenv("HARNESS_RECOVER_SECONDS", "0.000001")
    job = enqueue_at(queue, PAST, CountByIteration, 3)
    assert queue.connection.zscore(OPEN, job.id) is not None
    queue.connection.delete(DELAYED)
    recover(queue.connection)
    enqueue_due(queue.connection)
    assert queue.job_ids == [job.id]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda queue: enqueue_at(queue, cast("Any", 5), CountByIteration, 3),
            "got 5 as the time.*use a datetime",
        ),
        (
            lambda queue: enqueue_in(queue, cast("Any", 5), CountByIteration, 3),
            "got 5 as the delay.*use a timedelta",
        ),
        (
            lambda queue: enqueue_in(queue, FAR, CountByIteration, 3, options={"depends_on": "1"}),
            "cannot take depends_on; leave it out, or use enqueue()",
        ),
        (
            lambda queue: enqueue(queue, CountByIteration, 3, options={"group": "mine"}),
            r"use an rq\.group\.Group",
        ),
    ],
)
def test_what_cannot_work_is_refused(queue: Queue, call: Any, message: str) -> None:
    """The call is refused by name, the error says what to use, and nothing is written."""
    with pytest.raises(UsageError, match=message):
        call(queue)
    assert queue.connection.dbsize() == 0


def test_jobs_join_a_group(queue: Queue) -> None:
    """Enqueued now, later, with a dependency or in a pipeline: the group knows all, and those joined under an id."""
    redis = queue.connection
    group = Group.create(redis, "imports")
    first = enqueue(queue, CountByIteration, 1, options={"group": group, "job_id": "first"})
    jobs = [
        first,
        enqueue_in(queue, FAR, CountByIteration, 2, options={"group": group}),
        enqueue(queue, CountByIteration, 3, options={"group": group, "depends_on": first}),
    ]
    with redis.pipeline() as pipeline:
        jobs.append(enqueue(queue, CountByIteration, 4, options={"group": group, "pipeline": pipeline}))
        assert len(group_ids(redis, "imports")) == 3
        pipeline.execute()
    assert group_ids(redis, "imports") == {job.id for job in jobs}
    assert {job.group_id for job in jobs} == {"imports"}
    others = Group.create(redis, "others")
    enqueue(queue, CountByIteration, 1, options={"group": others, "job_id": "first"})
    assert group_ids(redis, "others") == {"first"}
    work(queue)
    jobs[-1].delete()
    assert group_ids(redis, "imports") == {job.id for job in jobs[:-1]}
    assert [each.name for each in Group.all(redis)] != []


def group_ids(redis: Redis, name: str) -> set[str]:
    """Return the ids of the jobs in a group, as RQ finds it."""
    found: Any = redis.smembers(Group.get_key(name))
    return {each.decode() for each in found}


def test_the_instances_of_a_parallel_run_are_in_its_group(queue: Queue) -> None:
    """The group is complete only when all of them have ended."""
    group = Group.create(queue.connection, "parallel")
    job = enqueue(queue, Shared, 12, 3, options={"group": group})
    work(queue)
    assert group_ids(queue.connection, "parallel") == {job.id, *(f"{job.id}-{number}" for number in range(3))}
