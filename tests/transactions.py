"""Jobs whose work and cursor are one commit, and their database."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from harness import ContinuableJob, Enumerator, IterationJob, Step, attribute, items, with_transaction
from harness.job import Job
from harness.stores.sql import SqlStore
from tests.databases import KINDS, async_engine, empty_database
from tests.jobs import Dead

EFFECTS = sa.Table("effects", sa.MetaData(), sa.Column("item", sa.Integer, nullable=False))


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """Yield an empty database with the tables for effects and for progress."""
    with empty_database(request, tmp_path) as engine:
        EFFECTS.create(engine)
        SqlStore(engine).create()
        Work.engine, Work.told = engine, {}
        yield engine


class Work:
    """Work that both jobs do on an item: they write it down, and run the action that the test planned."""

    engine: sa.Engine
    told: dict[int, Callable[[Any], object]]

    @classmethod
    def on(cls, job: Any, item: int) -> None:
        """Do an item."""
        job.session.execute(EFFECTS.insert().values(item=item))
        job.last = item
        cls.told.get(item, id)(job)

    @classmethod
    async def on_async(cls, job: Any, item: int) -> None:
        """Do an item in an AsyncSession."""
        await job.session.execute(EFFECTS.insert().values(item=item))
        job.last = item
        found = cls.told.get(item, id)(job)
        if inspect.isawaitable(found):
            await found

    @classmethod
    def async_session(cls) -> AsyncSession:
        """Return an AsyncSession on the database."""
        driver = "aiosqlite" if cls.engine.dialect.name == "sqlite" else "asyncpg"
        return AsyncSession(async_engine(cls.engine, driver), expire_on_commit=False)


def effects() -> list[int]:
    """Return what is in the table."""
    with Work.engine.connect() as connection:
        return list(connection.scalars(sa.select(EFFECTS.c.item).order_by(EFFECTS.c.item)))


def once(item: int, function: Callable[[Any], object]) -> None:
    """Have a job do something at an item, the first time only."""

    def first(running: Any) -> object:
        del Work.told[item]
        return function(running)

    Work.told[item] = first


def dies(_: Any) -> None:
    """Crash here."""
    raise Dead


class ByIteration(IterationJob):
    """Leaves the commit to the harness."""

    durability = with_transaction()
    last = attribute(default=-1)

    @classmethod
    def progress_store(cls) -> SqlStore:
        """Keep progress where the work is."""
        return SqlStore(Work.engine)

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Hold a session."""
        with Session(Work.engine) as self.session:
            yield

    def build_enumerator(self, count: int, *, cursor: Any) -> Enumerator[int]:
        """Go through the numbers."""
        return items(range(count), cursor=cursor)

    def each_iteration(self, item: int, count: int) -> None:
        """Do one."""
        del count
        with self.transaction():
            Work.on(self, item)


class InSteps(ContinuableJob):
    """Says where its transactions begin and end."""

    durability = with_transaction()
    last = attribute(default=-1)
    progress_store = ByIteration.progress_store

    def perform(self, count: int) -> None:
        """Run the step in a session."""
        self.count = count
        with Session(Work.engine) as self.session:
            self.step("work", start=0)

    def work(self, step: Step) -> None:
        """Do them all."""
        for item in range(step.cursor, self.count):
            with step.transaction():
                Work.on(self, item)
                step.advance()


class ByIterationAsync(ByIteration):
    """The same with an AsyncSession."""

    @asynccontextmanager
    async def around_iterate(self) -> AsyncIterator[None]:  # type: ignore[override]  # may be either
        """Hold a session."""
        async with Work.async_session() as self.session:  # type: ignore[assignment]  # as above
            yield

    async def each_iteration(self, item: int, count: int) -> None:  # type: ignore[override]  # as above
        """Do one."""
        del count
        async with self.transaction():
            await Work.on_async(self, item)


class InStepsAsync(InSteps):
    """The same with an AsyncSession."""

    async def perform(self, count: int) -> None:  # type: ignore[override]  # may be either
        """Run the step in a session."""
        self.count = count
        async with Work.async_session() as self.session:  # type: ignore[assignment]  # as above
            await self.step("work", start=0)

    async def work(self, step: Step) -> None:  # type: ignore[override]  # as above
        """Do them all."""
        for item in range(step.cursor, self.count):
            async with step.transaction():
                await Work.on_async(self, item)
                step.advance()


JOBS: list[type[Job]] = [ByIteration, InSteps, ByIterationAsync, InStepsAsync]
