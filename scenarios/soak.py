"""Kills at random moments until there were many, and servers restarted in between: the books must balance.

The workers have used their database before they fork, every second one runs a newer release of the code, and the
application saves the job's ``meta`` once a second, from an old copy too.

``tox run -e soak`` runs it, for it takes minutes; ``HARNESS_SOAK_KILLS`` and ``HARNESS_SOAK_SEED`` change how many and
which.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import cycle
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError
from rq.job import Job as RQJob

from harness import with_transaction
from harness.interruptions import parse_interruption
from harness.lab import Lab
from harness.lab.fork_server import Child
from harness.lab.journal import JournalContent
from harness.lab.processes import ProcessTrial, kill_both
from harness.lab.servers import Server, postgresql_server, redis_server
from harness.lab.worker import PRELOAD
from scenarios import emails, orders, reports, services
from scenarios.soak_app import RELEASE

KILLS = int(os.environ.get("HARNESS_SOAK_KILLS", "100"))
SEED = int(os.environ.get("HARNESS_SOAK_SEED", "20260801"))
PACE, LIMIT_SECONDS = 0.005, 600
SAVE_META_SECONDS = 1.0
RELEASES = cycle(("new", "old"))
WAYS = ("SIGTERM to the worker", "SIGKILL to the horse", "SIGKILL to the worker", "SIGKILL to both")


class Application:
    """Writes the job's ``meta`` once a second while the job is at work, as a web process does.

    :ivar saves: number of saves.
    """

    def __init__(self, broker: str, job_id: str) -> None:
        self._connection = Redis.from_url(broker)
        self._job_id, self._next, self.saves = job_id, 0.0, 0
        self._old_copy = self._fetch()

    def _fetch(self) -> RQJob:
        return RQJob.fetch(self._job_id, connection=self._connection, serializer="json")

    def __call__(self) -> None:
        """Save, if it is time and Redis is there: a copy made just now, then the one from the beginning, in turn."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SAVE_META_SECONDS
        with suppress(RedisError):
            job = self._old_copy if self.saves % 2 else self._fetch()
            job.meta["saves"] = self.saves + 1
            job.save_meta()
            self.saves += 1

    def check(self) -> None:
        """Check that the last save is there, and close the connection."""
        if self.saves:
            assert self._fetch().meta["saves"] == self.saves
        self._connection.close()


class Nemesis:
    """Does something bad to the processes every now and then, and now and then to a server.

    :param servers: what may be restarted. :ivar done: what it did, and how often.
    """

    def __init__(self, seed: int, servers: list[Server]) -> None:
        self._random = random.Random(seed)
        self._servers = servers
        self._next = 0.0
        self.done: Counter[str] = Counter()
        self.application: Application | None = None

    @property
    def kills(self) -> int:
        """Number of processes it has signalled or killed."""
        return sum(self.done[way] for way in WAYS)

    def __call__(self, worker: Child, journal: Path) -> None:
        """Strike, if it is time and a job is running."""
        if self.application is not None:
            self.application()
        now = time.monotonic()
        horses = JournalContent(journal).working
        if now < self._next or not horses:
            return
        self._next = now + self._random.uniform(0.05, 1.0)
        way = self._random.choice(WAYS)
        self.done[way] += 1
        os.environ[RELEASE] = next(RELEASES)  # of the next worker
        if way == "SIGTERM to the worker":
            worker.terminate()
        if way == "SIGKILL to both":
            kill_both(worker.pid, horses[-1])
        if way == "SIGKILL to the worker":
            worker.kill()
        if way == "SIGKILL to the horse":
            with suppress(ProcessLookupError):
                os.kill(horses[-1], signal.SIGKILL)
        if self._servers and self._random.random() < 0.1:
            server = self._random.choice(self._servers)
            server.restart()
            services.dispose()  # of this process, whose connections are cut too
            self.done[
                "restart of PostgreSQL" if server.url.startswith("postgresql") else "restart of Redis"
            ] += 1


@pytest.fixture(params=["sqlite", "postgresql"])
def external(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Lab, list[Server]]]:
    """Yield a lab on a Redis that persists its data, and the servers that may be restarted."""
    with ExitStack() as stack:
        servers = [stack.enter_context(redis_server(appendonly=True))]
        if request.param == "postgresql":
            servers.append(stack.enter_context(postgresql_server()))
        urls = [server.url for server in servers]
        database = urls[1] if len(urls) > 1 else None
        yield stack.enter_context(Lab(tmp_path, pace=PACE, broker=urls[0], database=database)), servers


def test_soak(
    external: tuple[Lab, list[Server]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill of any process at any time loses nothing, and duplicates nothing in the database."""
    lab, servers = external
    monkeypatch.setenv(PRELOAD, "scenarios.soak_app")
    monkeypatch.setenv(RELEASE, "old")
    nemesis = Nemesis(SEED, servers)
    forms = cycle(
        (scenario, form) for scenario in (orders, reports, emails) for form in ("steps", "iteration")
    )
    jobs, at_the_door, saves = 0, 0, 0
    while nemesis.kills < KILLS:
        module, form = next(forms)
        with lab.prepared(module.scenario, form, with_transaction()) as trial:
            assert isinstance(trial, ProcessTrial)
            trial.disturb, trial.limit_seconds = nemesis, LIMIT_SECONDS
            application = nemesis.application = Application(servers[0].url, trial.job_id)
            record = trial.run(parse_interruption("none"))
            application.check()
        jobs, saves = jobs + 1, saves + application.saves
        told = f"seed {SEED}, job {jobs}, after {dict(nemesis.done)}: {record}"
        assert (record["completed"], record["lost"]) == (True, 0), told
        by_key = record["duplicated_by_key"]
        assert (record["duplicated"] if by_key is None else by_key) == 0, told
        at_the_door += 0 if by_key is None else record["duplicated"]
    with capsys.disabled():
        print(
            f"\nseed {SEED}: {jobs} jobs, {nemesis.kills} kills, {dict(nemesis.done)}, {saves} saves of meta: nothing "
            f"lost, nothing twice in the database; {at_the_door} mails twice at the door, none by key"
        )
