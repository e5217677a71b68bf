"""Rules for ``AsyncSession`` alone; the suites of the enumerators hold for it as well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker

from harness import InlineRun, IterationJob, batches, items, nested, parallel_records, ranges, records, run
from harness.errors import JobDefinitionError, UsageError
from harness.stops import Every
from tests.databases import ASYNC
from tests.enumerator_cases import MOST, Parcel, World, filled


@pytest.fixture(params=["aiosqlite", "asyncpg"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Return tables with rows, and an AsyncSession."""
    with filled(request, tmp_path) as world:
        yield world


@pytest.fixture
def engine(world: World) -> AsyncEngine:
    """Return the engine of that session."""
    engine: AsyncEngine = world.reader.bind
    return engine


def test_a_commit_that_expires_the_next_objects_is_refused(engine: AsyncEngine) -> None:
    """Objects of a page that come next could not be read after a commit; rows of columns and lists can."""
    session = AsyncSession(engine)
    with pytest.raises(
        JobDefinitionError, match=r"of Parcel got an AsyncSession .* with expire_on_commit=False"
    ):
        records(session, sa.select(Parcel), cursor=None)
    assert records(session, sa.select(Parcel.id, Parcel.day), cursor=None).is_async
    assert batches(session, Parcel, cursor=None).is_async
    assert ranges(session, Parcel, cursor=None).is_async


def test_a_scoped_session_is_a_session(engine: AsyncEngine) -> None:
    """It reads as the AsyncSession behind it does."""
    scoped = async_scoped_session(
        async_sessionmaker(engine, expire_on_commit=False), scopefunc=asyncio.current_task
    )

    async def read() -> list[int]:
        found = [parcel.id async for parcel, _ in records(scoped, Parcel, cursor=None, batch_size=2)]
        await scoped.remove()
        return found

    assert asyncio.run(read()) == list(range(MOST))


def test_the_loop_goes_on_while_a_page_is_read(world: World) -> None:
    """Another task runs before the first page is there."""

    async def read() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        await asyncio.sleep(0)
        before = turns
        await anext(aiter(records(world.reader, Parcel, cursor=None)))
        counting.cancel()
        return turns - before

    assert asyncio.run(read()) > 0


def test_a_size_to_await_is_not_read_by_the_way(world: World) -> None:
    """A plain question for the size is refused by name, and the awaited one is answered."""
    found = records(world.reader, Parcel, cursor=None)
    with pytest.raises(JobDefinitionError, match=r"has to be awaited; use await enumerator\.find_size\(\)"):
        _ = found.size
    assert asyncio.run(found.find_size()) == found.size == MOST


def test_a_parallel_run_takes_a_plain_session(world: World) -> None:
    """The error says what to use."""
    with pytest.raises(
        UsageError, match="takes a Session; got AsyncSession; make a Session on a plain engine"
    ):
        parallel_records(world.reader, Parcel, instances=2, cursor=None)


def test_a_plain_job_refuses_an_async_level(world: World) -> None:
    """A level of nested() is known when it is opened: a job without async def is then refused by name."""

    class Plain(IterationJob):
        def build_enumerator(self, *, cursor: Any) -> Any:
            return nested(
                [
                    lambda cursor: items([1], cursor=cursor),
                    lambda _, cursor: records(world.reader, Parcel, cursor=cursor),
                ],
                cursor=cursor,
            )

        def each_iteration(self, item: Any) -> None:
            """Do nothing."""

    with pytest.raises(JobDefinitionError, match=r"enumerator is async; .* each_iteration is async def"):
        run(Plain)


@pytest.mark.parametrize("stop_with", ["plain", "async"])
def test_a_job_may_change_its_session_while_it_is_stopped(world: World, stop_with: str) -> None:
    """Cursors of a plain session and of an async one are the same, guarded or not."""
    sessions: dict[str, Callable[[], Any]] = {"plain": lambda: world.session, "async": lambda: world.reader}
    order = [stop_with, *(sorted({"plain", "async"} - {stop_with}))]
    done, executions = list[int](), list[str]()

    class Reading(IterationJob):
        def build_enumerator(self, *, cursor: Any) -> Any:
            executions.append(order[len(executions) % 2])
            session = sessions[executions[-1]]()
            return records(session, Parcel, cursor=cursor, batch_size=2, guard=True)

        async def each_iteration(self, parcel: Parcel) -> None:
            done.append(parcel.id)

    InlineRun(Reading, stops=[Every(1)]).drain()
    assert done == list(range(MOST))
    assert len(executions) == MOST + 1


def test_every_async_driver_is_tested() -> None:
    """The suites know the drivers that the guide names."""
    guide = Path(__file__).parents[2].joinpath("docs", "async.md").read_text(encoding="utf-8")
    (line,) = (line for line in guide.splitlines() if line.startswith("- Tested drivers:"))
    assert [name for name in ASYNC if name.partition("_")[0] not in line] == []
