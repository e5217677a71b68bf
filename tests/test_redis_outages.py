"""A real Redis that is really away: our workers say so once, live on, and go on when Redis does; nothing is doubled."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
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
from tests.worker_jobs import Numbers
from tests.workers import OURS, PATIENCE, SIMPLE, SPAWN, told, wait_for

AWAY = "Redis cannot be used"

PROGRAM = """
import sys
from redis import Redis
from harness.queues.rq import Worker
Worker(["test"], connection=Redis.from_url(sys.argv[1])).work()
"""


class Listened:
    """A worker process whose log the test reads line by line."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "HARNESS_RECOVER_SECONDS": "6"},
        )  # fmt: skip
        self.lines: list[str] = []
        self._rest = b""

    def hear(self, text: str) -> str:
        """Wait for a line of the log with this text, and return it."""
        assert self.process.stdout is not None
        while True:
            ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
            got = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            assert got, f"{text!r} was not logged, but {self.lines}"
            *lines, self._rest = (self._rest + got).split(b"\n")
            self.lines += [line.decode() for line in lines]
            for line in self.lines[-len(lines) :]:
                if text in line:
                    return line

    def close(self) -> None:
        """Kill it and its horse."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def server() -> Iterator[Server]:
    """Yield a Redis of the test's own, which keeps its data over a restart."""
    with redis_server(appendonly=True) as started:
        yield started


@pytest.fixture
def connection(server: Server) -> Iterator[Redis]:
    """Yield a connection to it."""
    with Redis.from_url(server.url, socket_timeout=PATIENCE) as made:
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


def no_memory(_: Server, connection: Redis) -> Callable[[], object]:
    """Let no memory be left."""
    connection.config_set("maxmemory", 1)
    return lambda: connection.config_set("maxmemory", 0)


def replica(_: Server, connection: Redis) -> Callable[[], object]:
    """Make it a replica, as a failover does: clients that wait are unblocked, and writes are refused."""
    connection.config_set("replica-serve-stale-data", "yes")
    connection.execute_command("REPLICAOF", "127.0.0.1", "1")
    return lambda: connection.execute_command("REPLICAOF", "NO", "ONE")


def gone(server: Server, _: Redis) -> Callable[[], object]:
    """Stop it: connections are refused."""
    server.stop()
    return server.start


OUTAGES = [no_memory, replica, gone]
Outage = Callable[[Server, Redis], Callable[[], object]]


def queue_of(connection: Redis) -> Queue:
    """Return the queue that the workers take from."""
    return Queue("test", connection=connection, serializer="json")


def wait_until_finished(connection: Redis, worker: Listened, job: Any) -> None:
    """Wait until a job has ended well, by the worker's log."""
    worker.hear("Successfully completed")
    assert job.get_status() == JobStatus.FINISHED
    assert connection.ping()


@pytest.mark.parametrize("worker_class", [OURS, SIMPLE])
@pytest.mark.parametrize("outage", OUTAGES)
def test_an_idle_worker_survives(
    server: Server, connection: Redis, listen: Callable[..., Listened], outage: Outage, worker_class: str
) -> None:
    """It says once that Redis is away, and does the job that comes when Redis is back."""
    worker = listen(worker_class)
    worker.hear("Listening on")
    end = outage(server, connection)
    worker.hear(AWAY)
    end()
    job = enqueue(queue_of(connection), Numbers, 3)
    wait_until_finished(connection, worker, job)
    assert sum(AWAY in line for line in worker.lines) == 1
    assert told(connection, job.id) == [0, 1, 2]


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_idle_worker_that_spawns_survives(
    server: Server, connection: Redis, listen: Callable[..., Listened], outage: Outage
) -> None:
    """A SpawnWorker, whose horse does not write to its log, does the job that comes when Redis is back."""
    worker = listen(SPAWN)
    worker.hear("Listening on")
    end = outage(server, connection)
    worker.hear(AWAY)
    end()
    wait_for(connection, enqueue(queue_of(connection), Numbers, 3).id, 3)


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


@pytest.mark.parametrize("worker_class", [OURS, SIMPLE])
@pytest.mark.parametrize("outage", OUTAGES)
def test_a_job_at_work_holds_and_goes_on(  # noqa: PLR0917 - fixtures
    server: Server,
    connection: Redis,
    listen: Callable[..., Listened],
    outage: Outage,
    worker_class: str,
    tmp_path: Path,
) -> None:
    """No item is done twice, the job is not failed, and the worker lives."""
    steps = Steps(tmp_path)
    job = enqueue(queue_of(connection), Steady, str(tmp_path), 6)
    worker = listen(worker_class)
    steps.do(2)
    end = outage(server, connection)
    steps.allow(4)
    steps.hear("!")  # a save has failed, and the job holds
    end()
    wait_until_finished(connection, worker, job)
    assert steps.done() == [0, 1, 2, 3, 4, 5]


def test_a_job_that_ends_while_redis_is_away_is_reported_when_it_is_back(
    server: Server, connection: Redis, listen: Callable[..., Listened], tmp_path: Path
) -> None:
    """The last save and the report are tried again."""
    steps = Steps(tmp_path)
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
    server: Server, connection: Redis, listen: Callable[..., Listened], tmp_path: Path
) -> None:
    """It stops, tries its last save for the grace period, and repeats nothing after Redis is back."""
    steps = Steps(tmp_path)
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


class Steps:
    """Lets a :class:`Steady` job do its numbers one by one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pipes = []
        for name in ("go", "said"):
            os.mkfifo(folder / name)
            self._pipes.append(os.open(folder / name, os.O_RDWR))

    def allow(self, numbers: int) -> None:
        """Let the job do *numbers* more numbers."""
        os.write(self._pipes[0], b"g" * numbers)

    def do(self, numbers: int) -> None:
        """Let the job do *numbers* more numbers, and wait until it has."""
        self.allow(numbers)
        for _ in range(numbers):
            self.hear("")

    def hear(self, text: str) -> None:
        """Wait until the job says this."""
        said = None
        while said is None or text not in said:
            ready, _, _ = select.select([self._pipes[1]], [], [], PATIENCE)
            assert ready
            said = os.read(self._pipes[1], 2).decode()

    def done(self) -> list[int]:
        """Return all the numbers that were done."""
        return [int(line) for line in (self._folder / "done").read_text().split()]
