"""Work and cursor in one commit with an ``AsyncSession``: ends of executions, hooks, and what is refused.

The rules for items and steps are in test_transactions.py, which runs its jobs with both kinds of session.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from harness import CompleteEarly, InlineRun, RetryLater, Step, events, run, subscribe, with_transaction
from harness.errors import JobDefinitionError, UsageError
from harness.job import Job
from harness.stops import Count, Flag
from harness.stores.sql import SqlStore
from tests import transactions
from tests.databases import async_engine
from tests.jobs import Dead, raises
from tests.transactions import EFFECTS, ByIterationAsync, InStepsAsync, Work, effects, once

engine = transactions.engine

HOOK = 100
"""The effect of a hook."""

BOTH = pytest.mark.parametrize("job", [ByIterationAsync, InStepsAsync])


async def write(job: Any, item: int = HOOK) -> None:
    """Have an effect in the session, and leave it open."""
    await job.session.execute(EFFECTS.insert().values(item=item))


def with_hooks(**hooks: Any) -> Any:
    """Return a job with these hooks."""
    return type("Hooked", (ByIterationAsync,), hooks)


@pytest.mark.parametrize("hook", ["on_shutdown", "on_complete"])
@pytest.mark.parametrize("block", [True, False])
def test_what_a_hook_does_in_the_session_is_committed(engine: sa.Engine, hook: str, block: bool) -> None:
    """The work of an async hook is committed with or without a block of transaction()."""

    async def does(job: Any) -> None:
        if not block:
            await write(job)
            return
        async with job.transaction():
            await write(job)

    run(with_hooks(**{hook: does}), 3)
    assert effects() == [0, 1, 2, HOOK]


@pytest.mark.parametrize("hook", ["on_shutdown", "on_error"])
def test_what_a_failing_hook_does_in_the_session_is_rolled_back(engine: sa.Engine, hook: str) -> None:
    """The work of a hook that fails is rolled back, and the end of the execution holds."""

    async def does(job: Any, *_: object) -> None:
        await write(job)
        raise KeyError(hook)

    if hook == "on_error":
        once(1, lambda _: raises(ValueError("no"))())
    run(with_hooks(**{hook: does}), 3)
    assert effects() == [0, 1, 2]


def test_on_complete_is_committed_with_the_end(engine: sa.Engine) -> None:
    """A crash in on_complete commits neither, and on_complete runs again."""
    deaths = [Dead()]

    async def does(job: Any) -> None:
        await write(job)
        if deaths:
            await job.session.close()  # as the end of its process does
            raise deaths.pop()

    inline = InlineRun(with_hooks(on_complete=does), 3)
    with pytest.raises(Dead):
        inline.execute()
    assert effects() == [0, 1, 2]
    inline.drain()
    assert effects() == [0, 1, 2, HOOK]


@pytest.mark.parametrize("landed", [True, False])
def test_a_lost_answer_to_the_commit_of_the_end_is_looked_up(engine: sa.Engine, landed: bool) -> None:
    """The effect of on_complete is there once, whether the commit happened or not."""
    calls = [0]

    async def does(job: Any) -> None:
        await write(job)
        calls[0] += 1
        session, commit = job.session, job.session.commit

        async def losing() -> None:
            session.commit = commit
            if landed:
                await commit()
            else:
                await session.rollback()
            raise OperationalError("COMMIT", {}, Exception("server closed the connection"))

        if calls[0] == 1:
            session.commit = losing

    ended = InlineRun(with_hooks(on_complete=does), 3).drain()
    assert [each.outcome for each in ended] == (["completed"] if landed else ["interrupted", "completed"])
    assert (effects(), calls) == ([0, 1, 2, HOOK], [1 if landed else 2])


def test_a_quarantine_hook_commits_for_itself(engine: sa.Engine) -> None:
    """Its effect does not wait for the next item, which may fail; nor does its failure spoil that."""

    class Quarantining(ByIterationAsync):
        quarantine = True
        max_item_failures = 0

        async def on_quarantine(self, item: int, error: str) -> None:
            await write(self)
            if item == 3:
                raise KeyError("hook")

    Work.told = dict.fromkeys((1, 3), lambda _: raises(ValueError("poison"))())
    with subscribe((seen := list[Any]()).append, events.HookFailed):
        run(Quarantining, 5)
    assert effects() == [0, 2, 4, HOOK]
    assert [event.hook for event in seen] == ["on_quarantine"]


@BOTH
def test_an_interrupted_end_leaves_nothing_uncommitted(engine: sa.Engine, job: type[Job]) -> None:
    """Everything that the stored progress counts is in the database when the first hook runs."""
    found = list[Any]()

    def look(running: Any) -> None:
        found.append((effects(), running.execution.progress.done))

    InlineRun(
        type("Looking", (job,), {"on_shutdown": look}),
        5,
        stops=[Count(3)],
        durability=with_transaction(items=5),
    ).execute()
    assert found == [([0, 1, 2], 3)]


def test_a_step_that_completes_the_job_early_keeps_its_work(engine: sa.Engine) -> None:
    """The step does not run again, so its work must survive the end of the session."""

    class Early(InStepsAsync):
        async def work(self, step: Step) -> None:  # type: ignore[override]  # may be either
            await Work.on_async(self, 1)
            raise CompleteEarly

    assert run(Early, 1).state == "completed"
    assert effects() == [1]


def test_a_step_without_a_cursor_is_committed_with_its_completion(engine: sa.Engine) -> None:
    """Its work and that it is done are one commit."""

    class Steps(InStepsAsync):
        async def perform(self, count: int) -> None:  # type: ignore[override]  # may be either
            async with Work.async_session() as self.session:  # type: ignore[assignment]  # as above
                await self.step("load")
                await self.step("after")

        async def load(self) -> None:
            await write(self, 1)

        async def after(self) -> None:
            Work.told.get(0, id)(self)

    once(0, lambda _: raises(Dead())())
    inline = InlineRun(Steps, 0)
    with pytest.raises(Dead):
        inline.execute()
    inline.drain()
    assert effects() == [1]


@BOTH
@pytest.mark.parametrize("during", ["item", "commit"])
def test_a_cancelled_task_loses_and_repeats_nothing(engine: sa.Engine, job: type[Job], during: str) -> None:
    """A cancellation in an item or at its commit is an error; what the database has is what counts as done."""

    async def cancelled(running: Any) -> None:
        task, session, commit = asyncio.current_task(), running.session, running.session.commit
        assert task is not None
        if during == "item":
            task.cancel()
            await asyncio.sleep(0)

        async def cancelling() -> None:
            session.commit = commit
            task.cancel()
            await commit()

        session.commit = cancelling

    once(2, cancelled)
    inline = InlineRun(job, 5)
    ended = inline.execute()
    progress = inline.progress
    assert progress is not None
    assert (ended.outcome, progress.done) == ("interrupted", len(effects()))
    inline.drain()
    assert effects() == list(range(5))


def test_a_cursor_that_moves_during_the_commit_is_not_in_it(engine: sa.Engine) -> None:
    """What another task does while a commit is under way belongs to the next one."""

    class Moving(InStepsAsync):
        async def work(self, step: Step) -> None:  # type: ignore[override]  # may be either
            session: Any = self.session
            commit = session.commit

            async def moving() -> None:
                session.commit = commit
                await commit()
                self.execution.progress.cursor = 2

            async with step.transaction():
                await write(self, 1)
                step.set(1)
                session.commit = moving
            await write(self, 2)
            await self.execution.commit_async()

    run(Moving, 1)
    assert effects() == [1, 2]


def test_the_other_form_of_a_block_is_refused_by_name(engine: sa.Engine) -> None:
    """Both patterns say which form an AsyncSession takes."""

    class Plain(ByIterationAsync):
        async def each_iteration(self, item: int, count: int) -> None:  # type: ignore[override]  # may be either
            with self.transaction():
                pass

    class PlainSteps(InStepsAsync):
        async def work(self, step: Step) -> None:  # type: ignore[override]  # may be either
            with step.transaction():
                pass

    class Outside(InStepsAsync):
        async def work(self, step: Step) -> None:  # type: ignore[override]  # may be either
            await write(self)
            step.set(1)

    with pytest.raises(UsageError, match=r"is an AsyncSession; write async with self\.transaction\(\)"):
        run(Plain, 1)
    with pytest.raises(UsageError, match=r"is an AsyncSession; write async with step\.transaction\(\)"):
        run(PlainSteps, 1)
    with pytest.raises(JobDefinitionError, match=r"use async with step\.transaction\(\)"):
        run(Outside, 1)
    assert effects() == []


def test_a_store_takes_a_plain_engine(engine: sa.Engine) -> None:
    """Its saves are plain calls: an async engine is refused, and the error says what to give."""
    driver = "aiosqlite" if engine.dialect.name == "sqlite" else "asyncpg"
    with pytest.raises(UsageError, match="takes a plain engine; got one of an async driver"):
        SqlStore(async_engine(engine, driver).sync_engine)
    with pytest.raises(UsageError, match="takes a plain engine"):
        SqlStore(async_engine(engine, driver))  # type: ignore[arg-type]


def test_a_deleted_row_is_stored_again_with_the_work(engine: sa.Engine) -> None:
    """The execution that owns the job stores its row again, and two drivers of one database are not two databases."""
    inline = InlineRun(ByIterationAsync, 4, job_id="7")

    async def forget(_: Any) -> None:
        if engine.dialect.name == "postgresql":
            await asyncio.to_thread(SqlStore(engine).delete, "7")

    once(2, forget)
    assert inline.execute().outcome == "completed"
    progress = inline.progress
    assert progress is not None
    assert (progress.done, effects()) == (4, [0, 1, 2, 3])


def test_a_wait_keeps_what_is_done(engine: sa.Engine) -> None:
    """Work is committed before the job waits, also where the commit of several items is still due."""

    async def wait(_: Any) -> None:
        raise RetryLater(5)

    once(3, wait)
    inline = InlineRun(ByIterationAsync, 5, durability=with_transaction(items=2))
    assert inline.execute().outcome == "interrupted"
    inline.drain()
    assert effects() == list(range(5))


def test_a_flag_stops_it_with_its_work_committed(engine: sa.Engine) -> None:
    """A request during a transaction is heard at the next checkpoint."""
    flag = Flag()
    once(2, lambda _: flag.set("deploy"))
    ended = InlineRun(ByIterationAsync, 6, stops=[flag]).execute()
    assert (ended.outcome, ended.reason, effects()) == ("interrupted", "deploy", [0, 1, 2])
