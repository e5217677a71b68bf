"""Recovery of 10,000 jobs of crashed workers, while a worker that starts takes new jobs."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from redis import Redis
from rq import Queue

from harness.lab.servers import redis_server
from harness.queues.rq import enqueue, recover
from tests.queues.test_scale import die
from tests.worker_jobs import Numbers
from tests.workers import OURS, PATIENCE

NUMBER = 10_000


@pytest.mark.parametrize("number", [1_000, 2_000, 4_000])
def test_recover(capsys: pytest.CaptureFixture[str], number: int) -> None:
    """The time of ``recover()`` is proportional to the number of jobs."""
    with redis_server() as server, Redis.from_url(server.url) as connection:
        die(Queue("test", connection=connection, serializer="json"), number)
        begun = time.perf_counter()
        assert len(recover(connection)) == number
        took = time.perf_counter() - begun
    with capsys.disabled():
        print(f"\n{number:,} jobs: {took:.2f} s, {took / number * 1000:.2f} ms each")


def test_a_worker_that_starts(capsys: pytest.CaptureFixture[str]) -> None:
    """All jobs are requeued, and new jobs of another queue wait only briefly."""
    with redis_server() as server, Redis.from_url(server.url, socket_timeout=None) as connection:
        queue = Queue("test", connection=connection, serializer="json")
        urgent = Queue("urgent", connection=connection, serializer="json")
        die(queue, NUMBER)
        command = [sys.executable, "-m", "rq.cli", "worker", "-q", "-u", server.url, "-w", OURS, "urgent"]
        begun, delays = time.perf_counter(), []
        worker = subprocess.Popen(command)
        try:
            while queue.count < NUMBER:
                sent = time.perf_counter()
                job = enqueue(urgent, Numbers, 1)
                assert connection.blpop([f"done:{job.id}"], PATIENCE) is not None
                delays.append(time.perf_counter() - sent)
            took = time.perf_counter() - begun
        finally:
            worker.terminate()
            worker.wait(PATIENCE)
    with capsys.disabled():
        print(
            f"\n{NUMBER:,} jobs requeued after {took:.1f} s, counted from the start of the worker's process"
        )
        first, *others = delays
        print(f"new jobs: the first done after {first:.2f} s")
        print(f"{len(others)} others, each after {max(others, default=0):.2f} s at most")
