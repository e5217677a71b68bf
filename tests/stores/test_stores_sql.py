"""Behaviour specific to the store in the work's database: one commit for both, locks, tables, secrets."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from harness.errors import CorruptProgress, ProgressLocked, Superseded, UsageError
from harness.progress import Progress, TransactionalStore
from harness.stores.sql import SqlStore, progress_tables
from tests.stores.test_stores import database, patience
from tests.workers import PATIENCE

ORDERS = sa.Table("orders_paid", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))


@pytest.fixture(params=["sqlite", "sqlite with WAL", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the URL of a database with the tables of the store and of the work."""
    file = f"sqlite:///{tmp_path}/work.db"
    url = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else file
    with database(url) as (engine, _):
        with engine.begin() as connection:
            if "WAL" in request.param:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            ORDERS.create(connection)
        yield url
        ORDERS.drop(engine)


@pytest.fixture
def connect(url: str) -> Iterator[Callable[..., sa.Engine]]:
    """Return what makes an engine of that database."""
    engines: list[sa.Engine] = []

    def make(**options: Any) -> sa.Engine:
        engines.append(sa.create_engine(url, **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture(params=[None, "SERIALIZABLE"])
def engine(request: pytest.FixtureRequest, url: str, connect: Callable[..., sa.Engine]) -> sa.Engine:
    """Return an engine of each isolation level, as the user of the store made it."""
    level = {} if request.param is None else {"isolation_level": request.param}
    return connect(connect_args=patience(url), **level)


@pytest.fixture
def store(engine: sa.Engine) -> TransactionalStore:
    """Return the store."""
    return SqlStore(engine)


@pytest.fixture
def impatient(url: str, connect: Callable[..., sa.Engine]) -> sa.Engine:
    """Return an engine that fails where others wait."""
    arguments = {"timeout": 0} if url.startswith("sqlite") else {"options": "-clock_timeout=1ms"}
    return connect(connect_args=arguments)


def pay(session: Session, store: TransactionalStore, progress: Progress, order: int) -> None:
    """Do one order, and say so in the progress; the caller commits."""
    session.execute(sa.insert(ORDERS).values(id=order))
    progress.step, progress.cursor = "pay", order
    assert store.save_within(session, progress) == len(progress.to_json())


def paid(engine: sa.Engine) -> list[int]:
    """Return the orders that were done."""
    with engine.connect() as connection:
        return list(connection.scalars(sa.select(ORDERS.c.id).order_by(ORDERS.c.id)))


def cursor(store: TransactionalStore) -> Any:
    """Return the stored cursor of job 17."""
    progress = store.load("17")
    assert progress is not None
    return progress.cursor


def test_work_and_progress_are_committed_together(engine: sa.Engine, store: TransactionalStore) -> None:
    """After a commit both are there, after a rollback neither is."""
    progress = store.claim("17")
    with Session(engine) as session:
        pay(session, store, progress, 1)
        session.commit()
        pay(session, store, progress, 2)
        session.rollback()
    assert (paid(engine), cursor(store)) == ([1], 1)


@pytest.mark.sample(3)
def test_a_death_before_the_commit_undoes_both(
    url: str, engine: sa.Engine, store: TransactionalStore
) -> None:
    """SIGKILL between save_within and the commit leaves what the commit before it left."""
    script = (
        "import sys, sqlalchemy as sa; from sqlalchemy.orm import Session\n"
        "from harness.stores.sql import SqlStore; from tests.stores.test_stores_sql import pay\n"
        "engine = sa.create_engine(sys.argv[1]); store = SqlStore(engine); progress = store.claim('17')\n"
        "with Session(engine) as session:\n"
        "    pay(session, store, progress, 1); session.commit()\n"
        "    pay(session, store, progress, 2); print('paid', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "paid\n"
        worker.kill()
    claimed = store.claim("17")
    assert (claimed.epoch, claimed.cursor, paid(engine)) == (2, 1, [1])


def test_the_work_of_a_superseded_execution_is_rolled_back(
    engine: sa.Engine, store: TransactionalStore
) -> None:
    """An execution that was frozen before its save, and then replaced, leaves nothing when it wakes up."""
    frozen = store.claim("17")
    successor = store.claim("17")
    with (
        pytest.raises(Superseded, match="execution 1 of job 17 must not save: execution 2 has claimed it"),
        Session(engine) as session,
        session.begin(),
    ):
        pay(session, store, frozen, 1)
    assert (paid(engine), store.load("17")) == ([], successor)


def test_a_claim_after_the_transaction_began_supersedes_it(
    url: str, engine: sa.Engine, store: TransactionalStore, impatient: sa.Engine
) -> None:
    """The claim supersedes it, even if the transaction still reads its old snapshot, which does not show the claim."""
    if url.startswith("sqlite"):
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    frozen = store.claim("17")
    with Session(engine) as session:
        assert session.scalars(sa.select(ORDERS)).all() == []
        if url.startswith("sqlite") and session.scalar(sa.text("PRAGMA journal_mode")) != "wal":
            with pytest.raises(OperationalError):  # there, who reads keeps writers out
                SqlStore(impatient).claim("17")
            return
        store.claim("17")
        with pytest.raises(Superseded, match="execution 2 has claimed it"):
            store.save_within(session, frozen)
        session.rollback()
    assert store.claim("17").epoch == 3


def test_a_claim_waits_for_the_commit_and_sees_it(
    engine: sa.Engine, store: TransactionalStore, impatient: sa.Engine
) -> None:
    """The job cannot be claimed between save_within and the end of the transaction."""
    progress = store.claim("17")
    with Session(engine) as session, ThreadPoolExecutor(1) as pool:
        pay(session, store, progress, 1)
        with pytest.raises((OperationalError, ProgressLocked)):
            SqlStore(impatient).claim("17")
        claim = pool.submit(store.claim, "17")
        session.commit()
        claimed = claim.result()
    assert (claimed.epoch, claimed.cursor, paid(engine)) == (2, 1, [1])


def test_a_claim_waits_for_the_rollback(
    engine: sa.Engine, store: TransactionalStore, impatient: sa.Engine
) -> None:
    """After the rollback the claim reads the progress from before the transaction."""
    progress = store.claim("17")
    with Session(engine) as session, ThreadPoolExecutor(1) as pool:
        pay(session, store, progress, 1)
        claim = pool.submit(store.claim, "17")
        with pytest.raises((OperationalError, ProgressLocked)):
            SqlStore(impatient).claim("17")
        session.rollback()
        claimed = claim.result()
    assert (claimed.epoch, claimed.cursor, paid(engine)) == (2, None, [])


def test_commits_and_a_claim_race(engine: sa.Engine, store: TransactionalStore) -> None:
    """The claim has the cursor of the last commit, and no work is committed after it."""
    progress, together, over = store.claim("17"), Barrier(2), Event()

    def pay_until_superseded() -> int:
        with Session(engine) as session:
            for order in count():
                assert not over.is_set(), "never superseded"
                if order == 20:
                    together.wait(PATIENCE)
                try:
                    pay(session, store, progress, order)
                except Superseded:
                    session.rollback()
                    return order - 1
                session.commit()
        raise AssertionError  # it counts for ever

    with ThreadPoolExecutor(1) as pool:
        last = pool.submit(pay_until_superseded)
        together.wait(PATIENCE)
        try:
            claimed = store.claim("17")
            assert claimed.cursor == last.result(PATIENCE)
        finally:
            over.set()
    assert paid(engine) == list(range(claimed.cursor + 1))


@pytest.mark.parametrize("isolation_level", ["AUTOCOMMIT", "SERIALIZABLE"])
def test_an_engine_may_have_any_isolation_level(
    url: str, connect: Callable[..., sa.Engine], isolation_level: str
) -> None:
    """A claim is one transaction all the same: it leaves what it refuses, and no two have one epoch."""
    engine = connect(isolation_level=isolation_level, connect_args=patience(url))
    store, table = SqlStore(engine), progress_tables(sa.MetaData()).progress
    with ThreadPoolExecutor(4) as pool:
        epochs = [each.result().epoch for each in [pool.submit(store.claim, "17") for _ in range(40)]]
    assert sorted(epochs) == list(range(1, 41))
    with engine.begin() as connection:
        connection.execute(sa.update(table).values(progress="{"))
    with pytest.raises(CorruptProgress):
        store.claim("17")
    with engine.begin() as connection:
        assert connection.execute(sa.select(table.c.epoch, table.c.progress)).one() == (40, "{")


def test_the_tables_are_named_where_they_are_missing(url: str, connect: Callable[..., sa.Engine]) -> None:
    """The error says what to do, and no password."""
    engine = connect()
    if not url.startswith("sqlite"):
        engine = connect_with_password(url)
    store = SqlStore(engine, tables=progress_tables(sa.MetaData(), name="elsewhere"))
    calls: list[Callable[[], Any]] = [
        lambda: store.claim("17"), lambda: store.save(Progress("17")), lambda: store.load("17"),
        lambda: store.delete("17"), lambda: store.read("17"), lambda: store.replace("17", None, "a"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(UsageError, match=r"no table 'elsewhere' .* SqlStore.create\(\)") as caught:
            call()
        assert "secret" not in shown(caught.value)
    engine.dispose()


def connect_with_password(url: str) -> sa.Engine:
    """Return an engine of a PostgreSQL, with a password that it does not ask for."""
    return sa.create_engine(url.replace("harness@", "harness:secret@"))


def shown(error: BaseException) -> str:
    """Return all that a log would show of an error."""
    return "".join(traceback.format_exception(error)) + repr(error)


def test_the_tables_can_have_other_names(connect: Callable[..., sa.Engine]) -> None:
    """They come from the metadata that migrations use; to make them twice does nothing."""
    engine, metadata = connect(), sa.MetaData()
    store = SqlStore(engine, tables=progress_tables(metadata, name="shop_jobs"))
    assert set(metadata.tables) == {"shop_jobs", "shop_jobs_shared"}
    store.create()
    store.create()
    assert store.claim("17").epoch == 1
    metadata.drop_all(engine)


def test_a_row_says_where_a_job_stands(engine: sa.Engine, store: TransactionalStore) -> None:
    """State, epoch and time can be asked for in SQL."""
    progress = store.claim("17")
    progress.state = "paused"
    store.save(progress)
    table = progress_tables(sa.MetaData()).progress
    with engine.connect() as connection:
        row = connection.execute(sa.select(table)).one()
    assert (row.job_id, row.epoch, row.state, row.updated_at is None) == ("17", 1, "paused", False)


def test_a_session_of_another_database_is_refused(
    engine: sa.Engine, store: TransactionalStore, tmp_path: Path
) -> None:
    """The session is refused, whether or not its database has the tables: one commit cannot cover both."""
    progress = store.claim("17")
    for create in (False, True):
        other = sa.create_engine(f"sqlite:///{tmp_path}/other.db")
        if create:
            SqlStore(other).create()
        with (
            Session(other) as session,
            pytest.raises(UsageError, match=r"in the sqlite database '.*other.db'"),
        ):
            store.save_within(session, progress)
        other.dispose()


def test_what_the_database_refuses_for_other_reasons_is_raised(
    engine: sa.Engine, store: TransactionalStore, impatient: sa.Engine
) -> None:
    """An execution that still has its job does not get Superseded."""
    progress = store.claim("17")
    with Session(engine) as session, Session(impatient) as other:
        store.save_within(session, progress)
        with pytest.raises((OperationalError, ProgressLocked)):
            SqlStore(impatient).save_within(other, progress)
        other.rollback()
        session.rollback()


def test_who_listens_to_the_statements_of_an_engine_hears_of_a_save(
    engine: sa.Engine, store: TransactionalStore
) -> None:
    """A save goes to the driver at once only where nobody traces, counts or changes the statements."""
    progress, heard = store.claim("17"), list[str]()
    with Session(engine) as session:
        store.save_within(session, progress)
        session.commit()
    sa.event.listen(engine, "before_cursor_execute", lambda *arguments: heard.append(arguments[2]))
    with Session(engine) as session:
        store.save_within(session, progress)
        session.commit()
    assert [statement for statement in heard if statement.startswith("UPDATE ")]


def test_a_connection_that_was_cut_is_told_as_that(postgresql_url: str) -> None:
    """A cut connection is an error of the database; the next claim finds what was committed."""
    with database(postgresql_url) as (engine, tables), Session(engine) as session:
        store = SqlStore(engine, tables=tables)
        progress = store.claim("17")
        pid = session.scalar(sa.text("SELECT pg_backend_pid()"))
        with engine.connect() as other:
            other.execute(sa.text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
        with pytest.raises(OperationalError) as caught:
            store.save_within(session, progress)
        assert caught.value.connection_invalidated
        session.rollback()
        assert store.claim("17").epoch == 2


def test_a_database_that_cannot_be_reached_keeps_its_password(postgresql_url: str, tmp_path: Path) -> None:
    """SQLAlchemy's error comes through, without it."""
    socket = sa.make_url(postgresql_url).query["host"]
    engine = connect_with_password(postgresql_url.replace(str(socket), str(tmp_path)))
    with pytest.raises(OperationalError) as caught:
        SqlStore(engine).claim("17")
    assert "secret" not in shown(caught.value)
    engine.dispose()
