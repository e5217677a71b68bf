"""Workers with wrong clocks: a running job does not fail because of them."""

from __future__ import annotations

import math
import time

import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus
from rq.registry import clean_registries

from harness.queues.rq import SimpleWorker, enqueue
from harness.queues.rq.clocks import redis_now, spare
from harness.queues.rq.keys import LEASES
from tests.jobs import CountByIteration, plain


@pytest.mark.parametrize(
    ("lease", "status"),
    [(60, JobStatus.STARTED), (None, JobStatus.FAILED), (math.inf, JobStatus.FAILED)],
    ids=["ours", "none", "not ours"],
)
def test_maintenance_fails_no_job_that_holds_a_lease(
    redis: Redis, queue: Queue, lease: float | None, status: JobStatus
) -> None:
    """The lease counts, not the time that the worker has written; RQ's maintenance goes on for all other jobs."""
    job = enqueue(queue, CountByIteration, 3) if lease == 60 else queue.enqueue(plain, 3)
    worker = SimpleWorker([queue], connection=redis, commands=False)
    redis.lmove(queue.key, queue.intermediate_queue_key)
    entry = worker.prepare_execution(job).composite_key
    job.set_status(JobStatus.STARTED)
    redis.zadd(queue.started_job_registry.key, {entry: time.time() - 7200})
    redis.zrem(LEASES, entry)
    if lease is not None:
        redis.zadd(LEASES, {entry: redis_now(redis).timestamp() + lease})
    worker.clean_registries()
    assert job.get_status() == status
    assert (redis.zscore(queue.started_job_registry.key, entry) is not None) == (status == JobStatus.STARTED)


def test_an_execution_that_has_ended_is_not_made_again(redis: Redis, queue: Queue) -> None:
    """A lease that is left over brings no entry back."""
    redis.zadd(LEASES, {"1:2": redis_now(redis).timestamp() + 60})
    assert spare(redis, [queue]) == 0
    assert redis.exists(queue.started_job_registry.key) == 0


def test_a_crashed_job_is_left_to_the_sweep(redis: Redis, queue: Queue) -> None:
    """RQ's maintenance neither fails it nor uses up its retries, also where the sweep has not come to it yet."""
    job = enqueue(queue, CountByIteration, 3)
    worker = SimpleWorker([queue], connection=redis, commands=False)
    redis.lmove(queue.key, queue.intermediate_queue_key)
    entry = worker.prepare_execution(job).composite_key
    redis.zadd(queue.started_job_registry.key, {entry: time.time() - 7200})
    redis.zadd(LEASES, {entry: 1})
    assert spare(redis, [queue]) == 1
    clean_registries(queue)
    assert redis.zscore(queue.started_job_registry.key, entry) is not None


@pytest.mark.filterwarnings("ignore:Composite key must contain:DeprecationWarning")
def test_an_entry_of_an_old_rq_is_cleaned_up(redis: Redis, queue: Queue) -> None:
    """A bare job id in the started registry, as old RQ wrote it, is removed, and its job fails, as with RQ."""
    job = queue.enqueue(plain, 3)
    redis.delete(queue.key)
    job.set_status(JobStatus.STARTED)
    redis.zadd(queue.started_job_registry.key, {job.id: 1, "gone": 1, "a:b:c": 1})
    SimpleWorker([queue], connection=redis, commands=False).clean_registries()
    assert job.get_status() == JobStatus.FAILED
    assert redis.zrange(queue.started_job_registry.key, 0, -1) == [b"a:b:c"]
