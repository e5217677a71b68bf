"""Work and cursor in one commit, at the ends of executions: no hook commits work alone, and what is done stays done."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from harness import CompleteEarly, InlineRun, Step, events, run, subscribe, throttle, with_transaction
from harness.job import Job
from harness.stops import Count
from tests import transactions
from tests.jobs import Dead, raises
from tests.transactions import EFFECTS, ByIteration, InSteps, Work, effects, once

engine = transactions.engine

HOOK = 100
"""The effect of a hook."""


def write(job: Any) -> None:
    """Have an effect in the session, and leave it open."""
    job.session.execute(EFFECTS.insert().values(item=HOOK))


def hooked(**hooks: Any) -> Any:
    """Return a job with these hooks."""
    return type("Hooked", (ByIteration,), hooks)


@pytest.mark.parametrize("size", [1, 3])
def test_a_hook_cannot_commit_half_an_item(engine: sa.Engine, size: int) -> None:
    """Though the session outlives the work and the hook commits it: what was open is rolled back before."""

    class Long(ByIteration):
        def around_iterate(self) -> Any:
            self.session = Session(Work.engine)
            return super(ByIteration, self).around_iterate()

        def on_error(self, error: Exception) -> None:
            self.session.commit()

    once(4, lambda _: raises(ValueError("no"))())
    InlineRun(Long, 7, durability=with_transaction(items=size)).drain()
    assert effects() == list(range(7))


@pytest.mark.parametrize("hook", ["on_shutdown", "on_complete"])
@pytest.mark.parametrize("block", [True, False])
def test_what_a_hook_does_in_the_session_is_committed(engine: sa.Engine, hook: str, block: bool) -> None:
    """The work of a hook is committed with or without a block of transaction(), as the work on an item is."""

    def does(job: Any) -> None:
        if not block:
            write(job)
            return
        with job.transaction():
            write(job)

    run(hooked(**{hook: does}), 3)
    assert effects() == [0, 1, 2, HOOK]


@pytest.mark.parametrize("hook", ["on_shutdown", "on_error"])
def test_what_a_failing_hook_does_in_the_session_is_rolled_back(engine: sa.Engine, hook: str) -> None:
    """The work of a hook that fails is rolled back, and the end of the execution holds."""

    def does(job: Any, *_: object) -> None:
        write(job)
        raise KeyError(hook)

    if hook == "on_error":
        once(1, lambda _: raises(ValueError("no"))())
    run(hooked(**{hook: does}), 3)
    assert effects() == [0, 1, 2]


def test_on_complete_is_committed_with_the_end(engine: sa.Engine) -> None:
    """A crash in on_complete commits neither, and on_complete runs again."""
    deaths = [Dead()]

    def does(job: Any) -> None:
        write(job)
        if deaths:
            job.session.close()  # as the end of its process does
            raise deaths.pop()

    inline = InlineRun(hooked(on_complete=does), 3)
    with pytest.raises(Dead):
        inline.execute()
    assert effects() == [0, 1, 2]
    inline.drain()
    assert effects() == [0, 1, 2, HOOK]


@pytest.mark.parametrize("landed", [True, False])
def test_a_lost_answer_to_the_commit_of_the_end_is_looked_up(engine: sa.Engine, landed: bool) -> None:
    """The effect of on_complete is there once, whether the commit happened or not."""
    calls = [0]

    def does(job: Any) -> None:
        write(job)
        calls[0] += 1
        commit = job.session.commit

        def losing() -> None:
            if landed:
                commit()
            raise OperationalError("COMMIT", {}, Exception("server closed the connection"))

        if calls[0] == 1:
            job.session.commit = losing

    ended = InlineRun(hooked(on_complete=does), 3).drain()
    assert [each.outcome for each in ended] == (["completed"] if landed else ["interrupted", "completed"])
    assert (effects(), calls) == ([0, 1, 2, HOOK], [1 if landed else 2])


def test_a_quarantine_hook_commits_for_itself(engine: sa.Engine) -> None:
    """Its effect does not wait for the next item, which may fail; nor does its failure spoil that."""

    class Job(ByIteration):
        quarantine = True
        max_item_failures = 0

        def on_quarantine(self, item: int, error: str) -> None:
            write(self)
            if item == 3:
                raise KeyError("hook")

    def fail(_: Any) -> None:
        raise ValueError("poison")

    Work.told = {1: fail, 3: fail}
    with subscribe((seen := list[Any]()).append, events.HookFailed):
        run(Job, 5)
    assert effects() == [0, 2, 4, HOOK]
    assert [event.hook for event in seen] == ["on_quarantine"]


def test_what_is_done_before_a_wait_is_kept(engine: sa.Engine) -> None:
    """Work is committed before a throttle waits; otherwise each wait between commits would roll it back again."""

    class Throttled(ByIteration):
        def build_enumerator(self, count: int, *, cursor: Any) -> Any:
            asked = [0]

            def wait() -> bool:
                asked[0] += 1
                return asked[0] == 3

            return throttle(super().build_enumerator(count, cursor=cursor), on=wait, backoff=5)

    inline = InlineRun(Throttled, 6, durability=with_transaction(items=5))
    for done in (2, 4, 6):
        assert inline.execute().outcome == "interrupted"
        assert effects() == list(range(done))
    inline.drain()
    assert effects() == list(range(6))


@pytest.mark.parametrize("job", [ByIteration, InSteps])
def test_an_interrupted_end_leaves_nothing_uncommitted(engine: sa.Engine, job: type[Job]) -> None:
    """Everything that the stored progress counts is in the database when the first hook runs."""
    found = list[Any]()

    def look(running: Any) -> None:
        found.append((effects(), running.execution.progress.done))

    InlineRun(
        type("Job", (job,), {"on_shutdown": look}), 5, stops=[Count(3)], durability=with_transaction(items=5)
    ).execute()
    assert found == [([0, 1, 2], 3)]


def test_a_step_that_completes_the_job_early_keeps_its_work(engine: sa.Engine) -> None:
    """The step does not run again, so its work must survive the end of the session."""

    class Early(InSteps):
        def work(self, step: Step) -> None:
            Work.on(self, 1)
            raise CompleteEarly

    assert run(Early, 1).state == "completed"
    assert effects() == [1]
