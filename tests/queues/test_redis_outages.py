"""A real Redis that is really away: our workers say so once, live on, and go on when Redis does; nothing is doubled."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.job import JobStatus

from harness.lab.servers import Server, redis_server
from harness.queues.rq import enqueue
from tests.outage_jobs import Steady
from tests.outages import (
    AWAY,
    SLOW_LOAD,
    Listened,
    Outage,
    Steps,
    end_waits,
    gone,
    loading,
    no_memory,
    no_replicas,
    replica,
    wait_until_idle,
)
from tests.worker_jobs import Numbers
from tests.workers import OURS, PATIENCE, SIMPLE, SPAWN, told, wait_for

PROGRAM = """
import sys
from redis import Redis
from harness.queues.rq import Worker
Worker(["test"], connection=Redis.from_url(sys.argv[1])).work()
"""


@pytest.fixture
def server() -> Iterator[Server]:
    """Yield a Redis of the test's own, which keeps its data over a restart."""
    with redis_server(appendonly=True, more=SLOW_LOAD) as started:
        yield started


@pytest.fixture
def connection(server: Server) -> Iterator[Redis]:
    """Yield a connection to it."""
    with Redis.from_url(server.url, socket_timeout=PATIENCE) as made:
        yield made


@pytest.fixture
def steps(tmp_path: Path) -> Iterator[Steps]:
    """Yield what leads a job in this test's folder."""
    with closing(Steps(tmp_path)) as made:
        yield made


@pytest.fixture
def listen(server: Server) -> Iterator[Callable[..., Listened]]:
    """Yield a function that starts a worker on it."""
    started: list[Listened] = []

    def start(worker_class: str = "", *, program: str = "") -> Listened:
        command = ["-m", "rq.cli", "worker", "-u", server.url, "-w", worker_class, "test"]
        started.append(Listened(["-c", program, server.url] if program else command))
        return started[-1]

    yield start
    for each in started:
        each.close()


OUTAGES = [no_memory, no_replicas, replica, gone, loading]


def queue_of(connection: Redis) -> Queue:
    """Return the queue that the workers take from."""
    return Queue("test", connection=connection, serializer="json")


def wait_until_finished(connection: Redis, worker: Listened, job: Any) -> None:
    """Wait until a job has ended well, by the worker's log."""
    worker.hear("Successfully completed")
    assert job.get_status() == JobStatus.FINISHED
    assert connection.ping()


@pytest.mark.each
@pytest.mark.parametrize("worker_class", [OURS, SIMPLE])
@pytest.mark.parametrize("outage", OUTAGES)
def test_an_idle_worker_survives(
    server: Server, connection: Redis, listen: Callable[..., Listened], outage: Outage, worker_class: str
) -> None:
    """A worker says once that Redis is away, and does the job that comes when Redis is back."""
    worker = listen(worker_class)
    wait_until_idle(connection)
    end = outage(server, connection)
    worker.hear(AWAY)
    end()
    job = enqueue(queue_of(connection), Numbers, 3)
    wait_until_finished(connection, worker, job)
    assert worker.said(AWAY) == 1
    assert told(connection, job.id) == [0, 1, 2]


@pytest.mark.sample(1)
@pytest.mark.parametrize("outage", OUTAGES)
def test_an_idle_worker_that_spawns_survives(
    server: Server, connection: Redis, listen: Callable[..., Listened], outage: Outage
) -> None:
    """A SpawnWorker, whose horse does not write to its log, does the job that comes when Redis is back."""
    worker = listen(SPAWN)
    wait_until_idle(connection)
    end = outage(server, connection)
    worker.hear(AWAY)
    end()
    wait_for(connection, enqueue(queue_of(connection), Numbers, 3).id, 3)


@pytest.mark.parametrize("worker_class", [OURS, SPAWN, SIMPLE])
def test_a_wait_that_ends_with_an_error_ends_no_worker(
    connection: Redis, listen: Callable[..., Listened], worker_class: str
) -> None:
    """An idle worker whose wait is ended by ``CLIENT UNBLOCK`` with an error says so once, and takes the next job."""
    worker = listen(worker_class)
    wait_until_idle(connection)
    assert end_waits(connection, "ERROR") == 1
    assert "UNBLOCKED" in worker.hear(AWAY)
    job = enqueue(queue_of(connection), Numbers, 3)
    wait_for(connection, job.id, 3)
    assert worker.said(AWAY) == 1
    assert told(connection, job.id) == [0, 1, 2]


@pytest.mark.sample(2)
@pytest.mark.parametrize("outage", OUTAGES)
def test_a_worker_that_starts_waits(
    server: Server, connection: Redis, listen: Callable[..., Listened], outage: Outage
) -> None:
    """A worker starts although Redis is not there yet or refuses to write.

    RQ's command asks Redis before it makes the worker, and exits; a user's own program does not.
    """
    end = outage(server, connection)
    worker = listen(program=PROGRAM)
    worker.hear(AWAY)
    end()
    worker.hear("Listening on")
    job = enqueue(queue_of(connection), Numbers, 3)
    wait_until_finished(connection, worker, job)


@pytest.mark.each
@pytest.mark.parametrize("worker_class", [OURS, SIMPLE])
@pytest.mark.parametrize("outage", [no_memory, no_replicas, replica, gone])
def test_a_job_at_work_holds_and_goes_on(  # noqa: PLR0917 - fixtures
    server: Server,
    connection: Redis,
    listen: Callable[..., Listened],
    outage: Outage,
    worker_class: str,
    tmp_path: Path,
    steps: Steps,
) -> None:
    """A job at work loses no item and repeats none, is not failed, and its worker lives."""
    job = enqueue(queue_of(connection), Steady, str(tmp_path), 6)
    worker = listen(worker_class)
    steps.do(2)
    end = outage(server, connection)
    steps.allow(4)
    steps.hear("!")  # a save has failed, and the job holds
    end()
    wait_until_finished(connection, worker, job)
    assert steps.done() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("worker_class", [OURS, SIMPLE])
def test_a_job_at_work_survives_a_slow_load(  # noqa: PLR0917 - fixtures
    server: Server,
    connection: Redis,
    listen: Callable[..., Listened],
    worker_class: str,
    tmp_path: Path,
    steps: Steps,
) -> None:
    """A job whose saves are answered LOADING loses no item and repeats none, and its worker says so once at most."""
    job = enqueue(queue_of(connection), Steady, str(tmp_path), 6)
    worker = listen(worker_class)
    steps.do(2)
    end = loading(server, connection)
    steps.allow(4)
    end()  # a worker or its job was answered LOADING
    wait_until_finished(connection, worker, job)
    assert steps.done() == [0, 1, 2, 3, 4, 5]
    assert worker.said(AWAY) <= 1


def test_a_job_that_ends_while_redis_is_away_is_reported_when_it_is_back(
    server: Server, connection: Redis, listen: Callable[..., Listened], tmp_path: Path, steps: Steps
) -> None:
    """The last save and the report are tried again."""
    job = enqueue(queue_of(connection), Steady, str(tmp_path), 3)
    worker = listen(OURS)
    steps.do(2)
    end = gone(server, connection)
    steps.allow(1)
    steps.hear("!")
    end()
    wait_until_finished(connection, worker, job)
    assert steps.done() == [0, 1, 2]


def test_a_holding_job_obeys_a_signal(
    server: Server, connection: Redis, listen: Callable[..., Listened], tmp_path: Path, steps: Steps
) -> None:
    """A holding job stops, tries its last save for the grace period, and repeats nothing after Redis is back."""
    job = enqueue(queue_of(connection), Steady, str(tmp_path), 6)
    worker = listen(OURS)
    steps.do(2)
    end = gone(server, connection)
    steps.allow(1)
    steps.hear("!")
    worker.process.send_signal(signal.SIGTERM)
    worker.hear("warm shut down requested")
    end()
    assert worker.process.wait(PATIENCE) == 0
    assert steps.done() in ([0, 1], [0, 1, 2])
    assert job.get_status() == JobStatus.QUEUED
    steps.allow(4)
    wait_until_finished(connection, listen(OURS), job)
    assert steps.done() == [0, 1, 2, 3, 4, 5]


def test_a_wrong_password_is_an_error_at_the_start(
    server: Server, connection: Redis, listen: Callable[..., Listened]
) -> None:
    """A worker does not wait for a wrong password to become right."""
    connection.config_set("requirepass", "right")
    worker = listen(OURS)
    assert worker.process.wait(PATIENCE) != 0
    with suppress(RedisError):
        connection.auth("right")
