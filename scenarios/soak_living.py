"""Workers that are alive and busy, at four times the cores, and short pauses of theirs and of Redis.

No execution is taken for dead. ``tox run -e soak`` runs it; ``HARNESS_SOAK_SECONDS`` changes how long, 1,800 s by
default. Leases are those of production.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job as RQJob
from rq.job import JobStatus

from harness import CompleteEarly, Enumerator, IterationJob, times
from harness.lab.fork_server import Child, ForkServer
from harness.lab.servers import redis_server
from harness.queues.rq import enqueue
from harness.stores.rq_meta import RQMetaStore

SECONDS = float(os.environ.get("HARNESS_SOAK_SECONDS", "1800"))
SEED = int(os.environ.get("HARNESS_SOAK_SEED", "20260801"))
WORKERS = 4 * (os.cpu_count() or 1)
PAUSE_SECONDS, PAUSE_EVERY_SECONDS = 3.0, 15.0
ITEM_SECONDS, MANY, LIMIT_SECONDS = 0.01, 10**9, 600


class Spin(IterationJob):
    """Keeps a core busy until a moment."""

    def build_enumerator(self, until: float, *, cursor: Any) -> Enumerator[int]:
        """Go on and on."""
        del until
        return times(MANY, cursor=cursor)

    def each_iteration(self, item: int, until: float) -> None:
        """Use the processor for a while."""
        del item
        if time.time() > until:
            raise CompleteEarly
        end = time.process_time() + ITEM_SECONDS
        while time.process_time() < end:
            pass


@pytest.fixture
def redis() -> Iterator[Redis]:
    """Yield a connection to a Redis of its own."""
    with redis_server() as server, Redis.from_url(server.url) as connection:
        connection.set("url", server.url)
        yield connection


@pytest.fixture
def workers(redis: Redis, tmp_path: Path) -> Iterator[list[Child]]:
    """Yield the workers, which end with the test."""
    url = str(redis.get("url"), "ascii")  # type: ignore[arg-type]
    line = ("-u", url, "-w", "harness.queues.rq.Worker", "living")
    with ExitStack() as stack:
        server = stack.enter_context(ForkServer("rq.cli", "harness.queues.rq"))
        log = stack.enter_context((tmp_path / "workers.log").open("wb"))
        none = stack.enter_context(Path(os.devnull).open("rb"))
        started = [
            server.start("rq.cli:main", "worker", *line, streams=(none, log, log)) for _ in range(WORKERS)
        ]
        try:
            yield started
        finally:
            for each in started:
                each.terminate()
            for each in started:
                each.wait(LIMIT_SECONDS)


def pause(worker: Child) -> None:
    """Stop a worker and its work horse for a while, as a paused machine does."""
    with suppress(OSError):
        horses = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
        pids = [worker.pid, *map(int, horses)]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in pids:
                os.kill(pid, number)
            time.sleep(PAUSE_SECONDS if number == signal.SIGSTOP else 0)


def test_the_living_are_left_alone(
    redis: Redis, workers: list[Child], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each job is done by one execution, whatever the load, and whatever is paused for less than a lease."""
    chosen, done = random.Random(SEED), Counter[str]()
    queue = Queue("living", connection=redis, serializer="json")
    until = time.time() + SECONDS
    jobs = [enqueue(queue, Spin, until, options={"timeout": -1, "result_ttl": -1}) for _ in workers]
    load = []
    while time.time() < until:
        load.append(os.getloadavg()[0])
        if chosen.random() < 0.5:
            pause(chosen.choice(workers))
            done["pauses of a worker"] += 1
        else:
            redis.execute_command("CLIENT", "PAUSE", int(PAUSE_SECONDS * 1000), "ALL")
            done["pauses of Redis"] += 1
        time.sleep(min(PAUSE_EVERY_SECONDS, max(0.0, until - time.time())))
    give_up = time.time() + LIMIT_SECONDS
    statuses: set[JobStatus] = set()
    while statuses != {JobStatus.FINISHED} and time.time() < give_up:
        statuses = {RQJob.fetch(job.id, connection=redis, serializer="json").get_status() for job in jobs}
        time.sleep(1)
    store = RQMetaStore(redis)
    found = [progress for job in jobs if (progress := store.load(job.id)) is not None]
    with capsys.disabled():
        print(
            f"\nseed {SEED}: {len(workers)} workers, {SECONDS:.0f} s, load {min(load):.0f} to {max(load):.0f}, "
            f"{dict(done)}, {sum(each.done for each in found)} items: "
            f"{sum(each.epoch - 1 for each in found)} taken for dead"
        )
    assert statuses == {JobStatus.FINISHED}
    assert [(each.epoch, each.crashes, each.interruptions) for each in found] == [(1, 0, 0)] * len(jobs)
