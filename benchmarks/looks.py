"""Time of one look of the monitor at many queues and jobs, on a private Redis.

Usage: ``python -m benchmarks.looks QUEUES JOBS [QUEUES JOBS ...]``. It prints the time of the first look, of the next,
and of ``harness monitor --once``, and what the same queues cost read one after the other through RQ's classes.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from redis import Redis
from rq import Queue

from harness.lab.servers import redis_server
from harness.monitor import Monitor
from harness.queues.rq.overview import Watcher

KNOWN = 8
"""Jobs of a queue that have a record; of the others there is the id alone, which is all that is counted."""


def fill(connection: Redis, queues: int, jobs: int) -> None:
    """Put jobs into queues."""
    connection.flushdb()
    each = jobs // queues
    with connection.pipeline(transaction=False) as pipeline:
        for number in range(queues):
            name = f"q{number:05}"
            ids = [f"{name}-{index}" for index in range(each)]
            pipeline.sadd("rq:queues", f"rq:queue:{name}")
            for begin in range(0, each, 1_000):
                pipeline.rpush(f"rq:queue:{name}", *ids[begin : begin + 1_000])
            for job_id in ids[:KNOWN]:
                known: dict[Any, Any] = {
                    "status": "queued", "origin": name, "description": f"Import({job_id})",
                    "created_at": "2031-05-01T00:00:00.000000Z",
                }  # fmt: skip
                pipeline.hset(f"rq:job:{job_id}", mapping=known)
            if number % 500 == 0:
                pipeline.execute()
        pipeline.execute()


def timed(act: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def run(*arguments: str) -> None:
    """Run a command of this package in a separate process."""
    subprocess.run([sys.executable, "-m", "harness", *arguments], check=True, stdout=subprocess.DEVNULL)


def main(numbers: list[int]) -> None:
    """Measure each pair of queues and jobs."""
    with redis_server() as server, Redis.from_url(server.url) as connection:
        for queues, jobs in zip(numbers[::2], numbers[1::2], strict=True):
            fill(connection, queues, jobs)
            monitor = Monitor(Watcher(connection))
            first, following = timed(monitor.refresh), timed(monitor.refresh)
            whole = timed(partial(run, "monitor", "--once", "--redis", server.url))
            start = timed(partial(run, "monitor", "--help"))
            by_rq = timed(lambda: [queue.count for queue in Queue.all(connection=connection)])
            print(
                f"{queues:,} queues, {jobs:,} jobs: first look {first:.2f} s, next {following:.3f} s, "
                f"monitor --once {whole:.2f} s (of which start {start:.2f} s); lengths through RQ {by_rq:.2f} s",
                flush=True,
            )


if __name__ == "__main__":
    main([int(each) for each in sys.argv[1:]])
