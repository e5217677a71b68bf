"""Behaviour that RQ's workers and harness workers share: one suite for both, with jobs unaware of this package."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import rq
from redis import Redis
from rq import Callback, Queue, Repeat, Retry
from rq.command import send_kill_horse_command, send_stop_job_command
from rq.job import Dependency, JobStatus
from rq.job import Job as RQJob
from rq.results import Result
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker

from harness.queues.rq import SimpleWorker, SpawnWorker, Worker, enqueue
from tests import worker_jobs
from tests.worker_jobs import Numbers, UntilReleased
from tests.workers import PATIENCE, Workers, told, wait_for

FORKING, SPAWNING, SIMPLE = (
    (rq.Worker, Worker),
    (rq.SpawnWorker, SpawnWorker),
    (rq.SimpleWorker, SimpleWorker),
)
ALL = [*FORKING, *SPAWNING, *SIMPLE]
QUICK = [*FORKING, *SIMPLE]

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)  # RQ forks while the thread of its command channel runs, as of Python 3.12


def named(worker_class: type) -> str:
    """Return a name for a test's id."""
    return f"{worker_class.__module__.partition('.')[0]}-{worker_class.__name__}"


every_worker = pytest.mark.parametrize("worker_class", ALL, ids=named)
quick_worker = pytest.mark.parametrize("worker_class", QUICK, ids=named)


def work(worker_class: type[BaseWorker], queue: Queue) -> BaseWorker:
    """Do all there is to do, and return the worker as Redis has it."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    handlers = {number: signal.getsignal(number) for number in numbers}
    worker = worker_class([queue], connection=queue.connection, serializer=JSONSerializer)
    worker.work(burst=True, logging_level="CRITICAL")
    for number, handler in handlers.items():
        signal.signal(number, handler)
    worker.refresh()
    return worker


def called(job: RQJob) -> list[Any]:
    """Return which of RQ's callbacks were called."""
    return list(job.connection.lrange(f"called:{job.id}", 0, -1))


CALLBACKS: dict[str, Any] = {
    "on_success": Callback("tests.worker_jobs.succeeded"),
    "on_failure": Callback("tests.worker_jobs.failed"),
    "on_stopped": Callback("tests.worker_jobs.stopped"),
}


@pytest.mark.sample(4)
@every_worker
def test_success(jobs_queue: Queue, worker_class: type[BaseWorker]) -> None:
    """The result is kept, the callback called, dependents run, and all of it counted."""
    job = jobs_queue.enqueue_call(worker_jobs.plain, args=(3,), result_ttl=100, **CALLBACKS)
    dependent = jobs_queue.enqueue_call(worker_jobs.plain, args=(1,), depends_on=job)
    worker = work(worker_class, jobs_queue)
    assert (job.get_status(), job.return_value(), called(job)) == (JobStatus.FINISHED, 3, [b"success"])
    assert dependent.get_status() == JobStatus.FINISHED
    assert (worker.successful_job_count, worker.failed_job_count) == (2, 0)
    assert worker.total_working_time > 0
    assert set(jobs_queue.finished_job_registry.get_job_ids()) == {job.id, dependent.id}
    assert not jobs_queue.started_job_registry.get_job_and_execution_ids()
    assert 0 < jobs_queue.connection.ttl(job.key) <= 100


@pytest.mark.sample(4)
@every_worker
def test_failure(jobs_queue: Queue, worker_class: type[BaseWorker]) -> None:
    """The error is kept, the callback called once, and only dependents that allow it run."""
    job = jobs_queue.enqueue_call(worker_jobs.fails, **CALLBACKS)
    waits = jobs_queue.enqueue_call(worker_jobs.plain, args=(1,), depends_on=job)
    allows = jobs_queue.enqueue_call(
        worker_jobs.plain, args=(1,), depends_on=Dependency(jobs=[job], allow_failure=True)
    )
    worker = work(worker_class, jobs_queue)
    result = job.latest_result()
    assert result is not None
    assert "RuntimeError: cannot do that" in str(result.exc_string)
    assert (job.get_status(), called(job)) == (JobStatus.FAILED, [b"failure"])
    assert [waits.get_status(), allows.get_status()] == [JobStatus.DEFERRED, JobStatus.FINISHED]
    assert (worker.successful_job_count, worker.failed_job_count) == (1, 1)
    assert jobs_queue.failed_job_registry.get_job_ids() == [job.id]


@quick_worker
def test_retry_after_an_error(jobs_queue: Queue, worker_class: type[BaseWorker]) -> None:
    """The job is tried as often as it may be, and then failed."""
    job = jobs_queue.enqueue_call(worker_jobs.fails, retry=Retry(max=2))
    worker = work(worker_class, jobs_queue)
    job.refresh()
    assert (job.get_status(), job.retries_left) == (JobStatus.FAILED, 0)
    assert jobs_queue.connection.llen(f"done:{job.id}") == worker.failed_job_count == 3


@quick_worker
def test_a_function_that_returns_a_retry(jobs_queue: Queue, worker_class: type[BaseWorker]) -> None:
    """The function runs again, its result is of the type "retried", and the retry is counted."""
    job = jobs_queue.enqueue_call(worker_jobs.again, args=(2,))
    work(worker_class, jobs_queue)
    job.refresh()
    assert (job.get_status(), job.number_of_retries) == (JobStatus.FINISHED, 1)
    assert [each.type for each in job.results()] == [Result.Type.SUCCESSFUL, Result.Type.RETRIED]


@quick_worker
def test_timeout(jobs_queue: Queue, worker_class: type[BaseWorker]) -> None:
    """A job that takes too long is failed."""
    job = jobs_queue.enqueue_call(worker_jobs.hangs, timeout=1)
    work(worker_class, jobs_queue)
    result = job.latest_result()
    assert result is not None
    assert job.get_status() == JobStatus.FAILED
    assert "JobTimeoutException" in str(result.exc_string)


@quick_worker
def test_a_result_that_is_not_kept(jobs_queue: Queue, worker_class: type[BaseWorker]) -> None:
    """With a TTL of 0 the job is gone when it is done."""
    job = jobs_queue.enqueue_call(worker_jobs.plain, args=(1,), result_ttl=0)
    work(worker_class, jobs_queue)
    assert (told(jobs_queue.connection, job.id), jobs_queue.fetch_job(job.id)) == ([0], None)


@quick_worker
def test_repeat(jobs_queue: Queue, worker_class: type[BaseWorker]) -> None:
    """A function is repeated as often as requested; each round of a harness job starts from the beginning."""
    plain = jobs_queue.enqueue_call(worker_jobs.plain, args=(2,), repeat=Repeat(times=2))
    ours = enqueue(jobs_queue, Numbers, 3, options={"repeat": Repeat(times=2)})
    work(worker_class, jobs_queue)
    assert told(jobs_queue.connection, plain.id) == [0, 1] * 3
    assert told(jobs_queue.connection, ours.id) == [0, 1, 2] * 3
    assert plain.get_status() == ours.get_status() == JobStatus.FINISHED


@pytest.mark.parametrize("worker_class", FORKING, ids=named)
def test_a_killed_horse(jobs_queue: Queue, worker_class: type[BaseWorker]) -> None:
    """A function whose process crashes fails, and the result describes the end of the process."""
    job = jobs_queue.enqueue_call(worker_jobs.dies)
    worker = work(worker_class, jobs_queue)
    result = job.latest_result()
    assert result is not None
    assert "Work-horse terminated unexpectedly" in str(result.exc_string)
    assert (job.get_status(), worker.failed_job_count) == (JobStatus.FAILED, 1)


@pytest.mark.parametrize("of_ours", [False, True])
@pytest.mark.parametrize("worker_class", FORKING, ids=named)
def test_the_stop_command(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers, worker_class: type[BaseWorker], of_ours: bool
) -> None:
    """A job that is stopped on command is neither failed nor retried nor requeued, and neither is a harness job."""
    options: dict[str, Any] = {"retry": Retry(max=2), **CALLBACKS}
    if of_ours:
        job = enqueue(jobs_queue, UntilReleased, options=options)
    else:
        job = jobs_queue.enqueue_call(worker_jobs.plain_until_released, **options)
    worker = rq_workers.start(
        f"{worker_class.__module__}.{worker_class.__name__}", "-S", "json", "--max-jobs", "1"
    )
    wait_for(broker, job.id, 2)
    send_stop_job_command(broker, job.id, serializer=JSONSerializer)
    assert worker.wait(PATIENCE) == 0
    job.refresh()
    assert (job.get_status(), job.retries_left, called(job)) == (JobStatus.STOPPED, 2, [b"stopped"])
    assert (jobs_queue.job_ids, jobs_queue.failed_job_registry.get_job_ids()) == ([], [job.id])


@pytest.mark.parametrize("worker_class", FORKING, ids=named)
def test_the_kill_horse_command(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers, worker_class: type[BaseWorker]
) -> None:
    """A horse killed on command does not count as a crash: its job fails, a harness job too."""
    job = enqueue(jobs_queue, UntilReleased)
    worker = rq_workers.start(
        f"{worker_class.__module__}.{worker_class.__name__}", "-S", "json", "--max-jobs", "1"
    )
    wait_for(broker, job.id, 2)
    job.refresh()
    send_kill_horse_command(broker, str(job.worker_name))
    assert worker.wait(PATIENCE) == 0
    assert (job.get_status(), jobs_queue.job_ids) == (JobStatus.FAILED, [])
