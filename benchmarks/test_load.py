"""Jobs a second with 1 to 16 workers, commands and memory of Redis a job, and what is left when all are done."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from benchmarks.load_jobs import Few
from harness.lab.fork_server import ForkServer
from harness.lab.servers import redis_server
from harness.queues.rq import enqueue
from harness.queues.rq.keys import LEASES, OPEN
from tests.workers import OURS, PRELOADED, Workers

JOBS, WORKERS = 120, (1, 2, 4, 8, 16)


def measured(connection: Redis, workers: Workers, number: int) -> dict[str, float]:
    """Have *number* workers do all jobs, and return the figures."""
    connection.flushdb()
    queue = Queue("test", connection=connection, serializer="json")
    jobs = [enqueue(queue, Few, options={"result_ttl": 3600}) for _ in range(JOBS)]
    before: Any = connection.info()
    begun = time.perf_counter()
    processes = [workers.start(OURS, "--burst") for _ in range(number)]
    for process in processes:
        assert process.wait(600) == 0
    took = time.perf_counter() - begun
    after: Any = connection.info()
    assert all(job.get_status() == "finished" for job in jobs)
    assert connection.zcard(LEASES) == connection.zcard(OPEN) == 0, "something is left of jobs that are done"
    return {
        "jobs a second": JOBS / took,
        "commands a job": (after["total_commands_processed"] - before["total_commands_processed"]) / JOBS,
        "bytes a job": (after["used_memory"] - before["used_memory"]) / JOBS,
        "keys a job": connection.dbsize() / JOBS,
    }


def test_load(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """All jobs are done with any number of workers, and only keys that expire remain; print a line for each number."""
    with (
        redis_server() as server,
        Redis.from_url(server.url) as connection,
        ForkServer(*PRELOADED, "benchmarks.load_jobs") as processes,
    ):
        for number in WORKERS:
            workers = Workers(processes, server.url, tmp_path)
            try:
                found = measured(connection, workers, number)
            finally:
                workers.close()
            with capsys.disabled():
                figures = ", ".join(f"{value:,.1f} {name}" for name, value in found.items())
                print(f"\n{number:2} workers: {figures}", end="")
    with capsys.disabled():
        print(f"\n{JOBS} jobs of 10 items, {os.cpu_count()} processors, load {os.getloadavg()[0]:.0f}")
