"""The explorer on async jobs: crash points around what they await, and a cancellation at each await."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fakeredis
import httpx
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from harness import Enumerator, IterationJob, every, items, with_transaction
from harness.errors import UsageError
from harness.explore import Explorer, PlannedTrial, Verdict, explore, parse_trial
from harness.stores.sql import SqlStore
from tests.databases import ASYNC
from tests.explore import test_seen

address = test_seen.address

EFFECTS = sa.Table(
    "effects", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("item", sa.Integer)
)


class Shop:
    """Database that the jobs of a test use."""

    engine: sa.Engine
    driver: str
    redis = fakeredis.FakeServer()
    address = ""


def async_engine() -> AsyncEngine:
    """Return an engine of the async driver for the database."""
    kind = ASYNC[Shop.driver]
    return create_async_engine(Shop.engine.url.set(drivername=f"{kind}+{Shop.driver}"))


@pytest.fixture(
    params=[
        "aiosqlite",
        *(pytest.param(each, marks=pytest.mark.full) for each in ASYNC if each != "aiosqlite"),
    ]
)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | None]:
    """Have the tables in an empty database; yield what the explorer is told of it."""
    Shop.driver, Shop.redis = request.param, fakeredis.FakeServer()
    if ASYNC[Shop.driver] == "sqlite":
        Shop.engine = sa.create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
        _fill()
        yield None
        Shop.engine.dispose()
        return
    url, name = sa.make_url(request.getfixturevalue("postgresql_url")), f"explored_{uuid.uuid4().hex}"
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    Shop.engine = sa.create_engine(url.set(database=name))
    _fill()
    yield Shop.engine.url.render_as_string(hide_password=False)
    Shop.engine.dispose()
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


def _fill() -> None:
    EFFECTS.create(Shop.engine)
    SqlStore(Shop.engine).create()


class Together(IterationJob):
    """Commits work and cursor together."""

    durability = with_transaction()

    @classmethod
    def progress_store(cls) -> SqlStore:
        """Keep progress where the work is."""
        return SqlStore(Shop.engine)

    @asynccontextmanager
    async def around_iterate(self) -> AsyncIterator[None]:
        """Hold a session."""
        engine = async_engine()
        async with AsyncSession(engine, expire_on_commit=False) as self.session:
            yield
        await engine.dispose()

    def build_enumerator(self, *, cursor: Any) -> Enumerator[int]:
        """Go through two numbers."""
        return items(range(2), cursor=cursor)

    async def each_iteration(self, item: int) -> None:
        """Write one down."""
        async with self.transaction():
            await self.session.execute(EFFECTS.insert().values(item=item))


class Apart(Together):
    """The control: saves the cursor after the work."""

    durability = every(items=1)


class Counts(IterationJob):
    """Counts in Redis, where no transaction holds a cursor."""

    durability = every(items=1)

    def build_enumerator(self, *, cursor: Any) -> Enumerator[int]:
        """Go through two numbers."""
        return items(range(2), cursor=cursor)

    async def each_iteration(self, item: int) -> None:
        """Count one."""
        async with fakeredis.FakeAsyncRedis(server=Shop.redis) as redis:
            await redis.incr("done")


class Sends(Counts):
    """Posts to a server."""

    async def each_iteration(self, item: int) -> None:
        """Post one."""
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.post(f"{Shop.address}/{item}", content=b"1")


def trials_of(verdict: Verdict, action: str) -> list[str]:
    """Return the trials of a kind that found something."""
    return [each.trial for each in verdict.findings if each.trial.startswith(f"{action}:")]


def test_an_interruption_of_any_kind_loses_and_doubles_nothing(database: str | None) -> None:
    """Work and cursor in one commit: exactly once, also when the task is cancelled at any of its awaits."""
    actions: Any = ["crash", "stop", "lost-reply", "cancel"]
    verdict = explore(Together, database=database, actions=actions, pairs=False, processes=1)
    assert verdict.verdict == "exactly once", verdict.text()
    assert not verdict.not_seen, verdict.text()
    # A statement, the save and a commit for each item.
    assert verdict.trials["cancel"] == verdict.planned["cancel"] >= 6
    assert verdict.trials["crash"] >= 4


def test_a_cancellation_repeats_what_is_not_saved(database: str | None) -> None:
    """The control: a commit whose task is cancelled has happened, and the cursor does not say so."""
    actions: Any = ["cancel", "crash"]
    verdict = explore(Apart, database=database, actions=actions, pairs=False, processes=1)
    assert verdict.verdict == "at least once, repeated ≤ 1", verdict.text()
    (found,) = {each.partition("#")[0] for each in trials_of(verdict, "cancel")}
    assert found == "cancel:before-commit"
    assert trials_of(verdict, "crash")
    assert "its task was cancelled at tests/explore/test_async_jobs.py:" in verdict.text(), verdict.text()
    assert verdict.lines == verdict.all_lines > 0


@pytest.mark.parametrize("client", ["redis", "httpx"])
def test_other_async_clients_are_cancelled_at_their_awaits(client: str, address: str) -> None:
    """A command and a request that were sent before the cancellation come again."""
    job: Any = {"redis": Counts, "httpx": Sends}[client]
    Shop.redis = fakeredis.FakeServer()
    Shop.address = address
    verdict = explore(job, actions=["cancel"], pairs=False, processes=1)
    assert verdict.trials["cancel"] >= 2, verdict.text()
    assert not verdict.not_seen, verdict.text()


def test_only_an_await_can_be_cancelled(database: str | None) -> None:
    """Such a trial has a name, and a point without a task to cancel is refused."""
    assert parse_trial("cancel:before-commit#2") == PlannedTrial("cancel", (("before-commit", 2),))
    with pytest.raises(UsageError, match="no task waits there that could be cancelled"):
        explore(Together, database=database, only="cancel:before-commit#1", processes=1)


@pytest.mark.parametrize("database", ["aiosqlite"], indirect=True)
@pytest.mark.parametrize("trial", ["crash:before-commit#3", "crash:commit#3"])
def test_a_killed_process_loses_and_doubles_nothing(database: str | None, trial: str) -> None:
    """SIGKILL in the middle of an async commit, and after it, ends as the simulated crash does."""
    with Explorer(Together, database=database, processes=1) as explorer:
        for death in ("killed", "simulated", "restored"):
            result = explorer.result(parse_trial(trial), death)
            assert result.good, (death, result)
