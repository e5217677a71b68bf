"""Sixteen workers on one queue, interrupted 200 times, while Redis and PostgreSQL restart and clocks jump.

``tox run -e soak`` runs it; ``HARNESS_SOAK_STRIKES`` and ``HARNESS_SOAK_SEED`` change how many interruptions and which.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import cycle
from pathlib import Path

import pytest
import sqlalchemy as sa
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.job import Job as RQJob
from rq.job import JobStatus

from harness.lab.processes import kill_both
from harness.lab.servers import Server, postgresql_server, redis_server
from harness.queues.periodic import SETTING
from harness.queues.rq import enqueue
from scenarios import soak_app
from scenarios.soak_app import CHARGES, RELEASE, Charge

STRIKES = int(os.environ.get("HARNESS_SOAK_STRIKES", "200"))
SEED = int(os.environ.get("HARNESS_SOAK_SEED", "20260801"))
WORKERS, ITEMS, AHEAD = 16, 150, 24
LIMIT_SECONDS, STRIKE_SECONDS = 420, 0.7
RESTART_EVERY, CLOCK_EVERY = 25, 10
QUEUE = "fleet"
RECOVER_SECONDS = 2.0
WAYS = ("SIGTERM to the worker", "SIGKILL to the horse", "SIGKILL to the worker", "SIGKILL to both")
JUMPS = ("+300s", "-300s", "+0s", "+7200s", "-7200s")


class Clocks:
    """The clock of some workers, which jumps; ``libfaketime`` reads it from a file."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("faketime")
        if program is None:
            pytest.skip("needs faketime, which changes the clock of a process: install the package faketime")
        line = [program, "-f", "+0s", "printenv", "LD_PRELOAD"]
        library = subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
        self._file = folder / "clock"
        self.environment = {
            "LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip
        self.jump("+0s")

    def jump(self, offset: str) -> None:
        """Set the clock to an offset from the time of day."""
        new = self._file.with_suffix(".new")
        new.write_text(offset + "\n")
        new.replace(self._file)

    @staticmethod
    def tidy(pids: list[int]) -> None:
        """Remove what the library leaves behind when its process is killed."""
        for pid in pids:
            for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
                (Path("/dev/shm") / name).unlink(missing_ok=True)  # noqa: S108 - where the library puts it


class Fleet:
    """The workers: each is started again when it ends.

    :param clocks: of every second worker; None leaves all clocks as they are.
    """

    def __init__(self, url: str, folder: Path, clocks: Clocks | None) -> None:
        self._url, self._folder, self._clocks = url, folder, clocks
        self._releases = cycle(("old", "new"))
        self._pids: list[int] = []
        self.workers = [self._start(number) for number in range(WORKERS)]

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        environment = {**os.environ, SETTING: str(RECOVER_SECONDS), RELEASE: next(self._releases)}
        if self._clocks is not None and number % 2:
            environment.update(self._clocks.environment)
        line = [
            sys.executable,
            "-m",
            "rq.cli",
            "worker",
            "-u",
            self._url,
            "-w",
            "scenarios.soak_app.Preloaded",
            QUEUE,
        ]
        with (self._folder / f"worker-{number}.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own workers
                line, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        self._pids.append(process.pid)
        return process

    def revive(self) -> None:
        """Start the workers again that have ended."""
        for number, worker in enumerate(self.workers):
            if worker.poll() is not None:
                self.workers[number] = self._start(number)

    def busy(self) -> list[tuple[subprocess.Popen[bytes], int]]:
        """Return the workers that have a work horse, and its pid."""
        found = []
        for worker in self.workers:
            with suppress(OSError, ValueError):
                horses = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
                found += [(worker, int(horse)) for horse in horses[:1]]
        return found

    def close(self) -> None:
        """Kill what is left of the workers and of their work horses."""
        for worker, horse in self.busy():
            with suppress(ProcessLookupError):
                os.kill(horse, signal.SIGKILL)
            worker.kill()
        for worker in self.workers:
            worker.kill()
            worker.wait()
        if self._clocks is not None:
            self._clocks.tidy(self._pids)


class Jobs:
    """The jobs: as many as the workers can take, until there were enough interruptions."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection
        self._queue = Queue(QUEUE, connection=connection, serializer="json")
        self.count = 0
        self.unfinished: set[str] = set()

    def look(self) -> None:
        """Forget the jobs that have finished; none may fail."""
        for job_id in list(self.unfinished):
            status = self._connection.hget(RQJob.key_for(job_id), "status")
            assert status != JobStatus.FAILED.value.encode(), self._told(job_id)
            if status == JobStatus.FINISHED.value.encode():
                self.unfinished.discard(job_id)

    def top_up(self) -> None:
        """Enqueue jobs until enough are unfinished; if only the answer is lost, the same job is joined."""
        while len(self.unfinished) < AHEAD:
            job_id = f"charge-{self.count}"
            enqueue(
                self._queue,
                Charge,
                self.count,
                ITEMS,
                options={"job_id": job_id, "timeout": 600, "result_ttl": -1},
            )
            self.count += 1
            self.unfinished.add(job_id)

    def _told(self, job_id: str) -> str:
        job = RQJob.fetch(job_id, connection=self._connection, serializer="json")
        return f"{job_id}: {job.latest_result()!r} {getattr(job.latest_result(), 'exc_string', '')}"


class Strikes:
    """Interruptions, restarts of servers and jumps of clocks during the soak."""

    def __init__(self, fleet: Fleet, servers: dict[str, Server], clocks: Clocks | None) -> None:
        self._random = random.Random(SEED)
        self._fleet, self._clocks = fleet, clocks
        self._servers = cycle(servers.items())
        self._next = 0.0
        self.done: Counter[str] = Counter()
        self.count = 0

    def __call__(self) -> None:
        """Interrupt a worker that is at a job, if it is time."""
        busy = self._fleet.busy()
        if time.monotonic() < self._next or not busy:
            return
        self._next = time.monotonic() + self._random.uniform(0, 2 * STRIKE_SECONDS)
        worker, horse = self._random.choice(busy)
        way = self._random.choice(WAYS)
        if way == "SIGTERM to the worker":
            worker.terminate()
        if way == "SIGKILL to both":
            kill_both(worker.pid, horse)
        if way == "SIGKILL to the worker":
            worker.kill()
        if way == "SIGKILL to the horse":
            with suppress(ProcessLookupError):
                os.kill(horse, signal.SIGKILL)
        self.done[way] += 1
        self.count += 1
        if self.count % RESTART_EVERY == 0:
            name, server = next(self._servers)
            server.restart()
            self.done[f"restart of {name}"] += 1
        if self._clocks is not None and self.count % CLOCK_EVERY == 0:
            self._clocks.jump(self._random.choice(JUMPS))
            self.done["jump of the clocks"] += 1


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Server]]:
    """Yield a Redis that persists its data, and a PostgreSQL that the jobs find."""
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(appendonly=True))
        postgresql = stack.enter_context(postgresql_server())
        monkeypatch.setenv("HARNESS_DATABASE_URL", postgresql.url)
        yield {"Redis": redis, "PostgreSQL": postgresql}


@pytest.mark.parametrize("clock", ["steady", "jumping"])
def test_a_fleet(
    servers: dict[str, Server], clock: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sixteen workers on one queue finish each job, and do each item once, through all interruptions."""
    clocks = Clocks(tmp_path) if clock == "jumping" else None
    strikes_wanted = STRIKES if clock == "steady" else STRIKES // 2
    engine = sa.create_engine(servers["PostgreSQL"].url, poolclass=sa.NullPool)
    soak_app.prepare(engine)
    began = time.monotonic()
    with Redis.from_url(servers["Redis"].url) as connection:
        jobs = Jobs(connection)
        jobs.top_up()
        fleet = Fleet(servers["Redis"].url, tmp_path, clocks)
        strikes = Strikes(fleet, servers, clocks)
        try:
            while strikes.count < strikes_wanted or jobs.unfinished:
                told = f"seed {SEED}: {strikes.done}, unfinished {sorted(jobs.unfinished)}"
                assert time.monotonic() - began < LIMIT_SECONDS, told
                fleet.revive()
                with suppress(RedisError):
                    jobs.look()
                    if strikes.count < strikes_wanted:
                        jobs.top_up()
                if strikes.count < strikes_wanted:
                    strikes()
                time.sleep(0.05)
        finally:
            fleet.close()
    lost, doubled = books(engine, jobs.count)
    with capsys.disabled():
        print(
            f"\nseed {SEED}, {clock} clocks: {jobs.count} jobs of {ITEMS} items, {strikes.count} interruptions, "
            f"{dict(strikes.done)}, {time.monotonic() - began:.0f} s: lost {lost}, doubled {doubled}"
        )
    assert (lost, doubled) == (0, 0)


def books(engine: sa.Engine, jobs: int) -> tuple[int, int]:
    """Return how many items were never done, and how many more than once."""
    with engine.connect() as connection:
        times = connection.execute(
            sa.select(CHARGES.c.job, CHARGES.c.item, sa.func.count()).group_by(CHARGES.c.job, CHARGES.c.item)
        )
        counts = {(job, item): count for job, item, count in times}
    return jobs * ITEMS - len(counts), sum(count > 1 for count in counts.values())
