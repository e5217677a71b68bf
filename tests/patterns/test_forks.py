"""A process never uses a database connection that another one opened."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from rq import Queue
from rq.job import Job as RQJob
from rq.job import JobStatus
from sqlalchemy.orm import Session

from harness import InheritedConnection
from harness.job import Job
from harness.queues.rq import enqueue
from harness.runtime import forks
from harness.stores.sql import SqlStore
from tests import fork_jobs
from tests.fork_jobs import ACCOUNTS, BALANCES, CHARGES, Charge, Held, Removed, WithChildren
from tests.workers import PATIENCE, Workers

DRIVERS = ["psycopg", "psycopg2", "pg8000"]
PRELOADED = "tests.fork_jobs.Preloaded"
KILLS = [*range(1, 16)] * 2
"""Places of the kills: each item has seven, around its three statements and before its commit."""


@pytest.fixture
def database(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.Engine]:
    """Yield an engine of an empty database with the tables of the jobs, which workers find in the environment."""
    name = "forks"
    server = sa.create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
    url = sa.make_url(postgresql_url).set(database=name)
    monkeypatch.setenv("HARNESS_FORKS_URL", url.render_as_string(hide_password=False))
    engine = sa.create_engine(url)
    try:
        fork_jobs.prepare(engine)
        yield engine
    finally:
        engine.dispose()
        with server.connect() as connection:
            connection.execute(sa.text(f"drop database {name} with (force)"))
        server.dispose()


def use_driver(monkeypatch: pytest.MonkeyPatch, engine: sa.Engine, driver: str) -> None:
    """Have the workers use another driver for the same database."""
    url = engine.url.set(drivername=f"postgresql+{driver}")
    if driver == "pg8000":
        socket = f"{url.query['host']}/.s.PGSQL.5432"
        url = url.set(query={"unix_sock": socket})
    monkeypatch.setenv("HARNESS_FORKS_URL", url.render_as_string(hide_password=False))


def balances(engine: sa.Engine) -> list[int]:
    """Return what each account was charged."""
    with engine.connect() as connection:
        return list(connection.scalars(sa.select(BALANCES.c.cents).order_by(BALANCES.c.account)))


def charged(engine: sa.Engine) -> list[int]:
    """Return the accounts for which a charge was written down."""
    with engine.connect() as connection:
        return list(connection.scalars(sa.select(CHARGES.c.account).order_by(CHARGES.c.account)))


def worked(queue: Queue, workers: Workers, job_class: type[Job], worker: str = PRELOADED) -> RQJob:
    """Have a worker do a job to its end."""
    job = enqueue(queue, job_class)
    workers.finish(worker)
    job.refresh()
    return job


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_kill_at_any_point_of_an_item_loses_and_doubles_nothing(
    jobs_queue: Queue,
    rq_workers: Workers,
    database: sa.Engine,
    monkeypatch: pytest.MonkeyPatch,
    driver: str,
) -> None:
    """A crashed horse's transaction ends with the horse, even if the engine was used before the fork."""
    use_driver(monkeypatch, database, driver)
    if driver == "psycopg":  # a ping is a statement too, and comes before any event of the checkout
        monkeypatch.setenv("HARNESS_FORKS_PRE_PING", "1")
    broker = jobs_queue.connection
    job = enqueue(jobs_queue, Charge)
    broker.rpush(f"kill:{job.id}", *KILLS)
    rq_workers.finish(PRELOADED)
    assert job.get_status(refresh=True) == JobStatus.FINISHED
    pids = broker.lrange(f"pids:{job.id}", 0, -1)
    assert len(set(pids)) == len(pids) == len(KILLS) + 1
    assert balances(database) == [1] * ACCOUNTS
    assert charged(database) == list(range(ACCOUNTS))


def test_a_session_held_at_the_fork_is_refused(
    jobs_queue: Queue, rq_workers: Workers, database: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session held at the fork is refused with an error that names the cause and what to do."""
    monkeypatch.setenv("HARNESS_FORKS_HOLD", "1")
    job = worked(jobs_queue, rq_workers, Held)
    assert job.get_status() == JobStatus.FAILED
    result = job.latest_result()
    assert result is not None
    assert "InheritedConnection" in str(result.exc_string)
    assert "close the session or connection before the worker forks" in str(result.exc_string)
    assert charged(database) == []


def test_a_session_held_at_the_fork_can_be_removed(
    jobs_queue: Queue, rq_workers: Workers, database: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After that it is as good as a new one."""
    monkeypatch.setenv("HARNESS_FORKS_HOLD", "1")
    assert worked(jobs_queue, rq_workers, Removed).get_status() == JobStatus.FINISHED
    assert balances(database) == [1] * ACCOUNTS


def test_children_of_a_job_have_connections_of_their_own(
    jobs_queue: Queue, rq_workers: Workers, database: sa.Engine
) -> None:
    """Children commit only their own work, and the transaction of the job stays separate."""
    for worker in (PRELOADED, "harness.queues.rq.SimpleWorker"):
        assert worked(jobs_queue, rq_workers, WithChildren, worker).get_status() == JobStatus.FINISHED
    assert balances(database)[:3] == [2] * 3
    assert charged(database) == [0, 0, 1, 1, 2, 2]


def in_a_child(function: Any, *args: Any) -> Any:
    """Return what a function returns in a forked process."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(function(*args)))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join(PATIENCE)
        receiver.close()


def backend(at: Any) -> int:
    """Return the server process at the other end of an engine's next connection, or of a session."""
    asked = sa.text("select pg_backend_pid()")
    if isinstance(at, Session):
        return int(at.scalar(asked))
    with at.connect() as connection:
        return int(connection.scalar(asked))


def refused(function: Any, *args: Any) -> str | None:
    """Return the message with which an inherited connection was refused."""
    try:
        function(*args)
    except InheritedConnection as error:
        return str(error)
    return None


def test_a_child_does_not_take_the_parent_s_pooled_connection(database: sa.Engine) -> None:
    """A child neither takes nor closes the pooled connection of its parent, which goes on with it."""
    mine = backend(database)
    assert in_a_child(backend, database) != mine
    assert backend(database) == mine


def test_outside_of_jobs_a_held_connection_is_left_to_the_application(database: sa.Engine) -> None:
    """A process that forks and ends, as a daemon does, may hand its session on; progress is not saved in it."""
    store = SqlStore(database)
    with Session(database) as session:
        mine = backend(session)
        assert in_a_child(backend, session) == mine
        message = in_a_child(refused, save_in, session, store)
        assert message is not None
        assert "was opened by a parent process" in message
        with forks.guarding():
            assert "opened by a parent process" in (in_a_child(refused, backend, session) or "")
        assert backend(session) == mine


def save_in(session: Session, store: SqlStore) -> None:
    """Save progress in a session."""
    store.save_within(session, store.claim("1"))


def test_a_database_in_memory_goes_on_in_a_child() -> None:
    """A child works on its copy of a database in memory."""
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    with engine.begin() as connection:
        connection.execute(sa.text("create table t (n integer)"))
        connection.execute(sa.text("insert into t values (7)"))
    assert in_a_child(lambda: first(engine)) == 7
    engine.dispose()


def test_a_file_of_sqlite_is_opened_anew(tmp_path: Path) -> None:
    """Its locks belong to a process, and the child's connection takes its own."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        connection.execute(sa.text("create table t (n integer)"))
        connection.execute(sa.text("insert into t values (7)"))
    assert in_a_child(lambda: (first(engine), closed(tmp_path / "a.db"))) == (7, True)
    assert first(engine) == 7
    engine.dispose()


def first(engine: sa.Engine) -> Any:
    """Return the first number in the table."""
    with engine.connect() as connection:
        return connection.scalar(sa.text("select n from t"))


def closed(path: Path) -> bool:
    """Return whether this process can write to the file with a new connection."""
    with sqlite3.connect(path) as connection:
        connection.execute("insert into t values (8)")
    connection.close()
    return os.getpid() != 0


def test_a_process_that_was_forked_before_it_loaded_us_knows_what_is_its_own(
    database: sa.Engine,
) -> None:
    """A connection older than the process counts as inherited; a younger one is kept."""
    script = """
import os, sys
import sqlalchemy as sa
engine = sa.create_engine(sys.argv[1])
asked = sa.text("select pg_backend_pid()")
def backend(): return engine.connect().__enter__().scalar(asked)
inherited = backend()
import gc; gc.collect()
pid = os.fork()
if pid == 0:
    with sa.create_engine(sys.argv[1]).connect() as own:
        mine = own.scalar(asked)
        from harness.stores import sql
        assert own.scalar(asked) == mine
        assert backend() not in {inherited, mine}
        os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    url = database.url.render_as_string(hide_password=False)
    done = subprocess.run(
        [sys.executable, "-c", script, url], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.stdout == "7\n", done.stderr
