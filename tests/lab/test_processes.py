"""A job's processes: its children, its work horse when it crashes or hangs, and its time limit."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue, Retry
from rq.job import JobStatus

from harness.queues.rq import enqueue
from harness.queues.rq.keys import LEASES
from tests.process_jobs import (
    HoldsTheLock,
    NeverAdvances,
    OwnHandler,
    Parent,
    Pools,
    SpawnPools,
    Stuck,
    Swallows,
    SwallowsAll,
    Terminates,
)
from tests.queues.test_recovery import SOON, reason
from tests.workers import (
    ALL,
    OURS,
    PATIENCE,
    SIMPLE,
    SPAWN,
    WITH_HORSES,
    Workers,
    in_order,
    pid_of,
    progress_of,
    release,
    told,
    wait_for,
)

FRESH = str((repr(signal.SIG_DFL), repr(signal.default_int_handler), 0))
"""Handlers of SIGTERM and SIGINT in a fresh interpreter, and the number of signals that it blocks."""
INHERITED = str((repr(signal.SIG_DFL), repr(signal.getsignal(signal.SIGINT)), 0))
"""The same in a child of a process started as this one was: a shell has SIGINT ignored in the background."""


@pytest.mark.parametrize("worker_class", ALL)
@pytest.mark.parametrize("job_class", [Pools, Terminates])
def test_a_job_can_end_its_children(
    jobs_queue: Queue, rq_workers: Workers, worker_class: str, job_class: type[Pools]
) -> None:
    """SIGTERM ends a process that the job has forked; a pool of processes ends with its block."""
    job = enqueue(jobs_queue, job_class, 2)
    rq_workers.finish(worker_class)
    assert job.get_status() == JobStatus.FINISHED
    assert in_order(told(jobs_queue.connection, job.id))
    signals = jobs_queue.connection.lrange(f"signals:{job.id}", 0, -1)
    expected = FRESH if worker_class == SPAWN else INHERITED
    assert signals == ([expected.encode()] * 2 if job_class is Pools else [])


def test_spawned_children_start_clean(jobs_queue: Queue, rq_workers: Workers) -> None:
    """A fresh interpreter has the default handlers and blocks nothing."""
    job = enqueue(jobs_queue, SpawnPools, 1)
    rq_workers.finish()
    assert jobs_queue.connection.lrange(f"signals:{job.id}", 0, -1) == [FRESH.encode()]


def test_a_handler_of_the_job_s_own_is_inherited(jobs_queue: Queue, rq_workers: Workers) -> None:
    """A child inherits the handler that the job's author set."""
    job = enqueue(jobs_queue, OwnHandler, 1)
    rq_workers.finish()
    assert job.get_status() == JobStatus.FINISHED
    (signals,) = jobs_queue.connection.lrange(f"signals:{job.id}", 0, -1)
    assert "('<Handlers.SIG_IGN: 1>', " in str(signals)


@pytest.mark.parametrize("worker_class", WITH_HORSES)
def test_children_of_a_dead_horse_end_before_its_job_runs_again(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers, worker_class: str
) -> None:
    """Children of a crashed horse end, because they would run in parallel with the repeated work."""
    job = enqueue(jobs_queue, Parent)
    rq_workers.start(worker_class)
    wait_for(broker, job.id, 4)
    answer = broker.blpop([f"child:{job.id}"], PATIENCE)
    assert answer is not None
    child = os.pidfd_open(int(answer[1]))
    try:
        os.kill(pid_of(broker, job.id), signal.SIGKILL)
        pid_of(broker, job.id)  # the job runs again
        ended, _, _ = select.select([child], [], [], 0)
    finally:
        os.close(child)
    assert ended
    release(broker, job.id)


def test_an_item_may_hold_the_interpreter_s_lock_for_longer_than_a_lease(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers, tmp_path: Path
) -> None:
    """The worker renews the lease, so that no other worker treats the job as crashed."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    rq_workers.start(queue="other", seconds=SOON)
    job = enqueue(jobs_queue, HoldsTheLock, str(path))
    worker = rq_workers.start(OURS, "--max-jobs", "1", seconds=SOON)
    wait_for(broker, job.id, 3)
    with path.open("wb", buffering=0) as pipe:  # opened by the job: it is in the read, or about to be
        wait_for_renewals(broker, 12)  # three leases
        assert job.get_status() == JobStatus.STARTED
        pipe.write(b"x")
    assert worker.wait(PATIENCE) == 0
    assert job.get_status() == JobStatus.FINISHED
    assert in_order(told(broker, job.id))
    assert progress_of(broker, job.id).crashes == 0


def wait_for_renewals(connection: Redis, count: int) -> None:
    """Wait until leases were renewed *count* times."""
    connection.config_set("notify-keyspace-events", "Kz")
    with connection.pubsub() as events:
        events.subscribe(f"__keyspace@0__:{LEASES}")
        seen = 0
        while seen <= count:  # the first is the subscription
            message = events.get_message(timeout=PATIENCE)
            assert message, f"{seen} renewals of {count}"
            seen += message["data"] in {1, b"zadd"}


@pytest.mark.parametrize("worker_class", [OURS, SIMPLE, SPAWN, "rq.Worker"])
@pytest.mark.parametrize("job_class", [Swallows, SwallowsAll])
def test_a_timeout_is_not_swallowed(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers, worker_class: str, job_class: type[Swallows]
) -> None:
    """A job that catches its errors and goes on is still interrupted, and resumed, because it had got on."""
    job = enqueue(jobs_queue, job_class, 5)
    rq_workers.finish(worker_class, "-S", "json")
    assert job.get_status() == JobStatus.FINISHED
    swallowed = broker.lrange(f"swallowed:{job.id}", 0, -1)
    assert swallowed == ([b"Propagated"] if job_class is SwallowsAll else [])
    assert progress_of(broker, job.id).errors == 1
    assert sorted(set(told(broker, job.id))) == [0, 1, 2, 3, 4]


def test_a_job_that_did_not_get_on_fails_with_rq_s_timeout(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers
) -> None:
    """A job without progress that runs out of time fails by RQ's own rule, with RQ's reason."""
    job = enqueue(jobs_queue, NeverAdvances)
    rq_workers.finish()
    assert job.get_status(refresh=True) == JobStatus.FAILED
    assert "JobTimeoutException" in reason(job)
    assert progress_of(broker, job.id).errors == 1


def test_a_job_that_its_worker_killed_for_time_goes_on(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers
) -> None:
    """If the timeout did not reach the job, the worker kills the horse, which counts as a crash."""
    job = enqueue(jobs_queue, Stuck, 5, options={"timeout": 100, "retry": Retry(max=1)})
    rq_workers.finish("tests.process_jobs.Impatient", "--job-monitoring-interval", "1")
    assert job.get_status(refresh=True) == JobStatus.FINISHED
    assert (progress_of(broker, job.id).crashes, job.retries_left) == (1, 1)
    assert sorted(set(told(broker, job.id))) == [0, 1, 2, 3, 4]
