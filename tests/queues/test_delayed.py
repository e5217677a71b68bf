"""Delayed jobs go on when it is time, whether or not a scheduler of RQ's runs, and once."""

from __future__ import annotations

import logging
import pickle
import threading
import time
from typing import Any

import pytest
from redis import Redis
from rq import Queue, Repeat, Retry
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.scheduler import RQScheduler

from harness import IterationJob, RetryLater, items
from harness.queues.rq import SimpleWorker, enqueue, keep_recovering, pause, recover, resume
from harness.queues.rq.delayed import LOOK_SECONDS, DueLooks, enqueue_due, enqueue_scheduled
from harness.queues.rq.keys import DELAYED
from tests import worker_jobs
from tests.jobs import DONE, CountByIteration, FailAt, Shared
from tests.queues.test_rq import Delayed, Stock, work
from tests.workers import OURS, PATIENCE, SIMPLE, SPAWN, Workers, finish_here, release, told, wait_for


class Later(IterationJob):
    """Has to wait at its third item, once."""

    def build_enumerator(self, seconds: float, *, cursor: Any) -> Any:
        """Go through some numbers."""
        return items(range(5), cursor=cursor)

    def each_iteration(self, item: int, seconds: float) -> None:
        """Do one, or have it wait."""
        if item == 2 and "later" not in DONE:
            DONE.append("later")
            raise RetryLater(seconds)
        DONE.append(item)


@pytest.mark.parametrize("worker_class", [OURS, SPAWN, SIMPLE])
def test_no_scheduler_is_needed(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers, worker_class: str
) -> None:
    """A job that waits for a second after each interruption goes on by itself, on the worker that it was on."""
    job = enqueue(jobs_queue, worker_jobs.Delayed)
    rq_workers.start(worker_class)
    wait_for(broker, job.id, 2)
    broker.set(f"harness:stop:{job.id}", "maintenance")
    for _ in range(2):  # the job notes its process when it begins, and again when it goes on
        assert broker.blpop([f"pid:{job.id}"], PATIENCE)
    release(broker, job.id)
    while job.get_status() != JobStatus.FINISHED:
        assert job.latest_result(timeout=PATIENCE)
    assert not broker.exists(DELAYED)


def test_a_busy_worker_enqueues_them_too(broker: Redis, jobs_queue: Queue, rq_workers: Workers) -> None:
    """A worker does this while it runs another job, even a plain function from another queue."""
    busy = Queue("busy", connection=broker, serializer="json").enqueue_call(worker_jobs.plain_until_released)
    rq_workers.start(queue="busy")
    wait_for(broker, busy.id, 1)
    job = enqueue(jobs_queue, Later, 1)
    finish_here(jobs_queue)
    assert broker.blmove(jobs_queue.key, "seen", PATIENCE) == job.id.encode()
    assert busy.get_status() == JobStatus.STARTED


def due(queue: Queue, job_id: str) -> None:
    """Have the delay of a job be over."""
    queue.connection.zadd(queue.scheduled_job_registry.key, {job_id: 1})
    queue.connection.zadd(DELAYED, {job_id: 1})


def test_each_is_enqueued_once(real_redis: Redis) -> None:
    """A due job is enqueued once, however many workers look at the same moment."""
    queue = Queue("test", connection=real_redis, serializer="json")
    jobs = [enqueue(queue, Later, 60) for _ in range(20)]
    work(queue)
    for job in jobs:
        due(queue, job.id)
    together = threading.Barrier(4)

    def look() -> None:
        together.wait()
        enqueue_due(real_redis)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(queue.job_ids) == sorted(job.id for job in jobs if job.get_status() == JobStatus.QUEUED)
    assert not queue.scheduled_job_registry.get_job_ids()


def test_rqs_scheduler_goes_first_where_one_runs(queue: Queue, redis: Redis) -> None:
    """RQ's scheduler does not look for faster ones; after two seconds without an action it counts as crashed."""
    job = enqueue(queue, Later, 60)
    work(queue)
    redis.set(RQScheduler.get_locking_key("test"), "somebody")
    now = time.time()
    redis.zadd(queue.scheduled_job_registry.key, {job.id: now - 1})
    redis.zadd(DELAYED, {job.id: now - 1})
    enqueue_due(redis)
    assert queue.job_ids == []
    assert redis.zscore(DELAYED, job.id) == pytest.approx(now + 1, abs=0.01)
    due(queue, job.id)
    enqueue_due(redis)
    assert queue.job_ids == [job.id]


@pytest.mark.parametrize(
    "options", [{"retry": Retry(max=1, interval=60)}, {"repeat": Repeat(times=1, interval=60)}]
)
def test_rqs_own_delays_are_kept_as_well(
    queue: Queue, redis: Redis, done: list[Any], options: dict[str, Any]
) -> None:
    """RQ's Retry and Repeat with an interval need no scheduler for our jobs either."""
    job = enqueue(queue, FailAt, 3, 0 if "retry" in options else 9, options=options)
    work(queue)
    assert job.get_status() == JobStatus.SCHEDULED
    enqueue_due(redis)  # reads in RQ's registry when it is due, unless the worker has done so
    assert 0 < enqueue_due(redis) <= LOOK_SECONDS
    assert (queue.job_ids, redis.zscore(DELAYED, job.id)) == (
        [], redis.zscore(queue.scheduled_job_registry.key, job.id),
    )  # fmt: skip
    due(queue, job.id)
    recover(redis)
    work(queue)
    assert job.get_status() == JobStatus.FINISHED


@pytest.mark.parametrize("lost", ["hint", "registry"])
def test_what_was_lost_of_a_delay_is_found(queue: Queue, redis: Redis, lost: str) -> None:
    """A hint that is gone is made again from RQ's registry; one for a job that is not there is forgotten."""
    job = enqueue(queue, Delayed, 20)
    redis.set(f"harness:stop:{job.id}", "maintenance")
    work(queue, poll_seconds=0.0)
    score = redis.zscore(queue.scheduled_job_registry.key, job.id)
    if lost == "hint":
        redis.delete(DELAYED)
        redis.zadd("harness:open", {job.id: 0})
        recover(redis)
        assert redis.zscore(DELAYED, job.id) == score
    else:
        redis.zrem(queue.scheduled_job_registry.key, job.id)
        redis.zadd(DELAYED, {job.id: 1})
        enqueue_due(redis)
        assert (redis.exists(DELAYED), queue.job_ids) == (0, [])


def test_a_job_that_is_elsewhere_by_then_is_not_enqueued(queue: Queue, redis: Redis) -> None:
    """A delayed job that was enqueued again or deleted while it waited is not enqueued."""
    job = enqueue(queue, Later, 60)
    work(queue)
    due(queue, job.id)
    queue._enqueue_job(RQJob.fetch(job.id, connection=redis, serializer="json"))
    assert not enqueue_scheduled(queue, job.id)
    assert (queue.job_ids, queue.scheduled_job_registry.get_job_ids()) == ([job.id], [])
    due(queue, "none")
    enqueue_due(redis)
    assert (queue.job_ids, redis.exists(DELAYED)) == ([job.id], 0)


@pytest.mark.parametrize(
    ("delay", "told_of"),
    [
        (60, "interrupted (retried later), it resumes in 60 s"),
        (0, "interrupted (retried later), back in queue"),
    ],
)
def test_the_log_says_what_was_done(
    queue: Queue, caplog: pytest.LogCaptureFixture, delay: float, told_of: str
) -> None:
    """A delayed job is not said to be in its queue."""
    enqueue(queue, Later, delay)
    with caplog.at_level(logging.INFO, "rq.worker"):
        SimpleWorker([queue], connection=queue.connection, commands=False).work(burst=True)
    assert told_of in caplog.text


def test_the_log_says_that_a_paused_job_waits(
    queue: Queue, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says that the job waits until it is resumed."""
    job = enqueue(queue, CountByIteration, 3)
    pause(redis, job.id)
    with caplog.at_level(logging.INFO, "rq.worker"):
        SimpleWorker([queue], connection=redis, commands=False).work(burst=True)
    assert "interrupted (paused), it waits until it is resumed" in caplog.text


@pytest.mark.parametrize("somebody", [None, "rq:scheduler-lock:test", "harness:sweep", "harness:sweeping"])
def test_rqs_own_worker_warns_where_nobody_would_enqueue_a_job(
    queue: Queue, redis: Redis, caplog: pytest.LogCaptureFixture, somebody: str | None
) -> None:
    """The warning appears if neither a scheduler nor a harness worker runs on that Redis."""
    if somebody:
        redis.set(somebody, "1")
    job = enqueue(queue, Later, 60)
    with caplog.at_level(logging.WARNING, "harness.rq"):
        work(queue, Stock)
    warned = f"job {job.id} resumes in 60 s, but no process will enqueue it then" in caplog.text
    assert warned == (somebody is None)
    due(queue, job.id)
    recover(redis)
    assert queue.job_ids == [job.id]


def test_recovery_enqueues_them_as_well(broker: Redis, jobs_queue: Queue) -> None:
    """If no harness worker runs, the recovery loop enqueues delayed jobs."""
    job = enqueue(jobs_queue, Later, 1)
    finish_here(jobs_queue)
    until = threading.Event()
    loop = threading.Thread(target=keep_recovering, args=(broker, until))
    loop.start()
    assert broker.blmove(jobs_queue.key, "seen", PATIENCE) == job.id.encode()
    until.set()
    loop.join(PATIENCE)
    assert not loop.is_alive()


def test_looks_go_on_when_redis_does(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """An error is logged, and the next look comes all the same."""
    redis.set(DELAYED, "of another type")
    looks = DueLooks(redis)
    with caplog.at_level(logging.WARNING, "harness.rq"):
        looks.start()
        while "it will be tried again" not in caplog.text:
            looks.soon()
        looks.close()
    assert not looks.is_alive()


def test_resume_finds_its_jobs_among_those_of_others(queue: Queue, redis: Redis) -> None:
    """The command finds pickled jobs, distinguishes similar names, and finds all instances of a parallel run."""
    key = queue.scheduled_job_registry.key
    redis.hset(
        "rq:job:pickled",
        mapping={"data": pickle.dumps(("os.system", None, ("true",), {})), "created_at": "x"},
    )
    far = time.time() + 10**6
    redis.zadd(
        key, {"pickled": far, "gone": far, "par-x": far, **{f"other-{number}": far for number in range(3000)}}
    )
    job = enqueue(queue, Shared, 4, 2, options={"job_id": "par"})
    pause(redis, "par")
    work(queue, poll_seconds=0.0)
    assert redis.zscore(key, "par") is not None
    assert resume(queue, "par")
    pause(redis, "par-0")
    work(queue, poll_seconds=0.0)
    assert resume(queue, "par-0")
    pause(redis, "par-0")
    work(queue, poll_seconds=0.0)
    assert job.get_status() == JobStatus.FINISHED
    assert redis.zscore(key, "par-0") is not None
    assert resume(queue, "par")
    assert not resume(queue, "par")
    assert queue.job_ids == ["par-0"]
    assert redis.zcard(key) == 3003


def test_a_name_with_signs_of_patterns_is_a_name(queue: Queue, redis: Redis) -> None:
    """A job id may hold what means something else in a pattern."""
    for job_id in ("a_b", "a-b"):
        enqueue(queue, CountByIteration, 3, options={"job_id": job_id})
        pause(redis, job_id)
    work(queue)
    assert resume(queue, "a_b")
    assert queue.job_ids == ["a_b"]
    assert told(redis, "a_b") == []
