"""Workers whose clocks are wrong: a job at work is not failed for that."""

from __future__ import annotations

import math
import time

import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus

from harness.queues.rq import SimpleWorker, enqueue
from harness.queues.rq.clocks import redis_now, spare_the_living
from harness.queues.rq.keys import LEASES
from tests.jobs import CountByIteration, plain


@pytest.mark.parametrize(
    ("lease", "status"),
    [(60, JobStatus.STARTED), (None, JobStatus.FAILED), (math.inf, JobStatus.FAILED)],
    ids=["living", "none", "not ours"],
)
def test_maintenance_fails_no_job_that_holds_a_lease(
    redis: Redis, queue: Queue, lease: float | None, status: JobStatus
) -> None:
    """Whatever time its worker has written: the lease counts; RQ's maintenance goes on for all others."""
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
    assert spare_the_living(redis, [queue]) == 0
    assert redis.exists(queue.started_job_registry.key) == 0
