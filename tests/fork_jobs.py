"""Jobs of an application that uses its database when it is imported, before any worker forks."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from rq.job import get_current_job
from sqlalchemy.orm import Session, scoped_session, sessionmaker

URL = os.environ.get("HARNESS_FORKS_URL", "sqlite://")
ENGINE = sa.create_engine(URL, pool_pre_ping="HARNESS_FORKS_PRE_PING" in os.environ)
with ENGINE.connect() as _connection:
    _connection.execute(sa.text("select 1"))

SESSIONS = scoped_session(sessionmaker(ENGINE))
if "HARNESS_FORKS_HOLD" in os.environ:
    SESSIONS.execute(sa.text("select 1"))

# Only now, as in an application whose worker is the last that it imports.
from harness import CompleteEarly, Enumerator, IterationJob, items, with_transaction  # noqa: E402
from harness.queues.rq import Worker  # noqa: E402
from harness.stores.sql import SqlStore  # noqa: E402

METADATA = sa.MetaData()
CHARGES = sa.Table(
    "charges", METADATA, sa.Column("account", sa.Integer, nullable=False), sa.Column("pid", sa.Integer)
)
BALANCES = sa.Table(
    "balances",
    METADATA,
    sa.Column("account", sa.Integer, primary_key=True),
    sa.Column("cents", sa.Integer, nullable=False),
)
ACCOUNTS = 24


class Preloaded(Worker):
    """A worker in whose process the application is loaded."""


def prepare(engine: sa.Engine) -> None:
    """Make the tables and the accounts."""
    METADATA.create_all(engine)
    SqlStore(engine).create()
    with engine.begin() as connection:
        rows = [{"account": account, "cents": 0} for account in range(ACCOUNTS)]
        connection.execute(sa.insert(BALANCES), rows)


class Killer:
    """Kills this process before or after the statement or commit whose number the test has put into a list."""

    def __init__(self) -> None:
        job = get_current_job()
        assert job is not None
        number = job.connection.lpop(f"kill:{job.id}")
        self._left = int(number) if isinstance(number, bytes) else -1
        job.connection.rpush(f"pids:{job.id}", os.getpid())

    def point(self, *_: Any) -> None:
        """Crash here if this is the place."""
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Charge(IterationJob):
    """Charges each account one cent; killed wherever the test says."""

    durability = with_transaction()
    max_crashes = 1000

    @classmethod
    def progress_store(cls) -> SqlStore:
        """Keep progress where the accounts are."""
        return SqlStore(ENGINE)

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Hold a session, with a possible crash around each statement and before each commit."""
        point = Killer().point
        for event in ("before_cursor_execute", "after_cursor_execute", "commit"):
            sa.event.listen(ENGINE, event, point)
        with Session(ENGINE) as self.session:
            yield

    def build_enumerator(self, *, cursor: Any) -> Enumerator[int]:
        """Go through the accounts."""
        return items(range(ACCOUNTS), cursor=cursor)

    def each_iteration(self, account: int) -> None:
        """Charge one."""
        with self.transaction() as session:
            change = sa.update(BALANCES).where(BALANCES.c.account == account)
            session.execute(change.values(cents=BALANCES.c.cents + 1))
            session.execute(sa.insert(CHARGES).values(account=account, pid=os.getpid()))


class Held(Charge):
    """Works in the session that the application has used before the fork."""

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Use the application's session as it is."""
        self.session = SESSIONS()
        yield


class Removed(Charge):
    """Closes that session first, as the error says."""

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Begin with a new session."""
        SESSIONS.remove()
        self.session = SESSIONS()
        try:
            yield
        finally:
            SESSIONS.remove()


def _charge(account: int) -> None:
    with ENGINE.begin() as connection:
        connection.execute(sa.insert(CHARGES).values(account=account, pid=os.getpid()))


class WithChildren(Charge):
    """Has the second half of each item done by a process, while its own transaction is open."""

    def each_iteration(self, account: int) -> None:
        """Charge one, and have it written down."""
        if account == 3:
            raise CompleteEarly
        with self.transaction() as session:
            change = sa.update(BALANCES).where(BALANCES.c.account == account)
            session.execute(change.values(cents=BALANCES.c.cents + 1))
            with multiprocessing.get_context("fork").Pool(2) as pool:
                pool.map(_charge, [account])


class Frozen(Charge):
    """Is stopped by SIGSTOP before its third commit, with the row of its progress locked."""

    @classmethod
    def progress_store(cls) -> SqlStore:
        """Keep progress where the accounts are, do not wait for locks, and report the execution."""
        job = get_current_job()
        assert job is not None
        job.connection.rpush(f"claims:{job.id}", os.getpid())
        return SqlStore(ENGINE, lock_timeout=0.05)

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Hold a session."""
        with Session(ENGINE) as self.session:
            self.stop_in_commit(self.session)
            yield

    def stop_in_commit(self, session: Session) -> None:
        """Have the process stopped in the third commit of the first execution."""
        job = get_current_job()
        assert job is not None
        commits = itertools.count(1)

        def before_commit(_: Session) -> None:
            if next(commits) == 3 and job.connection.setnx(f"frozen:{job.id}", 1):
                job.connection.rpush(f"pid:{job.id}", os.getpid())
                os.kill(os.getpid(), signal.SIGSTOP)

        sa.event.listen(session, "before_commit", before_commit)
