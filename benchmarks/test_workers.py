"""Workers compared with RQ's own, in turn and in one run: enqueue to start, jobs a second, idle commands and exit."""

from __future__ import annotations

import os
import select
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue

from benchmarks.plain_jobs import note
from harness.lab.fork_server import ForkServer
from harness.lab.servers import redis_server
from harness.queues.rq import enqueue
from tests.worker_jobs import Numbers
from tests.workers import PATIENCE, PRELOADED, Workers, pid_of, wait_for, wait_for_worker

ROUNDS, LATENCIES, JOBS, WORKERS, START_SECONDS, IDLE_SECONDS = 5, 20, 300, 8, 2, 30
RQS, OURS = "rq.Worker", "harness.queues.rq.Worker"


@pytest.fixture
def redis() -> Iterator[Redis]:
    """Yield a connection to a Redis of the benchmark."""
    with redis_server() as server, Redis.from_url(server.url, socket_timeout=None) as connection:
        connection.set("url", server.url)
        yield connection


@contextmanager
def working(
    redis: Redis, worker_class: str, queues: list[str], count: int = 1
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run workers for the block, and yield their processes."""
    redis.delete("rq:workers")
    url = str(redis.get("url"), "ascii")  # type: ignore[arg-type]
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "rq.cli",
                "worker",
                "-q",
                "-u",
                url,
                "-S",
                "json",
                "-w",
                worker_class,
                *queues,
            ]
        )
        for _ in range(count)
    ]
    try:
        wait_for_worker(redis, "state", b"idle", workers=count)
        yield started
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(PATIENCE)


def ends(pid: int, seconds: float) -> bool:
    """Return whether a process ends within that time; ``Popen.wait()`` with a timeout looks every 50 ms only."""
    process = os.pidfd_open(pid)
    try:
        return bool(select.select([process], [], [], seconds)[0])
    finally:
        os.close(process)


def latencies(redis: Redis, worker_class: str, queues: list[str]) -> list[float]:
    """Return milliseconds from enqueue to start, of jobs in the last queue of an idle worker."""
    queue = Queue(queues[-1], connection=redis, serializer="json")
    found = []
    with working(redis, worker_class, queues):
        for _ in range(LATENCIES):
            before = time.time()
            queue.enqueue(note, "started")
            answer = redis.blpop(["started"], PATIENCE)
            assert answer is not None
            found.append((float(answer[1]) - before) * 1000)
    return found


def rate(redis: Redis, worker_class: str) -> float:
    """Return plain jobs a second of several workers on one queue."""
    queue = Queue("many", connection=redis, serializer="json")
    with working(redis, worker_class, ["many"], WORKERS):
        before = time.perf_counter()
        queue.enqueue_many([Queue.prepare_data(note, ["done"]) for _ in range(JOBS)])
        for _ in range(JOBS):
            assert redis.blpop(["done"], PATIENCE) is not None
        return JOBS / (time.perf_counter() - before)


def shown(values: list[float]) -> str:
    """Return the median and the quartiles."""
    low, median, high = statistics.quantiles(values, n=4)
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


@pytest.mark.parametrize("queues", [["one"], ["one", "two", "three"]], ids=["one queue", "three queues"])
def test_enqueue_to_start(capsys: pytest.CaptureFixture[str], redis: Redis, queues: list[str]) -> None:
    """A job that is enqueued starts as fast as on RQ's worker."""
    found: dict[str, list[float]] = {RQS: [], OURS: []}
    for _ in range(ROUNDS):
        for worker_class in found:
            found[worker_class] += latencies(redis, worker_class, queues)
    with capsys.disabled():
        for worker_class, values in found.items():
            print(f"\n{len(queues)} queues, {worker_class}: {shown(values)} ms")
    assert all(found.values())


def test_jobs_a_second(capsys: pytest.CaptureFixture[str], redis: Redis) -> None:
    """Workers on one queue do as many plain jobs a second as RQ's."""
    ratios, ours = [], []
    for _ in range(ROUNDS):
        theirs, own = rate(redis, RQS), rate(redis, OURS)
        ours.append(own)
        ratios.append(own / theirs)
    with capsys.disabled():
        print(f"\n{WORKERS} workers: {shown(ours)} jobs/s, {shown(ratios)} of RQ's rate")
    assert ratios


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_exit_of_an_idle_worker(
    capsys: pytest.CaptureFixture[str], redis: Redis, number: signal.Signals
) -> None:
    """An idle worker exits as fast as RQ's after a signal."""
    found: dict[str, list[float]] = {RQS: [], OURS: []}
    for _ in range(ROUNDS):
        for worker_class, times in found.items():
            with working(redis, worker_class, ["one", "two"]) as (process,):
                before = time.perf_counter()
                process.send_signal(number)
                assert ends(process.pid, PATIENCE)
                times.append((time.perf_counter() - before) * 1000)
    with capsys.disabled():
        for worker_class, times in found.items():
            print(f"\n{number.name}, {worker_class}: exit after {shown(times)} ms")
    assert all(found.values())


def test_exit_of_a_horse_whose_worker_died(capsys: pytest.CaptureFixture[str], redis: Redis) -> None:
    """A work horse whose worker was killed requeues its job and exits at its next checkpoint."""
    queue = Queue("one", connection=redis, serializer="json")
    times = []
    for _ in range(4 * ROUNDS):
        with working(redis, OURS, ["one"]) as (worker,):
            job = enqueue(queue, Numbers, 1_000_000)
            horse = pid_of(redis, job.id)
            wait_for(redis, job.id, 3)
            before = time.perf_counter()
            worker.kill()
            assert ends(horse, PATIENCE)
            times.append((time.perf_counter() - before) * 1000)
            assert queue.get_job_ids() == [job.id]
            queue.empty()
    with capsys.disabled():
        print(f"\nexit of a horse after its worker was killed: {shown(times)} ms, {max(times):.2f} at most")
    assert times


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("worker_class", [RQS, OURS])
def test_commands_of_idle_workers(
    capsys: pytest.CaptureFixture[str], redis: Redis, tmp_path: Path, worker_class: str, count: int
) -> None:
    """An idle worker sends few commands to Redis, whatever the number of workers."""
    with ForkServer(*PRELOADED) as processes:
        workers = Workers(processes, str(redis.get("url"), "ascii"), tmp_path)  # type: ignore[arg-type]
        try:
            started = [workers.start(worker_class, "-S", "json") for _ in range(count)]
            wait_for_worker(redis, "state", b"idle", workers=count)
            redis.config_set("notify-keyspace-events", "")
            assert not ends(started[0].pid, START_SECONDS)
            before = redis.info("stats")["total_commands_processed"]
            assert not ends(started[0].pid, IDLE_SECONDS)
            commands = redis.info("stats")["total_commands_processed"] - before - 1
        finally:
            workers.close()
    each = commands / IDLE_SECONDS / count
    with capsys.disabled():
        print(f"\n{count} of {worker_class}: {each:.2f} commands/s each when idle")
    assert each < 5
