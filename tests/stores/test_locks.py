"""A write of progress waits for a frozen worker's row lock for a limited time, and its job runs again later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from redis import Redis
from rq import Queue
from rq.job import JobStatus
from sqlalchemy.orm import Session

from harness.errors import ProgressLocked, UsageError
from harness.lab.processes import kill_both
from harness.progress import Progress
from harness.queues.inline import InlineRun
from harness.queues.rq import enqueue
from harness.stores.locks import LOCK_TIMEOUT
from harness.stores.sql import SqlStore
from tests import transactions
from tests.databases import empty_database, of_driver
from tests.fork_jobs import ACCOUNTS, Frozen
from tests.patterns.test_forks import DRIVERS, balances, charged, database
from tests.transactions import ByIteration, effects, engine
from tests.workers import PATIENCE, Workers, expire_leases, pid_of

__all__ = ["database", "engine"]

SOON = 0.05
"""A lock timeout for writes that find a lock, in seconds."""

HOLDS_THE_ROW = (
    "import sys, sqlalchemy as sa; from sqlalchemy.orm import Session\n"
    "from harness.progress import Progress; from harness.stores.sql import SqlStore\n"
    "engine = sa.create_engine(sys.argv[1]); store = SqlStore(engine); progress = store.claim('17')\n"
    "with Session(engine) as session:\n"
    "    store.save_within(session, progress); store.renew_within(session, Progress('new', epoch=1))\n"
    "    print('locked', flush=True); sys.stdin.read()"
)


@pytest.fixture(params=["postgresql"])
def postgresql(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[sa.Engine]:
    """Yield a PostgreSQL with the tables of the store."""
    with empty_database(request, tmp_path) as engine:
        SqlStore(engine).create()
        yield engine


@contextmanager
def frozen_worker(engine: sa.Engine) -> Iterator[subprocess.Popen[str]]:
    """Yield a process that was stopped between save_within and its commit; it holds the row of job 17."""
    url = engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", HOLDS_THE_ROW, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "locked\n"
            worker.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, worker.pid, os.WSTOPPED | os.WNOWAIT)
            yield worker
        finally:
            worker.kill()


def save_within(store: SqlStore, engine: sa.Engine) -> None:
    """Save in the transaction of a session."""
    with Session(engine) as session:
        store.save_within(session, Progress("17", epoch=1))


def renew_within(store: SqlStore, engine: sa.Engine) -> None:
    """Insert in the transaction of a session."""
    with Session(engine) as session:
        store.renew_within(session, Progress("new", epoch=1))


WRITES: dict[str, Callable[[SqlStore, sa.Engine], object]] = {
    "claim": lambda store, _: store.claim("17"),
    "first claim": lambda store, _: store.claim("new"),
    "save": lambda store, _: store.save(Progress("17", epoch=1)),
    "renew": lambda store, _: store.renew(Progress("new", epoch=1)),
    "delete": lambda store, _: store.delete("17"),
    "save_within": save_within,
    "renew_within": renew_within,
}


@pytest.mark.parametrize("driver", DRIVERS)
def test_no_write_waits_for_a_frozen_worker_for_ever(postgresql: sa.Engine, driver: str) -> None:
    """Each ends with ProgressLocked and changes nothing; after the frozen worker is killed, a claim succeeds."""
    with of_driver(postgresql, driver) as engine:
        impatient = SqlStore(engine, lock_timeout=timedelta(seconds=SOON))
        with frozen_worker(postgresql) as worker:
            for name, write in WRITES.items():
                with pytest.raises(ProgressLocked, match="end the frozen worker") as caught:
                    write(impatient, engine)
                assert ("job new" if name in {"first claim", "renew", "renew_within"} else "job 17") in str(
                    caught.value
                )
            worker.kill()
            worker.wait(PATIENCE)
            claimed = SqlStore(engine, lock_timeout=PATIENCE).claim("17")
        assert (claimed.epoch, impatient.load("new")) == (2, None)


def test_a_shared_value_is_not_waited_for_for_ever(postgresql: sa.Engine) -> None:
    """An insert and an update of a locked shared value end with ProgressLocked as well."""
    impatient = SqlStore(postgresql, lock_timeout=SOON)
    impatient.replace("there", None, "a")
    with postgresql.begin() as other:
        other.execute(sa.text("UPDATE job_progress_shared SET value = 'b'"))
        other.execute(sa.text("INSERT INTO job_progress_shared VALUES ('new', 'b', now())"))
        for key, before in (("there", "a"), ("new", None)):
            with pytest.raises(ProgressLocked):
                impatient.replace(key, before, "c")


@pytest.mark.parametrize(("own", "kept"), [("0", "10s"), ("77s", "77s")])
def test_the_lock_timeout_of_an_engine_stays(
    request: pytest.FixtureRequest, postgresql: sa.Engine, own: str, kept: str
) -> None:
    """The store sets a timeout only if there is none, for the rest of the transaction and not for the next."""
    assert LOCK_TIMEOUT == 10
    with (
        of_driver(postgresql, "psycopg", f"SET lock_timeout = '{own}'") as engine,
        Session(engine) as session,
    ):
        store = SqlStore(engine)
        progress = store.claim("17")
        store.save_within(session, progress)
        assert session.scalar(sa.text("SHOW lock_timeout")) == kept
        session.commit()
        assert session.scalar(sa.text("SHOW lock_timeout")) == own


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "10s", None, 2**31])
def test_a_lock_timeout_is_a_time(value: Any) -> None:
    """Values that PostgreSQL would refuse, or take for no limit, are refused when the store is made."""
    with pytest.raises(UsageError, match=r"use seconds from 0\.001"):
        SqlStore(sa.create_engine("sqlite://"), lock_timeout=value)


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
def test_a_locked_save_releases_the_work_of_its_transaction(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save that finds the row locked rolls the item back immediately, and the next execution does it once."""
    other = engine.connect()
    store = SqlStore(engine, lock_timeout=SOON)
    monkeypatch.setattr(ByIteration, "progress_store", classmethod(lambda _: store))
    open_after: list[bool] = []

    def lock(job: Any) -> None:
        statement = "SELECT 1 FROM job_progress WHERE job_id = 'locked' FOR UPDATE"
        other.execute(sa.text(statement))
        closing = job.session.close

        def close() -> None:
            open_after.append(job.session.in_transaction())
            closing()

        job.session.close = close

    transactions.once(2, lock)
    run = InlineRun(ByIteration, 4, job_id="locked")
    with other:
        with pytest.raises(ProgressLocked):
            run.execute()
        assert effects() == [0, 1]
    run.drain()
    assert (effects(), open_after) == ([0, 1, 2, 3], [False])


def test_a_job_whose_row_is_locked_goes_back_to_its_queue(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers, database: sa.Engine
) -> None:
    """A frozen worker delays its job on RQ and does not fail it; each account is charged once."""
    job = enqueue(jobs_queue, Frozen)
    worker = rq_workers.start()
    horse = pid_of(broker, job.id)
    expire_leases(broker, job.id)
    successor = rq_workers.start("harness.queues.rq.Worker", "--burst")
    for _ in range(3):  # the first execution, the second, and the third after the second found the lock
        assert broker.blpop([f"claims:{job.id}"], PATIENCE)
    kill_both(worker.pid, horse)  # a worker that is left might take the job from the successor
    assert successor.wait(PATIENCE) == 0
    assert job.get_status() == JobStatus.FINISHED
    assert not jobs_queue.failed_job_registry.get_job_ids()
    assert (balances(database), charged(database)) == ([1] * ACCOUNTS, list(range(ACCOUNTS)))
