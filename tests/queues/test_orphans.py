"""A work horse notices at once that its worker was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.queues.rq.orphans import Orphaned
from tests.workers import PATIENCE

HORSE = """
import os, sys, threading
from harness.queues.rq.orphans import Orphaned
if "without" in sys.argv:
    del os.pidfd_open
worker, (reading, writing) = os.getpid(), os.pipe()
if os.fork():
    os.close(writing)
    sys.stdin.read()  # until it is killed
heard = threading.Event()
orphaned = Orphaned(worker)
orphaned.attach(heard.set)
os.close(reading)
if "late" in sys.argv:
    os.write(1, b"ready ")
    while os.getppid() == worker:
        pass
orphaned.watch()
os.write(1, b"" if "late" in sys.argv else b"ready ")
if "without" in sys.argv:
    while not orphaned():
        pass
os.write(1, b"heard " if heard.wait(180) else b"deaf ")
os.write(1, str(orphaned()).encode())
orphaned.close()
"""
"""A worker that forks a horse; what they write is the horse's."""

needs_pidfd = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the system has no pidfd_open")


@contextmanager
def horse(*how: str) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a worker whose horse waits for its death."""
    with subprocess.Popen(
        [sys.executable, "-c", HORSE, *how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.read(6) == b"ready "
        yield worker


@pytest.mark.parametrize(
    "how",
    [pytest.param((), marks=needs_pidfd), pytest.param(("late",), marks=needs_pidfd), ("without",)],
    ids=str,
)
def test_the_death_of_a_worker_wakes_the_job(how: tuple[str, ...]) -> None:
    """The job is woken, not asked: also if the worker died first; without a descriptor a look wakes it."""
    with horse(*how) as worker:
        os.kill(worker.pid, signal.SIGKILL)
        said, _ = worker.communicate(timeout=PATIENCE)
    assert said == b"heard worker died"


@needs_pidfd
def test_nothing_is_left_of_a_watch() -> None:
    """A closed watch leaves no thread and no descriptor, and has not stopped the job."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    orphaned = Orphaned(os.getppid())
    orphaned.watch()
    assert "harness-orphaned" in {each.name for each in threading.enumerate()}
    orphaned.close()
    assert "harness-orphaned" not in {each.name for each in threading.enumerate()}
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert not orphaned()


def test_a_process_without_a_worker_watches_none() -> None:
    """A SimpleWorker's job has no other process to wait for."""
    orphaned = Orphaned(None)
    orphaned.watch()
    assert "harness-orphaned" not in {each.name for each in threading.enumerate()}
    assert not orphaned()
    orphaned.close()
