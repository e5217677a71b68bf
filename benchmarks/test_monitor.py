"""Cost of watching a job: with its history and heartbeat, and with a monitor that looks four times a second."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from harness import Enumerator, IterationJob, items
from harness.lab.servers import redis_server
from harness.queues.history import HistoryRecorder
from harness.queues.rq import SimpleWorker, enqueue

ITEMS = 20_000
WORK = range(5_000)
"""Numbers that an item adds up: about 50 us, as long as a quick statement to a database takes."""
ROUNDS = 9


class Unrecorded(HistoryRecorder):
    """Writes nothing."""

    def at_start(self, at: Any) -> None:
        """Do not even begin."""


class Busy(IterationJob):
    """Computes for a while in each item."""

    def build_enumerator(self, *, cursor: Any) -> Enumerator[int]:
        """Go through the numbers."""
        return items(range(ITEMS), cursor=cursor)

    def each_iteration(self, item: int) -> None:
        """Do one."""
        sum(WORK)


def cost(queue: Queue) -> float:
    """Return the processor time of this process for an item of one run, in µs."""
    enqueue(queue, Busy)
    begun = time.process_time()
    SimpleWorker([queue], connection=queue.connection, commands=False).work(burst=True, logging_level="ERROR")
    return (time.process_time() - begun) / ITEMS * 1e6


def test_watching_costs_a_job_nothing_to_speak_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The job runs in turn without a history, with it, and watched from another process; print medians and spread."""
    found: dict[str, list[float]] = {
        "no history": [],
        "history and heartbeat": [],
        "and a monitor at 4 Hz": [],
    }
    with redis_server() as server, Redis.from_url(server.url) as connection:
        queue = Queue("bench", connection=connection, serializer="json")
        cost(queue)
        for _ in range(ROUNDS):
            with monkeypatch.context() as without:
                without.setattr("harness.queues.rq.jobs.HistoryRecorder", Unrecorded)
                found["no history"].append(cost(queue))
            found["history and heartbeat"].append(cost(queue))
            watching = subprocess.Popen(
                [sys.executable, "-m", "harness", "monitor", "--json", "--every", "0.25", "--redis", server.url],
                stdout=subprocess.PIPE, env={**os.environ, "HARNESS_DATABASE_URL": ""}, cwd=tmp_path.parent,
            )  # fmt: skip
            try:
                assert watching.stdout is not None
                watching.stdout.readline()  # from now on it looks
                found["and a monitor at 4 Hz"].append(cost(queue))
            finally:
                watching.kill()
                watching.communicate()
    plain = statistics.median(found["no history"])
    with capsys.disabled():
        for name, each in found.items():
            middle = statistics.median(each)
            print(
                f"\n{name:22} {middle:7.2f} us an item, {min(each):.2f} to {max(each):.2f}, {middle / plain:.3f} times",
                end="",
            )
    assert statistics.median(found["and a monitor at 4 Hz"]) < 1.05 * plain
