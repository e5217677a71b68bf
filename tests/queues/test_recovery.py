"""Jobs whose worker crashed are requeued with their progress; real processes, really killed."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from redis import Redis
from rq import Callback, Queue, Retry
from rq.exceptions import NoSuchJobError
from rq.job import Job as RQJob
from rq.job import JobStatus

from harness.errors import UsageError
from harness.lab.processes import kill_both
from harness.overrides import Overrides, overriding
from harness.queues.periodic import recover_seconds
from harness.queues.rq import SimpleWorker, enqueue, keep_recovering, recover
from harness.queues.rq.keys import LEASES, SWEEP_LOCK
from harness.queues.rq.recovery import Sweeper, put_back
from harness.queues.rq.requests import PERFORM
from harness.stops import Count
from tests import worker_jobs
from tests.worker_jobs import Dies, Numbers, Stubborn, TakenOver, UntilReleased
from tests.workers import (
    OURS,
    PATIENCE,
    SIMPLE,
    WITH_HORSES,
    Workers,
    expire_leases,
    finish_here,
    in_order,
    leases,
    pid_of,
    progress_of,
    release,
    repeated,
    told,
    wait_for,
)

SOON = 2.0
"""Setting of workers that only look for crashes: three times a second."""


def reason(job: RQJob) -> str:
    """Return why RQ says that the job failed."""
    result = job.latest_result()
    assert result is not None
    return str(result.exc_string)


def wait_until_queued(queue: Queue, job: RQJob, watcher: str = "seen") -> None:
    """Wait until the job is in its queue, where no worker takes it, and leave it there."""
    assert queue.connection.blmove(queue.key, watcher, PATIENCE) == job.id.encode()
    queue.connection.lmove(watcher, queue.key)


@pytest.mark.parametrize("worker_class", WITH_HORSES)
def test_a_killed_horse_s_job_goes_on_at_once(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers, worker_class: str
) -> None:
    """The worker requeues the job instead of failing it, uses up no retry, and counts the crash."""
    job = enqueue(jobs_queue, UntilReleased, options={"retry": Retry(max=2)})
    worker = rq_workers.start(worker_class, "--max-jobs", "2")
    wait_for(broker, job.id, 5)
    os.kill(pid_of(broker, job.id), signal.SIGKILL)
    pid_of(broker, job.id)  # of the next execution
    release(broker, job.id)
    assert worker.wait(PATIENCE) == 0
    job.refresh()
    assert (job.get_status(), job.retries_left) == (JobStatus.FINISHED, 2)
    assert progress_of(broker, job.id).crashes == 1
    assert repeated(told(broker, job.id)) <= 1  # the item that it was at
    assert [result.type.name for result in job.results()] == ["SUCCESSFUL"]
    assert not jobs_queue.failed_job_registry.get_job_ids()


@pytest.mark.parametrize("worker_class", WITH_HORSES)
def test_an_orphan_ends_with_its_worker(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers, worker_class: str
) -> None:
    """The horse of a killed worker stops at a checkpoint and puts its job back itself; nothing is done twice."""
    job = enqueue(jobs_queue, UntilReleased)
    worker = rq_workers.start(worker_class)
    wait_for(broker, job.id, 3)
    worker.kill()
    wait_until_queued(jobs_queue, job)
    job.refresh()
    assert job.get_status() == JobStatus.QUEUED
    assert in_order(told(broker, job.id))
    assert (progress_of(broker, job.id).crashes, broker.zcard(LEASES)) == (0, 0)


@pytest.mark.parametrize("worker_class", WITH_HORSES)
def test_a_job_whose_worker_and_horse_were_killed_is_back(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers, worker_class: str
) -> None:
    """A worker of another queue puts it back once its lease has ended."""
    rq_workers.start(queue="other", seconds=SOON)
    job = enqueue(jobs_queue, UntilReleased)
    worker = rq_workers.start(worker_class)
    wait_for(broker, job.id, 5)
    kill_both(worker.pid, pid_of(broker, job.id))
    expire_leases(broker, job.id)
    wait_until_queued(jobs_queue, job)
    assert not jobs_queue.started_job_registry.get_job_and_execution_ids()
    release(broker, job.id)
    finish_here(jobs_queue)
    assert (job.get_status(), progress_of(broker, job.id).crashes) == (JobStatus.FINISHED, 1)
    assert repeated(told(broker, job.id)) <= 1


def test_it_takes_no_longer_than_promised(broker: Redis, jobs_queue: Queue, rq_workers: Workers) -> None:
    """By default a lease ends at most 10 s after a crash, and a sweep follows within 2.5 s: 15 s at most."""
    assert recover_seconds() == 15
    job = enqueue(jobs_queue, UntilReleased)
    worker = rq_workers.start(SIMPLE)
    wait_for(broker, job.id, 5)
    worker.kill()
    worker.wait(PATIENCE)
    now, _ = broker.time()
    [(_, ends)] = leases(broker)
    assert (ends - now <= 11, Sweeper(broker).interval) == (True, 2.5)


def test_a_lease_runs_out_by_itself(broker: Redis, jobs_queue: Queue, rq_workers: Workers) -> None:
    """A short one, of a worker that was killed: another worker puts the job back when the time has passed."""
    rq_workers.start(queue="other", seconds=SOON)
    job = enqueue(jobs_queue, UntilReleased)
    worker = rq_workers.start(SIMPLE, seconds=SOON)
    wait_for(broker, job.id, 5)
    worker.kill()
    wait_until_queued(jobs_queue, job)


def test_a_busy_worker_puts_jobs_back_too(broker: Redis, jobs_queue: Queue, rq_workers: Workers) -> None:
    """The only worker left may run another job for hours, even a plain function, and still recovers jobs."""
    busy = Queue("busy", connection=broker, serializer="json").enqueue_call(worker_jobs.plain_until_released)
    rq_workers.start(queue="busy", seconds=SOON)
    wait_for(broker, busy.id, 1)
    job = enqueue(jobs_queue, UntilReleased)
    worker = rq_workers.start(SIMPLE)
    wait_for(broker, job.id, 5)
    worker.kill()
    worker.wait(PATIENCE)
    expire_leases(broker, job.id)
    wait_until_queued(jobs_queue, job)
    assert busy.get_status() == JobStatus.STARTED


def test_jobs_of_rqs_own_worker_are_recovered_as_well(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers
) -> None:
    """Jobs of RQ's own worker hold leases too, so any harness worker recovers them."""
    rq_workers.start(queue="other", seconds=SOON)
    job = enqueue(jobs_queue, UntilReleased)
    worker = rq_workers.start("rq.Worker", "-S", "json")
    wait_for(broker, job.id, 5)
    kill_both(worker.pid, pid_of(broker, job.id))
    expire_leases(broker, job.id)
    wait_until_queued(jobs_queue, job)
    assert job.get_status() == JobStatus.QUEUED


@pytest.mark.parametrize("worker_class", [*WITH_HORSES, "rq.Worker"])
def test_a_frozen_horse_does_no_harm_when_it_wakes(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers, worker_class: str
) -> None:
    """A horse that was replaced and wakes again leaves the job and its queue to its successor."""
    job = enqueue(jobs_queue, Stubborn, 5, options={"retry": Retry(max=2)})
    dependent = jobs_queue.enqueue_call(worker_jobs.plain, args=(1,), depends_on=job)
    worker = rq_workers.start(worker_class, "-S", "json")
    wait_for(broker, job.id, 3)
    horse = pid_of(broker, job.id)
    for pid in (worker.pid, horse):
        os.kill(pid, signal.SIGSTOP)
    expire_leases(broker, job.id)
    successor = rq_workers.start(OURS, "--max-jobs", "2")
    broker.rpush(f"go:{pid_of(broker, job.id)}", "on")  # it has the third item before it, once more
    assert successor.wait(PATIENCE) == 0
    before = broker.hgetall(job.key)
    for pid in (horse, worker.pid):
        os.kill(pid, signal.SIGCONT)
    broker.rpush(f"go:{horse}", "on")
    worker.terminate()
    assert worker.wait(PATIENCE) == 0
    assert broker.hgetall(job.key) == before
    assert (job.get_status(), dependent.get_status()) == (JobStatus.FINISHED, JobStatus.FINISHED)
    assert (told(broker, job.id), told(broker, dependent.id)) == ([0, 1, 2, 2, 3, 4], [0])
    assert [result.type.name for result in job.results()] == ["SUCCESSFUL"]
    assert not jobs_queue.job_ids
    assert not jobs_queue.started_job_registry.get_job_and_execution_ids()
    assert not jobs_queue.failed_job_registry.get_job_ids()


def test_a_frozen_horse_that_wakes_before_its_successor_begins(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers
) -> None:
    """The frozen horse saves its work, and leaves the requeued job in the queue exactly once."""
    rq_workers.start(queue="other", seconds=SOON)
    job = enqueue(jobs_queue, Stubborn)
    worker = rq_workers.start(OURS, "--max-jobs", "1")
    wait_for(broker, job.id, 3)
    horse = pid_of(broker, job.id)
    os.kill(horse, signal.SIGSTOP)
    expire_leases(broker, job.id)
    wait_until_queued(jobs_queue, job)
    before = job.get_status(), jobs_queue.job_ids
    os.kill(horse, signal.SIGCONT)
    broker.rpush(f"go:{horse}", "on")
    assert worker.wait(PATIENCE) == 0
    assert told(broker, job.id) == list(range(progress_of(broker, job.id).cursor + 1))
    assert (job.get_status(), jobs_queue.job_ids) == before == (JobStatus.QUEUED, [job.id])
    assert not jobs_queue.started_job_registry.get_job_and_execution_ids()


@pytest.mark.parametrize(
    ("numbers", "fail"), [(3, False), (3, True), (5, False)], ids=["completes", "fails", "stops"]
)
def test_whoever_was_replaced_has_nothing_to_say(
    broker: Redis, jobs_queue: Queue, numbers: int, fail: bool
) -> None:
    """However a replaced execution ends, it calls no callback, changes no count, and does not requeue the job."""
    called = Callback("tests.worker_jobs.succeeded"), Callback("tests.worker_jobs.failed")
    options = {"on_success": called[0], "on_failure": called[1], "retry": Retry(max=2)}
    job = enqueue(jobs_queue, TakenOver, numbers, fail=fail, options=options)
    worker = SimpleWorker([jobs_queue], connection=broker, commands=False)
    with overriding(Overrides(stops=[Count(4)])):
        worker.work(burst=True, max_jobs=1, logging_level="CRITICAL")
    worker.refresh()  # type: ignore[no-untyped-call]
    job.refresh()
    assert (job.get_status(), jobs_queue.job_ids, job.retries_left) == (JobStatus.QUEUED, [job.id], 2)
    assert (worker.successful_job_count, worker.failed_job_count) == (0, 0)
    assert not broker.exists(f"called:{job.id}")
    assert not jobs_queue.started_job_registry.get_job_and_execution_ids()
    assert not job.results()


def test_whoever_was_replaced_before_it_began_does_nothing(broker: Redis, jobs_queue: Queue) -> None:
    """A worker that was frozen between taking the job and starting it leaves it to its successor."""
    job = enqueue(jobs_queue, Numbers, 3)
    broker.delete(jobs_queue.key)
    worker = SimpleWorker([jobs_queue], connection=broker, commands=False)
    execution = worker.prepare_execution(job)
    assert put_back(broker, jobs_queue, execution.composite_key, died=True)
    assert not worker.perform_job(job, jobs_queue, execution)
    assert (told(broker, job.id), jobs_queue.job_ids) == ([], [job.id])
    assert job.get_status() == JobStatus.QUEUED


def test_a_job_that_kills_its_horse_is_failed_in_the_end(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers
) -> None:
    """After max_crashes crashes without an item done the job fails, with the reason named and its progress kept."""
    job = enqueue(jobs_queue, Dies, 5)
    rq_workers.finish()
    job.refresh()
    assert job.get_status() == JobStatus.FAILED
    assert "CrashLimit: Dies crashed 3 times" in reason(job)
    progress = progress_of(broker, job.id)
    assert (progress.cursor, progress.done) == (1, 2)
    assert broker.lrange(f"done:{job.id}", 0, -1) == [b"0", b"1", *[b"dies"] * 3]


def test_a_job_that_cannot_be_started_is_failed_in_the_end(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers
) -> None:
    """The job fails in the end even if it kills each process that imports it, which no execution can count."""
    job = jobs_queue.enqueue_call(PERFORM, args=("tests.deadly:Job", [], {}))
    rq_workers.finish()
    job.refresh()
    assert job.get_status() == JobStatus.FAILED
    assert "crashed 11 times before it reached the job's code" in reason(job)
    assert not jobs_queue.started_job_registry.get_job_and_execution_ids()


@pytest.mark.parametrize("entry_of_rqs", [True, False])
def test_what_was_dequeued_and_never_started_is_recovered(
    broker: Redis, jobs_queue: Queue, monkeypatch: pytest.MonkeyPatch, entry_of_rqs: bool
) -> None:
    """The second sweep requeues the job, whether or not RQ's started registry has an entry for it."""
    monkeypatch.setenv("HARNESS_RECOVER_SECONDS", "0.000001")
    job = enqueue(jobs_queue, Numbers, 3)
    other = jobs_queue.enqueue_call(worker_jobs.plain, args=(1,))
    broker.lmove(jobs_queue.key, jobs_queue.intermediate_queue_key)
    if entry_of_rqs:
        SimpleWorker([jobs_queue], connection=broker, commands=False).prepare_execution(job)
    broker.delete(LEASES)
    assert recover(broker) == []
    assert recover(broker) == [job.id]
    assert set(jobs_queue.job_ids) == {job.id, other.id}
    assert not jobs_queue.intermediate_queue.get_job_ids()
    assert recover(broker) == []
    assert not broker.exists(LEASES)


def test_a_worker_that_starts_puts_jobs_back_before_rq_fails_them(broker: Redis, jobs_queue: Queue) -> None:
    """A job that was given up by RQ as well, since no worker ran for long, is finished and not failed."""
    job = enqueue(jobs_queue, Numbers, 3)
    broker.delete(jobs_queue.key)
    execution = SimpleWorker([jobs_queue], connection=broker, commands=False).prepare_execution(job)
    broker.hset(job.key, "status", JobStatus.STARTED)
    broker.zadd(jobs_queue.started_job_registry.key, {execution.composite_key: 1})
    broker.delete(LEASES)
    finish_here(jobs_queue)
    assert (job.get_status(), told(broker, job.id)) == (JobStatus.FINISHED, [0, 1, 2])


def test_a_job_is_put_back_once(broker: Redis, jobs_queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is requeued once, however many of its executions have crashed."""
    monkeypatch.setenv("HARNESS_RECOVER_SECONDS", "0.000001")
    job = enqueue(jobs_queue, Numbers, 3)
    broker.delete(jobs_queue.key)
    for _ in range(3):
        SimpleWorker([jobs_queue], connection=broker, commands=False).prepare_execution(job)
    assert [job_id for _ in range(3) for job_id in recover(broker)] == [job.id]
    assert jobs_queue.job_ids == [job.id]


def test_recovery_can_run_by_itself(
    broker: Redis, jobs_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no harness worker runs, a loop recovers jobs until it is asked to end."""
    monkeypatch.setenv("HARNESS_RECOVER_SECONDS", str(SOON))
    job = enqueue(jobs_queue, Numbers, 3)
    broker.lmove(jobs_queue.key, jobs_queue.intermediate_queue_key)
    until = threading.Event()
    loop = threading.Thread(target=keep_recovering, args=(broker, until))
    loop.start()
    wait_until_queued(jobs_queue, job)
    until.set()
    loop.join(PATIENCE)
    assert not loop.is_alive()


@pytest.mark.parametrize(
    "turns", [[0.0, 1.0, 1.0, 1.0], [0.0, 1.0, 2.0, 3.0]], ids=["once late", "always late"]
)
def test_the_living_may_renew_their_leases_after_an_outage(
    broker: Redis, jobs_queue: Queue, monkeypatch: pytest.MonkeyPatch, turns: list[float]
) -> None:
    """After a long gap a sweeper waits for two turns, and no longer, even if each turn is late on a busy machine."""
    monkeypatch.setenv("HARNESS_RECOVER_SECONDS", "0.000001")
    clock = iter(turns)
    sweeper = Sweeper(broker, clock=lambda: next(clock))
    job = enqueue(jobs_queue, Numbers, 3)
    broker.delete(jobs_queue.key)
    execution = SimpleWorker([jobs_queue], connection=broker, commands=False).prepare_execution(job)
    broker.zadd(LEASES, {execution.composite_key: 1})
    queued = []
    for _ in range(3):
        broker.delete(SWEEP_LOCK)
        sweeper.turn()
        queued.append(jobs_queue.job_ids)
    assert queued == [[], [], [job.id]]


def test_what_is_not_ours_is_left_to_rq(
    broker: Redis, jobs_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain function, and a job that is gone, are not touched by any number of sweeps."""
    monkeypatch.setenv("HARNESS_RECOVER_SECONDS", "0.000001")
    job = jobs_queue.enqueue_call(worker_jobs.plain, args=(1,))
    broker.lmove(jobs_queue.key, jobs_queue.intermediate_queue_key)
    SimpleWorker([jobs_queue], connection=broker, commands=False).prepare_execution(job)
    assert [recover(broker) for _ in range(3)] == [[], [], []]
    assert jobs_queue.intermediate_queue.get_job_ids() == [job.id]
    job.delete()
    assert [recover(broker) for _ in range(3)] == [[], [], []]
    with pytest.raises(NoSuchJobError):
        job.refresh()
    assert not broker.exists(LEASES)


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_a_setting_that_is_no_time_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The error says what was found and what is allowed."""
    monkeypatch.setenv("HARNESS_RECOVER_SECONDS", text)
    with pytest.raises(UsageError, match=f"HARNESS_RECOVER_SECONDS takes seconds over 0.*got '{text}'"):
        recover_seconds()
