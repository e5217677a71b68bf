"""Celery and Dramatiq: enqueue to start against a task of their own, a signal to the exit, a kill to the next item."""

from __future__ import annotations

import random
import signal
import statistics
import time
from pathlib import Path

import pytest

from harness.lab.queue_jobs import Count, Stamp
from harness.lab.queue_suite import wait_until
from harness.lab.servers import redis_server
from tests.queues.fleet import PATIENCE, Fleet, lines, wait_for_lines

STARTS, ROUNDS, PAUSE_SECONDS = 60, 3, 0.05


@pytest.mark.parametrize("kind", ["celery", "dramatiq"])
def test_times_of_a_queue(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A job starts about as fast as a task of the queue, and is back soon after a signal or a kill."""
    with redis_server() as server:
        fleet = Fleet(kind, server.url, tmp_path)
        try:
            fleet.start()
            own, job = _starts(fleet, tmp_path)
            exits = [_exits(fleet, tmp_path / f"exit{number}") for number in range(ROUNDS)]
            backs = [_back(fleet, tmp_path / f"back{number}") for number in range(ROUNDS)]
        finally:
            fleet.close()
    idle, busy = (statistics.median(each[place] for each in exits) for place in (0, 1))
    with capsys.disabled():
        print(
            f"\n{kind}: enqueue to start, own task {own * 1000:.1f} ms, job {job * 1000:.1f} ms "
            f"({job / own:.2f} x); SIGTERM to exit, idle {idle:.2f} s, with a job {busy:.2f} s; "
            f"SIGKILL of all and a new worker to the next item {statistics.median(backs):.2f} s"
        )
    assert statistics.median(backs) < 15


def _starts(fleet: Fleet, folder: Path) -> tuple[float, float]:
    """Return the median seconds from the enqueue to the first line, of the queue's own task and of a job."""
    found: dict[str, list[float]] = {"own": [], "job": []}
    # Dramatiq's consumer polls: a fixed rhythm would favour one of the two.
    chance = random.Random(1)  # noqa: S311 - pauses
    for number in range(STARTS):
        for name, times in list(found.items())[:: -1 if number % 2 else 1]:
            time.sleep(chance.uniform(0, PAUSE_SECONDS))
            path = folder / f"{name}{number}"
            begun = time.time()
            if name == "job":
                fleet.enqueue(Stamp, str(path), job_id=f"start{number}")
            elif fleet.kind == "celery":
                fleet.module.stamp.delay(str(path))
            else:
                fleet.module.stamp.send(str(path))
            wait_for_lines(path, 1)
            if number >= STARTS // 4:  # the first ones load modules
                times.append(float(lines(path)[0]) - begun)
    return statistics.median(found["own"]), statistics.median(found["job"])


def _exits(fleet: Fleet, path: Path) -> tuple[float, float]:
    """Return the seconds from SIGTERM to the exit, of an idle worker and of one with a job of 10 ms an item."""
    begun = time.monotonic()
    fleet.signal(signal.SIGTERM)
    fleet.wait()
    idle = time.monotonic() - begun
    fleet.start()
    fleet.enqueue(Count, str(path), 100_000, 0.01, job_id=path.name)
    wait_for_lines(path, 20)
    begun = time.monotonic()
    fleet.signal(signal.SIGTERM)
    fleet.wait()
    busy = time.monotonic() - begun
    fleet.queue.cancel(path.name)
    fleet.start()
    wait_until(lambda: fleet.state(path.name) == "over", PATIENCE)
    return idle, busy


def _back(fleet: Fleet, path: Path) -> float:
    """Return the seconds from SIGKILL of all processes to the next item; a new worker starts immediately."""
    fleet.enqueue(Count, str(path), 100_000, 0.01, job_id=path.name)
    wait_for_lines(path, 20)
    fleet.kill_all()
    begun, done = time.monotonic(), len(lines(path))
    fleet.start()
    wait_for_lines(path, done + 1)
    back = time.monotonic() - begun
    fleet.queue.cancel(path.name)
    wait_until(lambda: fleet.state(path.name) == "over", PATIENCE)
    return back
