"""Jobs steered from another terminal: real workers, really signalled and killed."""

from __future__ import annotations

import getpass
import json
import os
import signal
import socket
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from harness.queues.history import history
from harness.queues.rq import enqueue
from harness.queues.rq.keys import LEASES
from tests.commands import harness, one_line
from tests.jobs import Shared, plain
from tests.worker_jobs import Numbers, Stubborn, UntilReleased
from tests.workers import (
    OURS,
    PATIENCE,
    SIMPLE,
    Workers,
    in_order,
    pid_of,
    progress_of,
    release,
    repeated,
    told,
    wait_for,
)


@pytest.fixture
def run(redis_url: str) -> Any:
    """Run a command on the Redis of the tests."""
    return lambda name, *arguments: harness(name, *arguments, "--redis", redis_url)


def test_enqueue_and_work(broker: Redis, redis_url: str, run: Any) -> None:
    """A job is put into a queue with its arguments, and a worker does it; its id is what is printed."""
    enqueued = run(
        "enqueue", "tests.jobs:CountByIteration", "9", "--id", "nine", "--retry", "2", "--queue", "q"
    )
    assert enqueued.output == "nine\n"
    job = Queue("q", connection=broker, serializer="json").fetch_job("nine")
    assert job is not None
    assert (job.timeout, job.retries_left) == (-1, 2)
    assert "a job 'nine' already exists" in one_line(
        run("enqueue", "tests.jobs:CountByIteration", "9", "--id", "nine")
    )
    assert run("worker", "q", "--burst", "--kind", "simple", "--log", "ERROR").exit_code == 0
    assert progress_of(broker, "nine").done == 9


@pytest.mark.parametrize("job_id", ["a b", "a:b", "", "é"])
def test_enqueue_refuses_an_id_that_rq_would_not_take(broker: Redis, run: Any, job_id: str) -> None:
    """An id with other characters than RQ allows is one line and exit code 2, and nothing is enqueued."""
    assert f"got the id {job_id!r}" in one_line(
        run("enqueue", "tests.jobs:CountByIteration", "9", "--id", job_id)
    )
    assert Queue("default", connection=broker).count == 0


def test_enqueue_takes_a_scenario(
    broker: Redis, run: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scenario is enqueued in one of its forms; the plain form gets the ids that are pending now."""
    monkeypatch.setenv("HARNESS_DATABASE_URL", f"sqlite:///{tmp_path}/demo.db")
    harness("seed", "--orders", "5")
    said = json.loads(run("enqueue", "scenarios.orders", "--form", "steps", "--json").output)
    assert said["description"] == "OrdersInSteps()"
    run("enqueue", "scenarios.orders", "--form", "plain", "--id", "loop")
    job = Queue("default", connection=broker, serializer="json").fetch_job("loop")
    assert job is not None
    assert len(job.args[0]) == 5
    assert "has no form 'fancy'" in one_line(run("enqueue", "scenarios.orders", "--form", "fancy"))
    run("worker", "--burst", "--kind", "simple", "--log", "ERROR")


def test_a_worker_needs_a_name_of_its_own(
    rq_workers: Workers, jobs_queue: Queue, broker: Redis, run: Any
) -> None:
    """One that is taken is refused in a line."""
    job = enqueue(jobs_queue, UntilReleased)
    rq_workers.start(OURS, "--name", "ann")
    wait_for(broker, job.id, 1)
    assert "There exists an active worker named 'ann'" in one_line(
        run("worker", "--name", "ann", "--kind", "simple")
    )


def test_interrupt_asks_politely(rq_workers: Workers, jobs_queue: Queue, broker: Redis, run: Any) -> None:
    """By default the request goes through Redis; the beginning of an id is enough, and the job continues later."""
    job = enqueue(jobs_queue, UntilReleased)
    worker = rq_workers.start(OURS, "--burst")
    pid_of(broker, job.id)
    assert run("interrupt", job.id[:6], "--reason", "lunch").exit_code == 0
    pid_of(broker, job.id)  # of the next execution
    release(broker, job.id)
    assert worker.wait(PATIENCE) == 0
    assert progress_of(broker, job.id).interruptions == 1
    assert in_order(told(broker, job.id))


def test_interrupt_sends_a_signal_to_the_worker(
    rq_workers: Workers, jobs_queue: Queue, broker: Redis, run: Any
) -> None:
    """The signal acts as in a deploy: the worker requeues the job and exits."""
    job = enqueue(jobs_queue, UntilReleased)
    worker = rq_workers.start()
    wait_for(broker, job.id, 2)
    said = run("interrupt", job.id, "--signal", "TERM").output
    assert said == f"sent SIGTERM to worker {worker.pid} of job {job.id}\n"
    assert worker.wait(PATIENCE) == 0
    assert jobs_queue.get_job_ids() == [job.id]


def test_interrupt_kills_the_horse(rq_workers: Workers, jobs_queue: Queue, broker: Redis, run: Any) -> None:
    """The work horse ends, and the worker lives and requeues the job."""
    job = enqueue(jobs_queue, UntilReleased)
    worker = rq_workers.start(OURS, "--burst")
    pid_of(broker, job.id)
    wait_for(broker, job.id, 2)
    assert "sent SIGKILL to horse" in run("interrupt", job.id, "--kill", "horse").output
    pid_of(broker, job.id)  # of the next execution
    release(broker, job.id)
    assert worker.wait(PATIENCE) == 0
    assert progress_of(broker, job.id).crashes == 1
    assert repeated(told(broker, job.id)) <= 1


def test_a_pid_that_somebody_else_has_by_now_is_not_killed(
    jobs_queue: Queue, broker: Redis, run: Any
) -> None:
    """A kill requires that the process the job recorded is still a child of the job's worker."""
    job = enqueue(jobs_queue, Numbers, 3)
    broker.hset(job.key, mapping={"status": "started", "worker_name": "ann"})
    broker.sadd("rq:workers", "rq:worker:ann")
    worker: Any = {
        "hostname": socket.gethostname(),
        "pid": os.getpid() + 1,
        "state": "busy",
        "queues": "test",
    }
    broker.hset("rq:worker:ann", mapping=worker)
    assert "has not yet reported its process" in one_line(run("interrupt", job.id, "--kill", "horse"))
    heartbeat = {
        "at": 0.0, "epoch": 1, "done": 0, "saved": 0, "unsaved_s": 0.0, "elapsed_s": 0.0, "items": 0, "total": 3,
        "durability": "on_stop()", "worker": "ann", "host": "h", "pid": os.getpid(), "parent": 1,
    }  # fmt: skip
    broker.set(f"harness:pulse:{job.id}", json.dumps(heartbeat))
    refused = one_line(run("interrupt", job.id, "--kill", "horse"))
    assert f"process {os.getpid()}, which worked on job {job.id}, is gone" in refused


def test_interrupt_kills_the_worker(rq_workers: Workers, jobs_queue: Queue, broker: Redis, run: Any) -> None:
    """``--kill worker`` sends SIGKILL; only the worker's registration remains."""
    job = enqueue(jobs_queue, UntilReleased)
    worker = rq_workers.start(SIMPLE)
    wait_for(broker, job.id, 2)
    assert "no process for it: use --kill worker" in one_line(run("interrupt", job.id, "--kill", "horse"))
    run("interrupt", job.id, "--kill", "worker")
    assert worker.wait(PATIENCE) == -signal.SIGKILL
    assert "cannot be signalled" in one_line(run("interrupt", job.id, "--kill", "worker"))


def test_signals_stay_on_this_machine(
    rq_workers: Workers, jobs_queue: Queue, broker: Redis, run: Any
) -> None:
    """A worker elsewhere is not signalled, whatever process has its number here."""
    job = enqueue(jobs_queue, Stubborn, 3)
    rq_workers.start(OURS, "--name", "far")
    wait_for(broker, job.id, 3)
    broker.hset("rq:worker:far", "hostname", "elsewhere")
    line = one_line(run("interrupt", job.id, "--signal", "TERM"))
    assert f"is on elsewhere, this is {socket.gethostname()}" in line
    assert "secret" not in line


def test_interrupt_needs_a_job_at_work(jobs_queue: Queue, broker: Redis, run: Any) -> None:
    """One that waits is held by pause; one that is not there is not found."""
    job = enqueue(jobs_queue, Numbers, 3)
    assert "is not running: queued; use `harness pause`" in one_line(run("interrupt", job.id))
    assert "there is no job 'nothing'" in one_line(run("interrupt", "nothing"))
    enqueue(jobs_queue, Numbers, 3, options={"job_id": "twin-1"})
    enqueue(jobs_queue, Numbers, 3, options={"job_id": "twin-2"})
    assert "'twin' matches several jobs: twin-1, twin-2" in one_line(run("pause", "twin"))


def test_pause_resume_and_cancel(jobs_queue: Queue, broker: Redis, run: Any) -> None:
    """A job waits until it is resumed, and cancel ends it for good."""
    job = enqueue(jobs_queue, Numbers, 3)
    assert run("pause", job.id).exit_code == 0
    run("worker", "test", "--burst", "--kind", "simple", "--log", "ERROR")
    assert progress_of(broker, job.id).state == "paused"
    assert f"job {job.id} is back in queue test" in run("resume", job.id).output
    assert "was not paused" in run("resume", job.id).output
    assert run("cancel", job.id).exit_code == 0
    run("worker", "test", "--burst", "--kind", "simple", "--log", "ERROR")
    assert progress_of(broker, job.id).state == "cancelled"
    assert "is over: canceled" in one_line(run("pause", job.id))


def test_a_job_without_checkpoints_cannot_be_paused(jobs_queue: Queue, run: Any) -> None:
    """A job without checkpoints cannot be paused, because it would not notice."""
    job = jobs_queue.enqueue_call(plain, args=(3,))
    assert "has no checkpoint where it can stop" in one_line(run("pause", job.id))
    assert "has no checkpoint where it can stop" in one_line(run("cancel", job.id))


def test_recover_puts_back_the_jobs_of_the_dead(
    rq_workers: Workers, jobs_queue: Queue, broker: Redis, run: Any
) -> None:
    """Once its lease has run out."""
    assert run("recover").output == "no job of a crashed worker\n"
    job = enqueue(jobs_queue, UntilReleased)
    rq_workers.start(SIMPLE)
    wait_for(broker, job.id, 2)
    run("interrupt", job.id, "--kill", "worker")
    entry: Any = broker.zrange(LEASES, 0, -1)[0]
    broker.zadd(LEASES, {str(entry, "ascii"): 1})
    assert json.loads(run("recover", "--json").output) == [job.id]
    assert jobs_queue.get_job_ids() == [job.id]


def test_scale(jobs_queue: Queue, broker: Redis, run: Any) -> None:
    """A parallel job gets more instances; another job does not."""
    job = enqueue(jobs_queue, Shared, 40, 2)
    run("worker", "test", "--burst", "--kind", "simple", "--log", "ERROR")
    assert run("scale", job.id, "3").exit_code == 0
    assert "is not in RQ" in one_line(run("scale", "nothing", "3"))


def test_actions_are_in_the_history_of_the_job(jobs_queue: Queue, broker: Redis, run: Any) -> None:
    """Each action from a terminal stands in the history with its user, as those of the page do; so does a refusal."""
    job = enqueue(jobs_queue, Numbers, 3)
    for action in ("pause", "resume", "cancel"):
        run(action, job.id[:8])
    run("worker", "test", "--burst", "--kind", "simple", "--log", "ERROR")
    run("cancel", job.id)
    run("requeue", job.id)
    run("worker", "test", "--burst", "--kind", "simple", "--log", "ERROR")
    run("rewind", job.id, "--to", ":1")
    shared = enqueue(jobs_queue, Shared, 40, 2)
    run("worker", "test", "--burst", "--kind", "simple", "--log", "ERROR")
    run("scale", shared.id, "3")
    entries = [each for each in history(broker, job.id)[0] if each.action]
    assert [(each.action, each.reason) for each in entries] == [
        ("pause", None), ("resume", None), ("cancel", None), ("cancel", None),
        ("cancel", "refused: job " + job.id + " is over: canceled"), ("requeue", None), ("rewind", ":1"),
    ]  # fmt: skip
    assert {each.by for each in entries} == {f"{getpass.getuser()} in a terminal"}
    assert [(each.action, each.reason) for each in history(broker, shared.id)[0] if each.action] == [
        ("scale", "3")
    ]


def test_an_interrupt_is_in_the_history(
    rq_workers: Workers, jobs_queue: Queue, broker: Redis, run: Any
) -> None:
    """A request and a signal are in the history, with the reason or with the process that got the signal."""
    job = enqueue(jobs_queue, UntilReleased)
    worker = rq_workers.start(OURS)
    pid = pid_of(broker, job.id)
    wait_for(broker, job.id, 2)
    run("interrupt", job.id, "--kill", "horse")
    pid_of(broker, job.id)  # of the next execution
    run("interrupt", job.id, "--reason", "lunch")
    release(broker, job.id)
    worker.terminate()
    assert worker.wait(PATIENCE) == 0
    found = [each.reason for each in history(broker, job.id)[0] if each.action == "interrupt"]
    assert found == [f"SIGKILL to horse {pid}", "lunch"]
