"""Real RQ workers in processes of their own, started and ended for a test."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis import Redis
from rq import Queue

from harness.lab.fork_server import Child, ForkServer
from harness.progress import Progress
from harness.queues.rq import SimpleWorker
from harness.queues.rq.keys import LEASES
from harness.stores.rq_meta import RQMetaStore

PATIENCE = 180
"""Seconds after which an event that must come has failed to come; a test that passes never waits for so long."""

OURS = "harness.queues.rq.Worker"
SPAWN = "harness.queues.rq.SpawnWorker"
SIMPLE = "harness.queues.rq.SimpleWorker"
WITH_HORSES = [OURS, SPAWN]
ALL = [OURS, SPAWN, SIMPLE]
PRELOADED = ("rq.cli", "rq.worker", "harness.queues.rq")
"""Modules that each ``rq worker`` of the harness imports before it forks."""


class Workers:
    """Starts workers on one Redis.

    :param processes: forks the workers; it has imported what is in PRELOADED. :param url: of the Redis.
    :param folder: where their output goes.
    """

    def __init__(self, processes: ForkServer, url: str, folder: Path) -> None:
        self._server, self._url, self._folder = processes, url, folder
        self._processes: list[Child] = []

    def start(
        self,
        worker_class: str = OURS,
        *more: str,
        queue: str = "test",
        command: str = "worker",
        seconds: float | None = None,
    ) -> Child:
        """Start ``rq worker``, in a session of its own.

        :param seconds: ``HARNESS_RECOVER_SECONDS``; by default as in production. A worker with a low value looks for
            dead executions often. Start it without a job: its own lease is short and a stalled machine loses it.
        """
        environment = {**os.environ} | ({} if seconds is None else {"HARNESS_RECOVER_SECONDS": str(seconds)})
        with (
            (self._folder / f"worker-{len(self._processes)}.log").open("wb") as output,
            Path(os.devnull).open("rb") as none,
        ):
            process = self._server.start(
                "rq.cli:main", command, "-u", self._url, "-w", worker_class, *more, queue,
                environment=environment, streams=(none, output, output),
            )  # fmt: skip
        self._processes.append(process)
        return process

    def finish(self, worker_class: str = OURS, *more: str) -> None:
        """Have a worker do all there is to do."""
        assert self.start(worker_class, "--burst", *more).wait(PATIENCE) == 0

    def close(self) -> None:
        """Kill what is left of them, their horses too, and wait for it."""
        for process in self._processes:
            for pid in processes_of_session(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait(PATIENCE)


def processes_of_session(leader: int) -> list[int]:
    """Return the processes of a session; horses have a process group of their own, but stay in the session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[3]) == leader:
                found.append(int(path.parent.name))
    return found


def wait_for(connection: Redis, job_id: str, items: int) -> None:
    """Wait until a toy job has done *items* more items."""
    for number in range(items):
        answer = connection.blmove(f"done:{job_id}", f"all:{job_id}", PATIENCE)
        assert answer is not None, f"job {job_id} did {number} items of {items}"


def pid_of(connection: Redis, job_id: str) -> int:
    """Wait until a toy job has begun an execution, and return the pid of its process."""
    answer = connection.blpop([f"pid:{job_id}"], PATIENCE)
    assert answer is not None
    return int(answer[1])


def release(connection: Redis, job_id: str) -> None:
    """Let a toy job end that runs until it is released; a process that crashes first does not consume the release."""
    connection.xadd(f"release:{job_id}", {"released": 1})


def expire_leases(connection: Redis, job_id: str) -> None:
    """End the leases on a job, as if their time had passed; call it when their holders have crashed or are frozen."""
    for entry, _ in leases(connection):
        if entry.startswith(f"{job_id}:"):
            connection.zadd(LEASES, {entry: 1}, xx=True)


def leases(connection: Redis) -> list[tuple[str, float]]:
    """Return all leases: the execution, and when it ends by the clock of Redis."""
    found: Any = connection.zrange(LEASES, 0, -1, withscores=True)
    return [(entry.decode(), ends) for entry, ends in found]


def wait_for_worker(connection: Redis, field: str, value: bytes | None = None, *, workers: int = 1) -> None:
    """Wait until that many workers have this field in their registration, with this value if one is given."""
    connection.config_set("notify-keyspace-events", "Kh")
    with connection.pubsub() as events:
        events.psubscribe("__keyspace@0__:rq:worker:*")
        while True:
            found = [connection.hget(key, field) for key in connection.smembers("rq:workers")]
            if sum(each is not None and value in {None, each} for each in found) >= workers:
                return
            assert events.get_message(timeout=PATIENCE), f"no worker's {field} became {value or 'anything'!r}"


def finish_here(queue: Queue) -> None:
    """Do all there is to do, in this process."""
    SimpleWorker([queue], connection=queue.connection, commands=False).work(burst=True, logging_level="ERROR")


def progress_of(connection: Redis, job_id: str) -> Progress:
    """Return the stored progress of a job that has begun."""
    progress = RQMetaStore(connection).load(job_id)
    assert progress is not None
    return progress


def told(connection: Redis, job_id: str) -> list[int]:
    """Return all the numbers that a toy job has recorded."""
    keys = (f"all:{job_id}", f"done:{job_id}")
    return [int(each) for key in keys for each in connection.lrange(key, 0, -1)]


def repeated(numbers: list[int]) -> int:
    """Return how many numbers of a row that must be complete were done once more."""
    assert sorted(set(numbers)) == list(range(max(numbers) + 1))
    return len(numbers) - len(set(numbers))


def in_order(numbers: list[int]) -> bool:
    """Return whether these are all numbers from 0 on, once each."""
    return numbers == list(range(len(numbers)))
