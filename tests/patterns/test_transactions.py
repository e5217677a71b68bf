"""Work and cursor in one commit: whatever happens, the database has both or neither."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from harness import CompleteEarly, InlineRun, RetryLater, Step, every, on_stop, run, with_transaction
from harness.durability import Durability
from harness.errors import CrashLimit, JobDefinitionError
from harness.job import Job
from harness.stops import Every, Flag
from harness.stores.memory import MemoryStore
from harness.stores.sql import SqlStore
from tests import transactions
from tests.examples import examples
from tests.jobs import Dead
from tests.transactions import (
    EFFECTS,
    JOBS,
    ByIteration,
    ByIterationAsync,
    InSteps,
    InStepsAsync,
    Work,
    dies,
    effects,
    once,
)  # fmt: skip

engine = transactions.engine


@pytest.mark.parametrize("job", JOBS)
def test_uninterrupted_it_does_everything_once(engine: sa.Engine, job: type[Job]) -> None:
    """An uninterrupted job does everything once, and stores its progress in the same database."""
    inline = InlineRun(job, 7)
    inline.drain()
    progress = inline.progress
    assert progress is not None
    assert (effects(), progress.state, progress.done) == (list(range(7)), "completed", 7)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize(
    "durability", [with_transaction(), with_transaction(items=3), every(items=1), on_stop()]
)
def test_interrupted_after_every_item_it_does_everything_once(
    engine: sa.Engine, job: type[Job], durability: Durability
) -> None:
    """The same job runs in every durability."""
    InlineRun(job, 7, stops=[Every(1)], durability=durability).drain()
    assert effects() == list(range(7))


@pytest.mark.pairwise
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("at", range(7))
def test_a_death_at_any_item_loses_and_repeats_nothing(
    engine: sa.Engine, job: type[Job], size: int, at: int
) -> None:
    """Work that was not committed is rolled back together with its cursor."""
    once(at, dies)
    inline = InlineRun(job, 7, durability=with_transaction(items=size))
    with pytest.raises(Dead):
        inline.execute()
    done = effects()
    assert done == list(range(len(done)))
    inline.drain()
    assert effects() == list(range(7))


@pytest.mark.parametrize("job", JOBS)
def test_with_another_durability_a_death_repeats(engine: sa.Engine, job: type[Job]) -> None:
    """The control: without a common commit the items since the latest save are done again."""
    once(3, dies)
    inline = InlineRun(job, 5, durability=on_stop())
    with pytest.raises(Dead):
        inline.execute()
    inline.drain()
    assert effects() == [0, 0, 1, 1, 2, 2, 3, 4]


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("error", [ValueError("no"), RetryLater(5)])
def test_an_error_keeps_what_is_committed_and_no_more(
    engine: sa.Engine, job: type[Job], size: int, error: BaseException
) -> None:
    """Cursor, count and attributes are those of the latest commit, not of the memory of the execution."""

    def fail(_: Any) -> None:
        raise error

    once(4, fail)
    inline = InlineRun(job, 7, durability=with_transaction(items=size))
    inline.execute()
    progress = inline.progress
    assert progress is not None
    done = effects()
    assert (progress.done, progress.attributes) == (len(done), {"last": len(done) - 1} if done else {})
    inline.drain()
    assert effects() == list(range(7))


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("landed", [True, False])
def test_a_lost_answer_to_a_commit_is_looked_up(engine: sa.Engine, job: type[Job], landed: bool) -> None:
    """The database knows whether it happened; the execution does not guess."""

    def lose(running: Any) -> None:
        session, commit = running.session, running.session.commit

        lost = OperationalError("COMMIT", {}, Exception("server closed the connection"))

        def losing() -> None:
            session.commit = commit
            if landed:
                commit()
            raise lost

        async def losing_async() -> None:
            session.commit = commit
            if landed:
                await commit()
            raise lost

        session.commit = losing_async if isinstance(session, AsyncSession) else losing

    once(3, lose)
    inline = InlineRun(job, 6)
    inline.execute()
    progress = inline.progress
    assert progress is not None
    assert progress.done == len(effects()) == (4 if landed else 3)
    inline.drain()
    assert effects() == list(range(6))


@pytest.mark.parametrize("job", JOBS)
def test_a_superseded_execution_leaves_no_effect(engine: sa.Engine, job: type[Job]) -> None:
    """An execution that was frozen and replaced rolls its transaction back when it wakes up, and ends silently."""
    inline = InlineRun(job, 6, job_id="7")

    other = InlineRun(job, 6, job_id="7")

    def replaced(running: Any) -> None:
        if engine.dialect.name == "sqlite":
            running.session.rollback()  # its lock is that of the whole file: be replaced before the first write
        other.drain()
        running.session.execute(EFFECTS.insert().values(item=99))

    async def replaced_async(running: Any) -> None:
        if engine.dialect.name == "sqlite":
            await running.session.rollback()
        await asyncio.to_thread(other.drain)
        await running.session.execute(EFFECTS.insert().values(item=99))

    once(2, replaced_async if job in {ByIterationAsync, InStepsAsync} else replaced)
    assert inline.execute().outcome == "superseded"
    assert effects() == list(range(6))


@pytest.mark.parametrize("job", JOBS)
def test_a_request_in_the_middle_of_a_transaction_waits_for_its_end(
    engine: sa.Engine, job: type[Job]
) -> None:
    """A flag set during a transaction stops the job at the next checkpoint, with all its work committed."""
    flag = Flag()
    once(2, lambda _: flag.set("deploy"))
    inline = InlineRun(job, 6, stops=[flag])
    ended = inline.execute()
    assert (ended.outcome, ended.reason, effects()) == ("interrupted", "deploy", [0, 1, 2])


@pytest.mark.parametrize("durability", [with_transaction(), every(items=1), on_stop()])
def test_a_block_that_fails_takes_its_cursor_back(engine: sa.Engine, durability: Durability) -> None:
    """An error after the cursor was moved rolls back the work, so the item comes again."""

    class Job(InSteps):
        def work(self, step: Step) -> None:
            for item in range(step.cursor, self.count):
                with step.transaction():
                    step.advance()
                    Work.on(self, item)
                assert step.cursor == item + 1

    def fail(_: Any) -> None:
        raise ValueError

    once(2, fail)
    InlineRun(Job, 5, durability=durability).drain()
    assert effects() == list(range(5))


@pytest.mark.parametrize("size", [1, 3])
def test_what_is_done_stays_done_when_a_job_completes_early(engine: sa.Engine, size: int) -> None:
    """The work is committed even if the commit of several items was still due."""

    def enough(_: Any) -> None:
        raise CompleteEarly

    once(4, enough)
    InlineRun(ByIteration, 9, durability=with_transaction(items=size)).drain()
    assert effects() == [0, 1, 2, 3, 4]


def test_a_step_without_a_cursor_is_committed_with_its_completion(engine: sa.Engine) -> None:
    """Its work and that it is done are one commit."""

    class Job(InSteps):
        def perform(self, count: int) -> None:
            with Session(Work.engine) as self.session:
                self.step("load")
                self.step("after")

        def load(self) -> None:
            self.session.execute(EFFECTS.insert().values(item=1))

        def after(self) -> None:
            Work.told.get(0, id)(self)

    once(0, dies)
    inline = InlineRun(Job, 0)
    with pytest.raises(Dead):
        inline.execute()
    inline.drain()
    assert effects() == [1]


@pytest.mark.parametrize("size", [1, 3])
def test_the_item_that_failed_is_set_aside_and_no_other(engine: sa.Engine, size: int) -> None:
    """Though all that shared its commit was rolled back at first: from then on each item is committed by itself."""

    class Job(ByIteration):
        quarantine = True
        max_item_failures = 2

    def fail(_: Any) -> None:
        raise ValueError("poison")

    Work.told[4] = fail
    progress = run(Job, 9, durability=with_transaction(items=size))
    assert effects() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert [(each.cursor, each.failures) for each in progress.quarantined] == [(4, 3)]
    assert progress.state == "completed"


@examples(25)
@given(data=st.data())
def test_any_mixture_of_ends_adds_up(engine: sa.Engine, data: st.DataObject) -> None:
    """Each item is there once after any number of crashes, errors, stops and lost items, in any order."""
    with engine.begin() as connection:
        connection.execute(EFFECTS.delete())
    job = data.draw(st.sampled_from(JOBS), "job")
    count = data.draw(st.integers(0, 12), "items")

    def happen(running: Any) -> None:
        what = data.draw(st.sampled_from(["go on", "die", "fail", "later"]), "happens")
        if what == "die":
            raise Dead
        if what == "fail":
            raise ValueError(what)
        if what == "later":
            raise RetryLater(1)

    Work.told = dict.fromkeys(range(count), happen)
    stops = [Every(data.draw(st.integers(1, 5), "stop every"))]
    durability = with_transaction(items=data.draw(st.integers(1, 4), "commit every"))
    inline = InlineRun(job, count, stops=stops, durability=durability, store=SqlStore(engine))
    for _ in range(60):
        try:
            if inline.execute().outcome == "completed":
                break
        except (Dead, ValueError, CrashLimit):
            pass
    else:
        Work.told = {}
        inline.drain()
    assert effects() == list(range(count))


def test_what_cannot_be_committed_together_is_refused(engine: sa.Engine) -> None:
    """Another store, a block without a new cursor, a job without a session and a wrong number are refused."""
    with pytest.raises(JobDefinitionError, match="got Session and MemoryStore"):
        InlineRun(ByIteration, 3, store=MemoryStore()).execute()

    class Forgetful(InSteps):
        def work(self, step: Step) -> None:
            with step.transaction():
                Work.on(self, 1)

    with pytest.raises(JobDefinitionError, match=r"ended without step\.set"):
        InlineRun(Forgetful, 3).execute()
    assert effects() == []

    class Without(ByIteration):
        def around_iterate(self) -> Any:
            self.session = None  # type: ignore[assignment]
            return super(ByIteration, self).around_iterate()

        def each_iteration(self, item: int, count: int) -> None:
            """Do nothing."""

    with pytest.raises(JobDefinitionError, match="got NoneType and SqlStore"):
        InlineRun(Without, 3).execute()
    with pytest.raises(JobDefinitionError, match=r"takes an int of 1 or more; got 0"):
        with_transaction(items=0)
