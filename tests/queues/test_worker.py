"""Real workers that are asked to stop: the job is interrupted, and requeued before they exit."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Callback, Queue, Retry
from rq.job import Job as RQJob
from rq.job import JobStatus

from harness.queues.rq import SimpleWorker, enqueue, request_stop
from harness.queues.rq.keys import LEASES
from tests import worker_jobs
from tests.worker_jobs import Delayed, Stubborn, UntilReleased, UntilReleasedInSteps, UntilSignalled
from tests.workers import (
    ALL,
    OURS,
    PATIENCE,
    SIMPLE,
    SPAWN,
    WITH_HORSES,
    Workers,
    finish_here,
    in_order,
    pid_of,
    progress_of,
    release,
    told,
    wait_for,
    wait_for_worker,
)

SCRIPT = "tests.worker_jobs"


def assert_told_by_signal(connection: Redis, job: RQJob) -> None:
    """Check that a signal has stopped the job, and not what its worker notes in Redis."""
    assert progress_of(connection, job.id).reason == "stopping"


def assert_goes_on(queue: Queue, job: RQJob) -> None:
    """Check that the job continues where it was, to its end."""
    release(queue.connection, job.id)
    finish_here(queue)
    assert job.get_status() == JobStatus.FINISHED
    assert in_order(told(queue.connection, job.id))


def assert_untold(queue: Queue, job: RQJob) -> None:
    """Check that Redis has no trace of an interruption except the progress."""
    job.refresh()
    assert (job.get_status(), queue.job_ids) == (JobStatus.QUEUED, [job.id])
    assert (job.retries_left, job.number_of_retries, job.results()) == (2, None, [])
    assert not queue.started_job_registry.get_job_and_execution_ids()
    assert not queue.failed_job_registry.get_job_ids()
    assert not queue.finished_job_registry.get_job_ids()
    assert not queue.scheduled_job_registry.get_job_ids()
    assert not queue.intermediate_queue.get_job_ids()
    assert len(queue.deferred_job_registry) == 1
    assert not job.get_executions()
    assert not queue.connection.exists(LEASES, f"called:{job.id}")
    counts = [queue.connection.hget(key, "failed_job_count") for key in queue.connection.keys("rq:worker:*")]
    assert counts == [None]


@pytest.mark.parametrize(
    ("worker_class", "ask"),
    [
        (OURS, lambda pid: os.kill(pid, signal.SIGTERM)),
        (OURS, lambda pid: os.killpg(pid, signal.SIGINT)),
        (SPAWN, lambda pid: os.kill(pid, signal.SIGINT)),
        (SPAWN, lambda pid: os.killpg(pid, signal.SIGTERM)),
        (SIMPLE, lambda pid: os.kill(pid, signal.SIGTERM)),
        (SIMPLE, lambda pid: os.killpg(pid, signal.SIGINT)),
    ],
    ids=[
        "Worker-TERM",
        "Worker-group-INT",
        "Spawn-INT",
        "Spawn-group-TERM",
        "Simple-TERM",
        "Simple-group-INT",
    ],
)
def test_the_job_is_back_in_its_queue_before_the_worker_exits(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers, worker_class: str, ask: Any
) -> None:
    """Asked once, the worker leaves with its job queued under the same id, and nothing says that it failed."""
    job = enqueue(
        jobs_queue,
        UntilReleased,
        options={
            "retry": Retry(max=2),
            "on_success": Callback(f"{SCRIPT}.succeeded"),
            "on_failure": Callback(f"{SCRIPT}.failed"),
            "on_stopped": Callback(f"{SCRIPT}.stopped"),
        },
    )
    dependent = jobs_queue.enqueue_call(worker_jobs.plain, args=(1,), depends_on=job)
    worker = rq_workers.start(worker_class)
    wait_for(broker, job.id, 5)
    ask(worker.pid)
    assert worker.wait(PATIENCE) == 0
    assert_untold(jobs_queue, job)
    assert_told_by_signal(broker, job)
    assert_goes_on(jobs_queue, job)
    assert broker.lrange(f"called:{job.id}", 0, -1) == [b"success"]
    assert dependent.get_status() == JobStatus.FINISHED


def test_steps_hear_of_it_too(broker: Redis, jobs_queue: Queue, rq_workers: Workers) -> None:
    """A job of steps stops at a checkpoint within its step, and goes on there."""
    job = enqueue(jobs_queue, UntilReleasedInSteps)
    worker = rq_workers.start()
    wait_for(broker, job.id, 5)
    worker.terminate()
    assert worker.wait(PATIENCE) == 0
    assert job.get_status() == JobStatus.QUEUED
    assert_told_by_signal(broker, job)
    assert_goes_on(jobs_queue, job)


def test_the_horse_may_get_the_signal_as_well(broker: Redis, jobs_queue: Queue, rq_workers: Workers) -> None:
    """If a service manager such as systemd signals all processes, the horse gets the signal twice and stops once."""
    job = enqueue(jobs_queue, UntilReleased)
    worker = rq_workers.start()
    wait_for(broker, job.id, 5)
    horse = int(broker.lindex(f"pid:{job.id}", 0) or 0)
    os.kill(horse, signal.SIGTERM)
    worker.terminate()
    assert worker.wait(PATIENCE) == 0
    assert job.get_status() == JobStatus.QUEUED
    assert_told_by_signal(broker, job)
    assert_goes_on(jobs_queue, job)


@pytest.mark.parametrize("worker_class", WITH_HORSES)
def test_a_plain_function_is_waited_for(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers, worker_class: str
) -> None:
    """A function without checkpoints is finished first, as under RQ's own worker."""
    job = jobs_queue.enqueue_call(worker_jobs.plain_until_released)
    worker = rq_workers.start(worker_class)
    wait_for(broker, job.id, 5)
    worker.terminate()
    wait_for_worker(broker, "shutdown_requested_date")
    assert job.get_status() == JobStatus.STARTED
    release(broker, job.id)
    assert worker.wait(PATIENCE) == 0
    assert job.get_status() == JobStatus.FINISHED
    assert in_order(told(broker, job.id))


@pytest.mark.parametrize("worker_class", ALL)
def test_a_second_signal_hurries(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers, worker_class: str
) -> None:
    """A job that reaches no checkpoint is requeued with its progress; RQ would leave it "started" for ever."""
    job = enqueue(jobs_queue, Stubborn, 5, options={"retry": Retry(max=2)})
    jobs_queue.enqueue_call(worker_jobs.plain, args=(1,), depends_on=job)
    worker = rq_workers.start(worker_class)
    wait_for(broker, job.id, 3)
    worker.terminate()
    wait_for_worker(broker, "shutdown_requested_date")
    # It waits for the job. RQ takes two signals within a second of its clock for one, so that this second must pass.
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(1.2)
    worker.terminate()
    assert worker.wait(PATIENCE) == 0
    assert_untold(jobs_queue, job)
    broker.rpush(f"go:{os.getpid()}", "on")
    finish_here(jobs_queue)
    assert told(broker, job.id) == [0, 1, 2, 2, 3, 4]


@pytest.mark.parametrize("moment", ["before", "in the worker", "in the horse"])
def test_a_signal_in_the_moment_of_the_fork_is_not_lost(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers, moment: str
) -> None:
    """A signal just before the fork, or just after it in either process, stops the job at its first checkpoint."""
    job = enqueue(jobs_queue, UntilSignalled)
    class_name = {"before": "Before", "in the worker": "InWorker", "in the horse": "InHorse"}[moment]
    worker = rq_workers.start(f"{SCRIPT}.Signalled{class_name}", "--max-jobs", "1")
    assert worker.wait(PATIENCE) == 0
    assert (job.get_status(), told(broker, job.id)) == (JobStatus.QUEUED, [0])
    assert_told_by_signal(broker, job)


def test_a_signal_while_the_horse_is_spawned_is_not_lost(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers
) -> None:
    """A fresh interpreter takes long to start; the signal waits for it."""
    job = enqueue(jobs_queue, UntilSignalled)
    worker = rq_workers.start(f"{SCRIPT}.SignalledSpawn")
    assert worker.wait(PATIENCE) == 0
    assert (job.get_status(), told(broker, job.id)) == (JobStatus.QUEUED, [0])
    assert_told_by_signal(broker, job)


@pytest.mark.parametrize("queues", [1, 2])
def test_a_signal_while_a_job_is_taken_out_of_the_queue_loses_none(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers, queues: int
) -> None:
    """The job goes back to the front of its queue; RQ leaves it nowhere."""
    job = jobs_queue.enqueue_call(worker_jobs.plain, args=(1,))
    second = jobs_queue.enqueue_call(worker_jobs.plain, args=(1,))
    more = ["other"] if queues == 2 else []
    worker = rq_workers.start(f"{SCRIPT}.SignalledAtDequeue", *more)
    assert worker.wait(PATIENCE) == 0
    assert (jobs_queue.job_ids, jobs_queue.intermediate_queue.get_job_ids()) == ([job.id, second.id], [])
    assert job.get_status() == JobStatus.QUEUED


def test_an_idle_worker_leaves(broker: Redis, rq_workers: Workers) -> None:
    """An idle worker exits within about a second."""
    worker = rq_workers.start()
    wait_for_worker(broker, "state", b"idle")
    worker.terminate()
    assert worker.wait(PATIENCE) == 0
    assert not broker.smembers("rq:workers")


def test_a_worker_that_waits_for_redis_leaves(jobs_queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal ends the wait of a worker between two attempts to connect."""
    slept_on = []

    def asleep(seconds: float) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        slept_on.append(seconds)

    monkeypatch.setattr(time, "sleep", asleep)
    worker = WithoutRedis([jobs_queue], connection=jobs_queue.connection, commands=False)
    assert not worker.work(logging_level="CRITICAL")
    assert not slept_on


class WithoutRedis(SimpleWorker):
    """Cannot connect."""

    def _dequeued(self, timeout: float | None) -> tuple[RQJob, Queue] | None:
        raise RedisConnectionError


def test_a_pool_of_workers_leaves_with_all_jobs_queued(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers
) -> None:
    """``rq worker-pool`` signals its workers, and each of them stops its job."""
    both = [enqueue(jobs_queue, UntilReleased) for _ in range(2)]
    pool = rq_workers.start(OURS, "--num-workers", "2", command="worker-pool")
    for job in both:
        wait_for(broker, job.id, 3)
    pool.terminate()
    assert pool.wait(PATIENCE) == 0
    assert {job.get_status() for job in both} == {JobStatus.QUEUED}
    assert set(jobs_queue.job_ids) == {job.id for job in both}
    for job in both:
        assert_told_by_signal(broker, job)
        release(broker, job.id)
    for job in both:
        assert_goes_on(jobs_queue, job)


def test_a_delay_is_kept_by_rqs_scheduler(broker: Redis, jobs_queue: Queue, rq_workers: Workers) -> None:
    """With ``--with-scheduler`` a job that waits after an interruption goes on by itself."""
    job = enqueue(jobs_queue, Delayed)
    worker = rq_workers.start(OURS, "--with-scheduler", "--max-jobs", "2")
    pid_of(broker, job.id)
    wait_for(broker, job.id, 3)
    request_stop(broker, job.id)
    pid_of(broker, job.id)  # of the second execution
    release(broker, job.id)
    assert worker.wait(PATIENCE) == 0
    progress = progress_of(broker, job.id)
    assert (progress.interruptions, progress.state) == (1, "completed")
    assert in_order(told(broker, job.id))


def test_rqs_own_worker_is_heard_through_redis(broker: Redis, jobs_queue: Queue, rq_workers: Workers) -> None:
    """RQ's worker does not signal its horse, but records the request in Redis, where the job looks."""
    job = enqueue(jobs_queue, UntilReleased)
    worker = rq_workers.start("rq.Worker", "-S", "json")
    wait_for(broker, job.id, 3)
    worker.terminate()
    assert worker.wait(PATIENCE) == 0
    assert (job.get_status(), jobs_queue.job_ids) == (JobStatus.QUEUED, [job.id])
    assert progress_of(broker, job.id).reason == "worker leaves"
    assert_goes_on(jobs_queue, job)
