"""A job that failed or was cancelled goes back into its queue with its progress, once, and only if it is over."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus

from harness.errors import UsageError
from harness.queues.rq import SimpleWorker, cancel, enqueue, requeue
from harness.queues.rq.keys import OPEN
from tests.commands import harness, one_line
from tests.jobs import CountByIteration, Shared, plain


class FailsOnce(CountByIteration):
    """Fails in its eighth number, the first time."""

    resume_errors_after_advancing = False
    failed = False

    def each_iteration(self, item: int, numbers: int) -> None:
        """Do one number, or fail."""
        if item == 7 and not FailsOnce.failed:
            FailsOnce.failed = True
            raise RuntimeError("not this time")
        super().each_iteration(item, numbers)


def work(queue: Queue) -> None:
    """Do all there is to do."""
    SimpleWorker([queue], connection=queue.connection, commands=False).work(
        burst=True, logging_level="CRITICAL"
    )


def test_a_failed_job_goes_on_at_its_cursor(
    queue: Queue, redis: Redis, done: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A requeued job leaves the registry of failed jobs, is open again, and repeats no item."""
    monkeypatch.setattr(FailsOnce, "failed", False)
    job = enqueue(queue, FailsOnce, 20)
    work(queue)
    assert queue.failed_job_registry.get_job_ids() == [job.id]
    assert requeue(redis, job.id).id == job.id
    assert queue.failed_job_registry.get_job_ids() == []
    assert queue.get_job_ids() == [job.id]
    assert redis.zscore(OPEN, job.id) is not None
    with pytest.raises(
        UsageError, match=r"is not over: queued; only a failed or cancelled job can be requeued"
    ):
        requeue(redis, job.id)
    work(queue)
    assert done == list(range(20))
    assert job.get_status() == JobStatus.FINISHED


def test_a_cancelled_job_goes_on_at_its_cursor(queue: Queue, redis: Redis, done: list[Any]) -> None:
    """The request to cancel it is forgotten, and what was done is not done again."""
    job = enqueue(queue, CountByIteration, 20)
    cancel(redis, job.id)
    work(queue)
    assert job.get_status() == JobStatus.CANCELED
    requeue(redis, job.id, at_front=True)
    assert queue.canceled_job_registry.get_job_ids() == []
    work(queue)
    assert done == list(range(20))
    assert job.get_status() == JobStatus.FINISHED


def test_a_requeue_puts_it_in_front_of_others(queue: Queue, redis: Redis) -> None:
    """With ``at_front`` the job is the next one of its queue."""
    job = enqueue(queue, CountByIteration, 20)
    cancel(redis, job.id)
    work(queue)
    other = enqueue(queue, CountByIteration, 5)
    requeue(redis, job.id, at_front=True)
    assert queue.get_job_ids() == [job.id, other.id]


def test_what_cannot_be_requeued_is_refused_by_name(queue: Queue, redis: Redis, done: list[Any]) -> None:
    """A job that is finished, unknown, a plain function, or enqueued again under its id stays as it is."""
    job = enqueue(queue, CountByIteration, 3)
    work(queue)
    with pytest.raises(UsageError, match="is finished; enqueue it again under its id"):
        requeue(redis, job.id)
    with pytest.raises(UsageError, match="there is no job 'nothing'"):
        requeue(redis, "nothing")
    function = queue.enqueue_call(plain, args=("x",))
    work(queue)
    with pytest.raises(UsageError, match=r"is not a ContinuableJob or IterationJob; use `rq requeue"):
        requeue(redis, function.id)
    cancelled = enqueue(queue, CountByIteration, 3, options={"job_id": "again"})
    cancel(redis, cancelled.id)
    work(queue)
    enqueue(queue, CountByIteration, 3, options={"job_id": "again"})
    with pytest.raises(UsageError, match=r"job again is not over: queued"):
        requeue(redis, "again")
    assert queue.get_job_ids() == ["again"]


def test_a_job_with_instances_at_work_is_not_requeued(queue: Queue, redis: Redis) -> None:
    """The requeue of a parallel run is refused while its instances are open, because it would start twice."""
    job = enqueue(queue, Shared, 40, 2)
    SimpleWorker([queue], connection=redis, commands=False).work(
        burst=True, max_jobs=1, logging_level="CRITICAL"
    )
    assert f"{job.id}-0" in queue.get_job_ids()
    job.set_status(JobStatus.FAILED)
    queue.finished_job_registry.remove(job)
    queue.failed_job_registry.add(job)
    with pytest.raises(UsageError, match=rf"has instances that are not over \({job.id}-0"):
        requeue(redis, job.id)


def test_an_instance_of_an_earlier_round_is_not_requeued(queue: Queue, redis: Redis) -> None:
    """Its work belongs to a round that is over."""
    job = enqueue(queue, Shared, 40, 2, options={"job_id": "shared"})
    SimpleWorker([queue], connection=redis, commands=False).work(
        burst=True, max_jobs=1, logging_level="CRITICAL"
    )
    cancel(redis, f"{job.id}-1")
    work(queue)
    assert job.get_status() == JobStatus.FINISHED
    enqueue(queue, Shared, 40, 2, options={"job_id": "shared"})
    with pytest.raises(UsageError, match="is an instance of an earlier round of shared"):
        requeue(redis, "shared-1")


def test_two_requeues_at_once_are_one(queue: Queue, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transaction of the second finds the job changed, looks again, and refuses."""
    job = enqueue(queue, CountByIteration, 20)
    cancel(redis, job.id)
    work(queue)
    pipelines: Any = type(redis.pipeline())
    multi = pipelines.multi

    def another_first(pipeline: Any) -> Any:
        monkeypatch.setattr(pipelines, "multi", multi)
        requeue(redis, job.id)
        return multi(pipeline)

    monkeypatch.setattr(pipelines, "multi", another_first)
    with pytest.raises(UsageError, match="is not over: queued"):
        requeue(redis, job.id)
    assert queue.get_job_ids() == [job.id]


def test_the_command(jobs_queue: Queue, broker: Redis, redis_url: str) -> None:
    """The command takes the beginning of an id; a refusal is one line and exit code 2."""
    job = enqueue(jobs_queue, CountByIteration, 3)
    assert "is not over: queued" in one_line(harness("requeue", job.id, "--redis", redis_url))
    cancel(broker, job.id)
    work(jobs_queue)
    said = harness("requeue", job.id[:8], "--redis", redis_url)
    assert said.output == f"job {job.id} is back in queue test\n"
    assert "there is no job 'nothing'" in one_line(harness("requeue", "nothing", "--redis", redis_url))
