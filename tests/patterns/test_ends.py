"""Ends of an execution other than after its last item: by its own request, an error, a limit, a successor."""

from __future__ import annotations

from contextlib import nullcontext, suppress

import pytest

from harness import CancelJob, CompleteEarly, ContinuableJob, InlineRun, RetryLater, Step, every, run
from harness.errors import Interrupt, InterruptSwallowed, ResumeLimit, UsageError
from harness.runtime.ends import Ended
from harness.stops import Every
from harness.stores.memory import MemoryStore
from tests.jobs import CountByIteration, CountInSteps, FailInSteps, raises, told

pytestmark = pytest.mark.usefixtures("form")

# By its own word.


def test_a_job_may_complete_early(done: list[object]) -> None:
    """The rest is not done, on_complete runs, and the job counts as completed (I15)."""
    progress = run(told(i2=raises(CompleteEarly("enough"))), 5)
    assert done == ["start", 0, 1, "shutdown", "complete"]
    assert (progress.state, progress.done) == ("completed", 2)


def test_a_job_may_cancel_itself(done: list[object]) -> None:
    """on_cancel runs instead of on_complete, and the job never runs again (I15, S4)."""
    inline = InlineRun(told(i2=raises(CancelJob())), 5)
    assert [each.outcome for each in inline.drain()] == ["cancelled"]
    assert [each.outcome for each in inline.drain()] == ["cancelled"]
    assert done == ["start", 0, 1, "shutdown", "cancel"]


def test_a_job_may_go_on_later(done: list[object]) -> None:
    """After the delay that it asks for, with the item that was in progress (I15)."""
    ended = InlineRun(told(i2=raises(RetryLater(90, "rate limit"))), 4).drain()
    assert [(each.outcome, each.reason, each.delay) for each in ended] == [
        ("interrupted", "rate limit", 90), ("completed", None, 0),
    ]  # fmt: skip
    assert done == ["start", 0, 1, "shutdown", "resume", 2, 3, "shutdown", "complete"]


def test_a_job_of_steps_may_end_itself_too(done: list[object]) -> None:
    """The same exceptions work in steps."""

    class Job(CountInSteps):
        def count(self, step: Step) -> None:
            super().count(step)
            raise CompleteEarly

    assert run(Job, 2).state == "completed"
    assert done == ["load", 0, 1]


def test_steps_may_not_be_left_out() -> None:
    """A job of steps that completes early in one execution is completed, whatever steps are left."""

    class Job(ContinuableJob):
        def perform(self) -> None:
            self.step("load")
            self.step("never")

        def load(self) -> None:
            raise CompleteEarly

        def never(self) -> None:
            raise AssertionError

    inline = InlineRun(Job)
    assert [each.outcome for each in inline.drain()] == ["completed"]


def test_the_jobs_own_except_does_not_swallow_how_it_ends() -> None:
    """An exception that ends a job passes ``except Exception``."""

    class Careful(CountByIteration):
        def each_iteration(self, item: int, numbers: int) -> None:
            try:
                raise CancelJob
            except Exception as error:
                raise AssertionError("swallowed") from error

    assert run(Careful, 2).state == "cancelled"


@pytest.mark.parametrize("delay", [-1, float("inf"), float("nan")])
def test_a_delay_is_a_time(delay: float) -> None:
    """RetryLater refuses a delay that is not a time of 0 or more."""
    with pytest.raises(UsageError, match="takes seconds of 0 or more"):
        RetryLater(delay)


# By an error.


def test_an_error_keeps_the_cursor_of_the_last_checkpoint(done: list[object]) -> None:
    """A cursor that was changed in place before the effect does not pass it (C17, C27)."""
    inline = InlineRun(FailInSteps, 5, 3)
    ended = inline.drain()
    assert done == [0, 1, 2, "failed", 3, 4]
    assert [each.reason for each in ended] == ["RuntimeError: cannot do 3", None]


def test_an_error_without_progress_is_left_to_the_queue(done: list[object]) -> None:
    """An error before anything advanced is raised, and the progress is kept (C28)."""
    inline = InlineRun(FailInSteps, 5, 0)
    with pytest.raises(RuntimeError, match="cannot do 0"):
        inline.execute()
    assert inline.progress is not None
    assert (inline.progress.state, inline.progress.errors) == ("failed", 1)
    inline.drain()
    assert done == ["failed", 0, 1, 2, 3, 4]


def test_on_error_sees_what_was_raised(done: list[object]) -> None:
    """Resumed or not."""

    class Tells(FailInSteps):
        def on_error(self, error: Exception) -> None:
            done.append(str(error))

    InlineRun(Tells, 3, 1).drain()
    assert done == [0, "failed", "cannot do 1", 1, 2]


# By an interruption.


def test_resumptions_have_a_limit(done: list[object]) -> None:
    """The interruption after the last resumption allowed fails the job, with its progress kept (C24, C25)."""

    class Limited(CountInSteps):
        max_resumptions = 2

    inline = InlineRun(Limited, 10, stops=[Every(1)])
    with pytest.raises(ResumeLimit, match="resumed a maximum of 2 times"):
        inline.drain()
    assert done == ["load", 0, 1, 2]
    assert inline.progress is not None
    assert (inline.progress.cursor, inline.progress.resumptions) == (3, 2)


def test_a_swallowed_interrupt_is_an_error() -> None:
    """A job that catches everything cannot go on in silence (C22)."""

    class Swallows(ContinuableJob):
        def perform(self) -> None:
            @self.step("count", start=0)
            def count(step: Step) -> None:
                with suppress(BaseException):
                    step.advance()

    with pytest.raises(InterruptSwallowed, match="catch Exception instead of BaseException"):
        InlineRun(Swallows, stops=[Every(1)]).execute()


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_a_step_that_swallows_the_interrupt_is_not_completed(*, asynchronous: bool, last: bool) -> None:
    """A step that leaves its loop at an interruption which it caught keeps its cursor, and no item is lost (C22)."""
    done: list[object] = []

    def count(step: Step) -> None:
        with suppress(BaseException) if not patient else nullcontext():
            for number in range(step.cursor, 5):
                done.append(number)
                step.advance()

    class Plain(ContinuableJob):
        def perform(self) -> None:
            self.step("count", start=0)
            if not last:
                self.step("after")

        def count(self, step: Step) -> None:
            count(step)

        def after(self) -> None:
            done.append("after")

    class Awaits(ContinuableJob):
        async def perform(self) -> None:
            await self.step("count", start=0)
            if not last:
                await self.step("after")

        async def count(self, step: Step) -> None:
            count(step)

        async def after(self) -> None:
            done.append("after")

    patient = False
    inline = InlineRun(Awaits if asynchronous else Plain, stops=[Every(2)])
    with pytest.raises(InterruptSwallowed):
        inline.drain()
    assert inline.progress is not None
    assert (inline.progress.completed, inline.progress.step, inline.progress.cursor) == ([], "count", 2)
    patient = True
    inline.drain()
    assert done == [*range(5), *([] if last else ["after"])]


def test_interrupt_passes_except_exception_and_runs_finally() -> None:
    """Interrupt stands apart from errors, and cleanup runs as for any (C22)."""
    seen = []

    class Careful(ContinuableJob):
        def perform(self) -> None:
            @self.step("count", start=0)
            def count(step: Step) -> None:
                try:
                    step.advance()
                except Exception:  # noqa: BLE001 - this handler has to miss it
                    seen.append("except")
                finally:
                    seen.append("finally")

    assert not issubclass(Interrupt, Exception)
    assert InlineRun(Careful, stops=[Every(1)]).execute().outcome == "interrupted"
    assert seen == ["finally"]


# By a successor.


def test_a_superseded_execution_ends_quietly(done: list[object]) -> None:
    """Its save fails, it stops at that checkpoint although the job catches errors, and changes nothing."""
    store = MemoryStore()

    class Frozen(ContinuableJob):
        durability = every(items=1)

        def perform(self) -> None:
            @self.step("count", start=0)
            def count(step: Step) -> None:
                store.claim("7")  # another execution takes over
                try:
                    step.advance()
                except Exception:  # noqa: BLE001 - this handler has to miss it
                    done.append("caught")
                done.append("went on")

    assert InlineRun(Frozen, job_id="7", store=store).execute().outcome == "superseded"
    assert done == []
    progress = store.load("7")
    assert progress is not None
    assert (progress.epoch, progress.step) == (2, None)


def test_a_superseded_execution_cannot_complete_the_job() -> None:
    """A superseded execution saves nothing, and leaves on_complete to the execution that has taken over."""
    store = MemoryStore()

    class Late(ContinuableJob):
        def perform(self) -> None:
            store.claim("7")

        def on_complete(self) -> None:
            raise AssertionError("completed twice")

    assert InlineRun(Late, job_id="7", store=store).execute() == Ended("superseded")
    progress = store.load("7")
    assert progress is not None
    assert (progress.epoch, progress.state) == (2, "new")
