"""Several items at a time, each of which commits its work with its own completion."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from inspect import isawaitable
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from harness import Enumerator, InlineRun, IterationJob, RetryLater, every, items, run, with_transaction
from harness.errors import CrashLimit, JobDefinitionError
from harness.stops import Every
from harness.stores.memory import MemoryStore
from harness.stores.sql import SqlStore
from tests import transactions
from tests.databases import async_engine
from tests.examples import examples
from tests.jobs import Dead
from tests.transactions import EFFECTS, Work, dies, effects

engine = transactions.engine

# A simulated death closes the event loop; aiosqlite's thread may then still be at a statement, whose end nobody awaits.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception in thread:pytest.PytestUnhandledThreadExceptionWarning"
)


class Own(IterationJob, abstract=True):
    """Each item writes in a session of its own."""

    durability = with_transaction()
    concurrency = 4

    @classmethod
    def progress_store(cls) -> SqlStore:
        """Keep progress where the work is."""
        return SqlStore(Work.engine)

    def new_session(self) -> Session:
        """Return a session for an item."""
        return Session(Work.engine)

    def build_enumerator(self, count: int, *, cursor: Any) -> Enumerator[int]:
        """Go through the numbers."""
        return items(range(count), cursor=cursor)

    def write(self, item: int) -> None:
        """Do an item, and what the test planned."""
        with self.transaction() as session:
            session.execute(EFFECTS.insert().values(item=item))
            Work.told.get(item, id)(session)


class Threads(Own):
    """Its items are plain."""

    def each_iteration(self, item: int, count: int) -> None:
        """Write the item."""
        self.write(item)


class Coroutines(Own):
    """Its items are coroutines."""

    @asynccontextmanager
    async def around_iterate(self) -> AsyncIterator[None]:
        """Hold an engine: its connections belong to the loop of one execution."""
        self.engine = async_engine(Work.engine, "aiosqlite" if Work.engine.name == "sqlite" else "asyncpg")
        try:
            yield
        finally:
            await self.engine.dispose()

    def new_session(self) -> Any:
        """Return a session for an item."""
        return AsyncSession(self.engine)

    async def each_iteration(self, item: int, count: int) -> None:
        """Write the item, some turns of the loop later."""
        for _ in range(item % 3):
            await asyncio.sleep(0)
        async with self.transaction() as session:
            await session.execute(EFFECTS.insert().values(item=item))
            told = Work.told.get(item, id)(session)
            if isawaitable(told):
                await told


both = pytest.mark.parametrize("job", [Threads, Coroutines])
LOCK = threading.Lock()


def once(item: int, function: Any) -> None:
    """Do something at an item, the first time only."""

    def first(session: Any) -> Any:
        with LOCK:
            if Work.told.pop(item, None) is None:
                return None
        return function(session)

    Work.told[item] = first


@pytest.mark.each
@both
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_every_item_is_there_once(engine: sa.Engine, job: type[Own], chunk: int) -> None:
    """However the job is interrupted, with the record in the same database."""
    inline = InlineRun(job, 20, stops=[Every(chunk)])
    inline.drain()
    progress = inline.progress
    assert progress is not None
    assert (effects(), progress.state, progress.done) == (list(range(20)), "completed", 20)


@pytest.mark.pairwise
@both
@pytest.mark.parametrize("at", [0, 3, 7])
def test_a_crash_loses_and_repeats_nothing(engine: sa.Engine, job: type[Own], at: int) -> None:
    """What an item did not commit is rolled back; what it did is in the record, beyond the cursor too."""
    once(at, dies)
    inline = InlineRun(job, 12)
    with pytest.raises(Dead):
        inline.execute()
    progress = inline.progress
    assert progress is not None
    assert progress.done == len(effects())
    inline.drain()
    assert effects() == list(range(12))


@both
@pytest.mark.parametrize("error", [ValueError("no"), RetryLater(5)])
def test_an_error_keeps_what_is_committed(engine: sa.Engine, job: type[Own], error: BaseException) -> None:
    """The failed item alone comes again."""

    def fail(_: Any) -> None:
        raise error

    once(5, fail)
    inline = InlineRun(job, 12)
    inline.execute()
    progress = inline.progress
    assert progress is not None
    assert progress.done == len(effects())
    inline.drain()
    assert effects() == list(range(12))


@both
@pytest.mark.parametrize("landed", [True, False])
def test_a_lost_answer_to_a_commit_is_looked_up(engine: sa.Engine, job: type[Own], landed: bool) -> None:
    """No other item of the execution commits after it, for its record would be a guess."""

    def lose(session: Any) -> None:
        commit = session.commit

        error = OperationalError("COMMIT", {}, Exception("server closed the connection"))

        def losing() -> None:
            if landed:
                commit()
            raise error

        async def losing_async() -> None:
            if landed:
                await commit()
            raise error

        session.commit = losing if job is Threads else losing_async

    once(3, lose)
    inline = InlineRun(job, 10)
    inline.execute()
    progress = inline.progress
    assert progress is not None
    assert progress.done == len(effects())
    assert (3 in effects()) == landed
    inline.drain()
    assert effects() == list(range(10))


@both
@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)  # SQLite lets nobody else write meanwhile
def test_a_superseded_execution_leaves_no_effect(engine: sa.Engine, job: type[Own]) -> None:
    """An execution that was replaced rolls back, and ends silently."""

    def replace(_: Any) -> Any:
        claim = partial(SqlStore(engine).claim, "7")
        # The claim waits while another item commits, and the loop must go on meanwhile.
        return asyncio.to_thread(claim) if job is Coroutines else claim()

    inline = InlineRun(job, 6, job_id="7")
    once(2, replace)
    assert inline.execute().outcome == "superseded"
    done = effects()
    assert len(done) == len(set(done))
    inline.drain()
    assert effects() == list(range(6))


@pytest.mark.parametrize(
    ("engine", "job"),
    # On SQLite, a save on the event loop would wait for the lock of a coroutine that waits for the loop.
    [("sqlite", Threads), ("postgresql", Threads), ("postgresql", Coroutines)],
    indirect=["engine"],
)
def test_the_same_job_runs_in_every_durability(engine: sa.Engine, job: type[Own]) -> None:
    """``self.transaction()`` then commits when its block ends."""
    InlineRun(job, 12, durability=every(items=1), stops=[Every(5)]).drain()
    assert effects() == list(range(12))


def test_a_plain_session_of_a_coroutine_is_refused(engine: sa.Engine) -> None:
    """It would block the event loop while it waits for the database, and with it the item that it waits for."""

    class Blocks(Coroutines):
        def new_session(self) -> Any:
            return Session(Work.engine)

    with pytest.raises(JobDefinitionError, match=r"returned Session, which would block the event loop"):
        run(Blocks, 3)
    assert effects() == []


def test_a_store_of_another_kind_is_refused(engine: sa.Engine) -> None:
    """Before any work."""
    with pytest.raises(
        JobDefinitionError, match=r"got MemoryStore; let progress_store\(\) return a SqlStore"
    ):
        InlineRun(Threads, 3, store=MemoryStore()).execute()
    assert effects() == []


def test_the_item_that_always_fails_is_set_aside(engine: sa.Engine) -> None:
    """And no other."""

    class Job(Coroutines):
        quarantine = True
        max_item_failures = 2

    def fail(_: Any) -> None:
        raise ValueError("poison")

    Work.told[4] = fail
    progress = run(Job, 12)
    assert effects() == [number for number in range(12) if number != 4]
    assert [(each.cursor, each.failures) for each in progress.quarantined] == [(4, 3)]


@examples(25)
@given(data=st.data())
def test_any_mixture_of_ends_adds_up(engine: sa.Engine, data: st.DataObject) -> None:
    """Each item is there once after any number of crashes, errors and stops, in any order."""
    with engine.begin() as connection:
        connection.execute(EFFECTS.delete())
    count = data.draw(st.integers(0, 12), "items")
    plan = data.draw(
        st.lists(st.sampled_from(["", "", "die", "fail", "later"]), min_size=30, max_size=30), "plan"
    )

    def happen(_: Any) -> None:
        what = plan.pop() if plan else ""
        if what == "die":
            raise Dead
        if what == "fail":
            raise ValueError(what)
        if what == "later":
            raise RetryLater(1)

    Work.told = dict.fromkeys(range(count), happen)
    several = data.draw(st.lists(st.sampled_from([2, 3, 10]), min_size=1, max_size=4), "several")
    stops = [Every(data.draw(st.integers(1, 5), "stop every"))]
    inline = InlineRun(Coroutines, count, stops=stops, store=SqlStore(engine))
    for number in range(60):
        Coroutines.concurrency = several[number % len(several)]
        try:
            if inline.execute().outcome == "completed":
                break
        except (Dead, ValueError, CrashLimit):
            pass
    assert effects() == list(range(count))
