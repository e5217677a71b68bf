"""A worker forks at a moment when none of its other threads holds a lock that the child would need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus

from harness.queues import turns
from harness.queues.periodic import PeriodicThread
from harness.queues.rq import enqueue
from tests.worker_jobs import Numbers
from tests.workers import PATIENCE, processes_of_session

pytestmark = pytest.mark.process

WORKER = """
import os, sys, threading
from redis import ConnectionPool, Redis, UnixDomainSocketConnection
from harness.queues.rq import Worker

at_fork, inside = threading.Event(), threading.Event()

class Pool(ConnectionPool):
    '''The sweep holds the pool's lock when the worker forks.'''

    def get_connection(self, *args, **kwargs):
        if at_fork.is_set() and not inside.is_set() and threading.current_thread().name == "harness-sweep":
            with self._lock:
                inside.set()
                leave.wait()
        return super().get_connection(*args, **kwargs)

leave = threading.Event()

def before():
    at_fork.set()
    assert inside.wait(60)
    leave.set()

pool = Pool(connection_class=UnixDomainSocketConnection, path=sys.argv[1].removeprefix("unix://"))
worker = Worker(["test"], connection=Redis(connection_pool=pool))
os.register_at_fork(before=before)  # is called before those that were registered earlier
worker.work(max_jobs=1)
assert inside.is_set()
"""


def test_a_work_horse_starts_though_a_sweep_held_the_lock_of_the_pool(redis_url: str, broker: Redis) -> None:
    """A worker that forks in the middle of a sweep has a horse that reaches Redis, and the job is done."""
    job = enqueue(Queue("test", connection=broker, serializer="json"), Numbers, 3)
    environment = {**os.environ, "HARNESS_RECOVER_SECONDS": "6"}
    command = [sys.executable, "-c", WORKER, redis_url]
    with subprocess.Popen(command, env=environment, start_new_session=True) as worker:
        try:
            assert worker.wait(PATIENCE) == 0
        finally:
            for pid in processes_of_session(worker.pid):  # a horse that hangs
                os.kill(pid, signal.SIGKILL)
    assert job.get_status() == JobStatus.FINISHED


def test_a_fork_waits_for_the_turn_of_a_thread() -> None:
    """A child gets no lock that another thread held, because the fork waits until that thread's turn is over."""
    lock, inside, leave = threading.Lock(), threading.Event(), threading.Event()

    def act() -> None:
        with lock:
            inside.set()
            leave.wait()

    beat = PeriodicThread("test", PATIENCE, act, at_once=True)
    beat.start()
    assert inside.wait(PATIENCE)
    ending = threading.Timer(0.05, leave.set)
    ending.start()
    child = os.fork()
    if not child:
        os._exit(not lock.acquire(timeout=0))
    assert os.waitpid(child, 0)[1] == 0
    ending.join()
    beat.close()


def test_a_fork_waits_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that waits for a Redis that does not answer delays a fork, and does not prevent it."""
    monkeypatch.setattr(turns, "FORK_WAIT_SECONDS", 0.01)
    inside, leave = threading.Event(), threading.Event()

    def act() -> None:
        inside.set()
        leave.wait()

    beat = PeriodicThread("test", PATIENCE, act, at_once=True)
    beat.start()
    assert inside.wait(PATIENCE)
    child = os.fork()
    if not child:
        with turns.turn():  # the child's own thread has its turn, whatever the parent's have
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    leave.set()
    beat.close()


def test_a_thread_of_a_long_turn_gives_way() -> None:
    """A long turn is interrupted for a fork that waits, at the places that the thread chooses."""
    inside, end, forked = threading.Event(), threading.Event(), []

    def act() -> None:
        inside.set()
        while not end.is_set():
            turns.give_way()

    beat = PeriodicThread("test", PATIENCE, act, at_once=True)
    beat.start()
    assert inside.wait(PATIENCE)
    began = time.monotonic()
    for _ in range(10):
        child = os.fork()
        if not child:
            os._exit(0)
        forked.append(os.waitpid(child, 0)[1])
    waited = time.monotonic() - began
    end.set()
    beat.close()
    assert forked == [0] * 10
    assert waited < 10 * turns.FORK_WAIT_SECONDS


def test_a_thread_may_fork_in_its_own_turn() -> None:
    """A fork does not wait for the turn of the thread that forks."""
    with turns.turn():
        child = os.fork()
        if not child:
            os._exit(0)
        began = time.monotonic()
        assert os.waitpid(child, 0)[1] == 0
    assert time.monotonic() - began < turns.FORK_WAIT_SECONDS
