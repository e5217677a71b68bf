"""Several items at a time in real workers, which get real signals."""

from __future__ import annotations

import os
import signal

import pytest
from redis import Redis
from rq import Queue

from harness.queues.rq import enqueue
from tests.several_jobs import InCoroutines, InThreads
from tests.workers import PATIENCE, Workers, pid_of, progress_of, told, wait_for

NUMBERS = 30
both = pytest.mark.parametrize("job_class", [InThreads, InCoroutines])


def give(broker: Redis, job_id: str, tokens: int) -> None:
    """Let so many items end."""
    broker.rpush(f"token:{job_id}", *range(tokens))


@both
def test_a_kill_repeats_no_more_than_what_was_in_progress(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers, job_class: type[InThreads]
) -> None:
    """With a save after each item; what lay beyond the cursor is not repeated either."""
    job = enqueue(jobs_queue, job_class, NUMBERS)
    worker = rq_workers.start("harness.queues.rq.Worker", "--max-jobs", "2")
    give(broker, job.id, 8)
    wait_for(broker, job.id, 8)
    os.kill(pid_of(broker, job.id), signal.SIGKILL)
    pid_of(broker, job.id)  # of the next execution
    give(broker, job.id, 2 * NUMBERS)
    assert worker.wait(PATIENCE) == 0
    done = told(broker, job.id)
    assert set(done) == set(range(NUMBERS))
    assert len(done) - NUMBERS <= job_class.concurrency
    assert (progress_of(broker, job.id).crashes, progress_of(broker, job.id).beyond) == (1, [])


@both
def test_a_deploy_repeats_nothing(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers, job_class: type[InThreads]
) -> None:
    """SIGTERM lets the items in progress finish and begins no more; another worker does the rest."""
    job = enqueue(jobs_queue, job_class, NUMBERS)
    worker = rq_workers.start()
    give(broker, job.id, 8)
    wait_for(broker, job.id, 8)
    worker.terminate()
    give(broker, job.id, 2 * NUMBERS)
    assert worker.wait(PATIENCE) == 0
    rq_workers.finish()
    assert sorted(told(broker, job.id)) == list(range(NUMBERS))
    assert progress_of(broker, job.id).crashes == 0
