"""Executions whose processes are gone: recovered at once on the same machine, and only there."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rq import Queue

from harness.lab.processes import kill_both
from harness.queues.owners import are_gone, here, owner
from harness.queues.rq import enqueue, recover
from harness.queues.rq.keys import OWNERS
from tests.worker_jobs import Stubborn, UntilReleased
from tests.workers import (
    OURS,
    PATIENCE,
    SIMPLE,
    SPAWN,
    Workers,
    leases,
    pid_of,
    progress_of,
    release,
    wait_for,
)

HOUR = 3600
"""Seconds of a lease that outlasts every test."""

MACHINE = here() or ""

pytestmark = pytest.mark.skipif(not MACHINE, reason="needs /proc with a boot id and namespaces, as on Linux")


@pytest.mark.parametrize("worker_class", [OURS, SPAWN, SIMPLE, "rq.worker.Worker"])
def test_a_new_worker_takes_over_at_its_start(
    jobs_queue: Queue, rq_workers: Workers, worker_class: str
) -> None:
    """If the processes of a job were killed, the next worker of the machine continues it, however long its lease is."""
    redis = jobs_queue.connection
    json = ("-S", "json") if worker_class.startswith("rq.") else ()
    worker = rq_workers.start(worker_class, *json, seconds=HOUR)
    job = enqueue(jobs_queue, UntilReleased)
    horse = pid_of(redis, job.id)
    wait_for(redis, job.id, 3)
    if horse == worker.pid:
        worker.kill()
    else:
        kill_both(worker.pid, horse)
    worker.wait(PATIENCE)
    assert min(ends for _, ends in leases(redis)) > redis.time()[0] + HOUR / 3
    rq_workers.start(OURS, seconds=HOUR)
    assert pid_of(redis, job.id) != horse
    release(redis, job.id)
    rq_workers.finish()
    assert job.get_status() == "finished"
    assert progress_of(redis, job.id).crashes == 1
    assert not redis.exists(OWNERS)


def test_stopped_processes_are_left_alone(jobs_queue: Queue, rq_workers: Workers) -> None:
    """A stopped process is not gone."""
    redis = jobs_queue.connection
    worker = rq_workers.start(OURS, seconds=HOUR)
    job = enqueue(jobs_queue, UntilReleased)
    horse = pid_of(redis, job.id)
    wait_for(redis, job.id, 1)
    for pid in (horse, worker.pid):
        os.kill(pid, signal.SIGSTOP)
    try:
        assert recover(redis) == []
    finally:
        for pid in (worker.pid, horse):
            os.kill(pid, signal.SIGCONT)
    release(redis, job.id)
    rq_workers.finish()
    assert progress_of(redis, job.id).crashes == 0


def test_a_horse_that_goes_on_without_its_worker_is_left_alone(
    jobs_queue: Queue, rq_workers: Workers
) -> None:
    """While the horse is there, its execution is not gone; it ends at its next checkpoint and is no crash."""
    redis = jobs_queue.connection
    worker = rq_workers.start(OURS, seconds=HOUR)
    job = enqueue(jobs_queue, Stubborn)
    horse = pid_of(redis, job.id)
    wait_for(redis, job.id, 3)
    worker.kill()
    worker.wait(PATIENCE)
    assert recover(redis) == []
    redis.rpush(f"go:{horse}", "on")
    release(redis, job.id)
    rq_workers.finish()
    assert progress_of(redis, job.id).crashes == 0


def test_a_stopped_horse_whose_worker_is_killed_is_recovered(jobs_queue: Queue, rq_workers: Workers) -> None:
    """The kernel ends it: it sends SIGHUP to a stopped process group whose last parent in the session ends."""
    redis = jobs_queue.connection
    worker = rq_workers.start(OURS, seconds=HOUR)
    job = enqueue(jobs_queue, UntilReleased)
    horse = pid_of(redis, job.id)
    wait_for(redis, job.id, 1)
    ended = os.pidfd_open(horse)
    os.kill(horse, signal.SIGSTOP)
    while not is_stopped(horse):
        os.sched_yield()
    worker.kill()
    worker.wait(PATIENCE)
    assert select.select([ended], [], [], PATIENCE)[0]
    os.close(ended)
    assert recover(redis) == [job.id]
    release(redis, job.id)
    rq_workers.finish()
    assert (progress_of(redis, job.id).state, progress_of(redis, job.id).crashes) == ("completed", 1)


def is_stopped(pid: int) -> bool:
    """Tell whether SIGSTOP has stopped all threads of a process."""
    states = [
        path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")
    ]
    return set(states) == {"T"}


def test_a_process_of_another_machine_is_not_gone(jobs_queue: Queue, rq_workers: Workers) -> None:
    """Only the lease decides about executions of another machine, boot or container."""
    broker = jobs_queue.connection
    worker = rq_workers.start(SIMPLE, seconds=HOUR)
    job = enqueue(jobs_queue, UntilReleased)
    pid_of(broker, job.id)
    wait_for(broker, job.id, 1)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(60)
    found: dict[bytes, bytes] = broker.hgetall(OWNERS)  # type: ignore[assignment]
    ((entry, text),) = found.items()
    broker.hset(OWNERS, entry, b"another" + text)
    assert recover(broker) == []
    broker.hset(OWNERS, entry, text)
    assert recover(broker) == [job.id]


def test_a_pid_of_another_process_does_not_count() -> None:
    """A process is known by its start time too, because the kernel uses pids again."""
    mine = owner(None)
    assert mine is not None
    assert not are_gone(mine, MACHINE)
    assert are_gone(f"{MACHINE} {os.getpid()}:1", MACHINE)
    assert not are_gone(f"{mine} {os.getpid()}:1", MACHINE)


def test_a_process_that_has_ended_is_gone() -> None:
    """A zombie is gone as well."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        text = owner(child.pid)
        assert text is not None
        theirs = f"{MACHINE} {next(each for each in text.split(' ')[1:] if each.startswith(f'{child.pid}:'))}"
        assert not are_gone(theirs, MACHINE)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert are_gone(theirs, MACHINE)
    assert are_gone(theirs, MACHINE)


@pytest.mark.parametrize(
    "text",
    ["", "x", "MACHINE", "MACHINE ", "MACHINE 1", "MACHINE -1:5", "MACHINE 99999999999:5", "MACHINE x:y"],
)
def test_a_text_that_cannot_be_read_proves_nothing(text: str) -> None:
    """An odd record is no proof that processes are gone."""
    assert not are_gone(text.replace("MACHINE", MACHINE), MACHINE)
