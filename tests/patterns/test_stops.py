"""Sources that stop a job at a checkpoint: triggers, flags, pause and cancel, limits of time."""

from __future__ import annotations

from typing import Any

import pytest

from harness import ContinuableJob, InlineRun, Step, events, run, subscribe
from harness.errors import NothingInterrupted, UsageError
from harness.overrides import limit_runtime
from harness.pytest_plugin import Interrupting
from harness.stops import CANCEL, PAUSE, AtStep, Count, Flag, any_of
from tests.jobs import CountByIteration, CountInSteps

pytestmark = pytest.mark.usefixtures("form")

# Triggers.


def test_a_trigger_compares_real_cursors(done: list[object]) -> None:
    """A stop in a step at a cursor happens when its value is equal (C36, C37)."""
    inline = InlineRun(CountInSteps, 10, stops=[AtStep("count", 4)])
    assert inline.execute().reason == "step:count@4"
    assert done == ["load", 0, 1, 2, 3]


def test_the_helpers_interrupt_jobs_of_this_process(
    done: list[object], interrupt_during_step: Interrupting, interrupt_after_step: Interrupting
) -> None:
    """During a step at a cursor and after a step, for the reason given; the job then goes on (C36)."""
    inline = InlineRun(CountInSteps, 3)
    with interrupt_after_step("load", reason="deploy"):
        assert inline.execute().reason == "deploy"
    with interrupt_during_step("count", cursor=2):
        assert inline.execute().reason == "step:count@2"
    assert done == ["load", 0, 1]
    assert inline.execute().outcome == "completed"


def test_the_helpers_fail_if_nothing_was_interrupted(
    interrupt_during_step: Interrupting, interrupt_after_step: Interrupting
) -> None:
    """A test that interrupted nothing has shown nothing (C37)."""
    with (
        pytest.raises(NothingInterrupted, match="no job was interrupted in step 'count' at cursor '2'"),
        interrupt_during_step("count", cursor="2"),
    ):
        run(CountInSteps, 3)
    with (
        pytest.raises(NothingInterrupted, match="no job was interrupted after step 'finish'"),
        interrupt_after_step("finish"),
    ):
        run(CountInSteps, 3)


def test_the_helpers_take_a_job_class(
    done: list[object], interrupt_during_step: Interrupting, interrupt_after_step: Interrupting
) -> None:
    """Other jobs of the process pass the same place; a base class stands for all that derive from it."""

    class Other(CountInSteps):
        pass

    with interrupt_after_step("load", job=Other):
        assert InlineRun(CountInSteps, 3).execute().outcome == "completed"
        assert InlineRun(Other, 3).execute().reason == "after-step:load"
    with interrupt_during_step("count", cursor=2, job=CountInSteps):
        assert InlineRun(Other, 3).execute().reason == "step:count@2"
    with (
        pytest.raises(NothingInterrupted, match="no Other was interrupted in step 'count'"),
        interrupt_during_step("count", job=Other),
    ):
        run(CountInSteps, 3)
    with pytest.raises(UsageError, match="job= takes a ContinuableJob or an IterationJob, got 'Other'"):
        interrupt_during_step("count", job="Other").__enter__()


def test_a_stop_source_can_tell_jobs_apart() -> None:
    """A stop source can use the class of the job at the position."""
    source = [lambda at: isinstance(at.job, CountInSteps)]
    assert InlineRun(CountByIteration, 2, stops=source).execute().outcome == "completed"
    assert InlineRun(CountInSteps, 2, stops=source).execute().reason == "stopping"


# Requests.


def test_a_flag_wakes_a_running_job() -> None:
    """A flag that is set while the job runs stops it at its next checkpoint, without being polled."""
    flag = Flag()

    class Signalled(ContinuableJob):
        def perform(self) -> None:
            @self.step("count", start=0)
            def count(step: Step) -> None:
                for number in range(step.cursor, 9):
                    if number == 4:
                        flag.set("deploy")
                    step.advance()

    inline = InlineRun(Signalled, stops=[flag])
    ended = inline.execute()
    assert (ended.reason, inline.progress and inline.progress.cursor) == ("deploy", 5)


@pytest.mark.parametrize(
    ("control", "state", "told"), [(PAUSE, "paused", []), (CANCEL, "cancelled", ["cancel"])]
)
def test_a_job_can_be_paused_and_cancelled(
    done: list[object], control: str, state: str, told: list[str]
) -> None:
    """Both stop it at a checkpoint with its progress kept; on_cancel runs instead of on_complete (C39, S4)."""

    class Told(CountInSteps):
        def on_cancel(self) -> None:
            done.append("cancel")

        def on_complete(self) -> None:
            done.append("complete")

    inline = InlineRun(Told, 9, stops=[lambda at: control if at.done == 4 else None])
    assert [each.outcome for each in inline.drain()] == [state]
    assert done == ["load", 0, 1, 2, 3, *told]
    assert inline.progress is not None
    assert (inline.progress.state, inline.progress.reason, inline.progress.cursor) == (state, state, 4)


def test_stop_sources_can_be_combined(done: list[object]) -> None:
    """The job's author can combine sources: any of several, and the job's own should_stop."""
    flag = Flag()

    class Job(CountByIteration):
        stop = any_of(Count(2), flag)

        def should_stop(self) -> bool | str | None:
            return self.stop(self.execution)

    assert [each.reason for each in InlineRun(Job, 4).drain()] == ["count:2", None]
    assert done == [0, 1, 2, 3]


# Time.


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        """Return what it was set to."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock of the test's own."""
    return Clock()


def test_max_runtime_gives_others_their_turn(clock: Clock) -> None:
    """An execution stops at the first checkpoint after its time (C39)."""

    class Long(ContinuableJob):
        max_runtime = 1.0

        def perform(self) -> None:
            @self.step("count", start=0)
            def count(step: Step) -> None:
                for _ in range(step.cursor, 6):
                    clock.now += 0.4
                    step.advance()

    ended = InlineRun(Long, clock=clock).drain()
    assert [each.reason for each in ended] == ["max_runtime", "max_runtime", None]


@pytest.mark.parametrize(("own", "everybodys"), [(3, 1000), (1000, 3), (3, None), (None, 3)])
def test_the_lower_limit_of_runtime_wins(
    clock: Clock, own: float | None, everybodys: float | None, done: list[object]
) -> None:
    """The class's and the process's own, whichever comes first (I9)."""

    class Slow(CountByIteration):
        max_runtime = own

        def each_iteration(self, item: int, numbers: int) -> None:
            super().each_iteration(item, numbers)
            clock.now += 1

    limit_runtime(everybodys)
    try:
        ended = InlineRun(Slow, 7, clock=clock).drain()
    finally:
        limit_runtime(None)
    assert [each.reason for each in ended] == ["max_runtime", "max_runtime", None]
    assert done == list(range(7))


@pytest.mark.parametrize("seconds", [0, -1, float("inf")])
def test_a_limit_of_runtime_is_a_time(seconds: float) -> None:
    """A value that is not a time over 0 is refused."""
    with pytest.raises(UsageError, match="takes seconds over 0 or None"):
        limit_runtime(seconds)


def test_a_late_checkpoint_is_warned_of(clock: Clock) -> None:
    """Once for each new longest gap, with the place; and it is kept with the progress."""
    pauses = {3: 20.0, 5: 40.0, 7: 30.0}
    seen = list[Any]()

    class Slow(CountByIteration):
        def each_iteration(self, item: int, numbers: int) -> None:
            clock.now += pauses.get(item, 0.5)

    with subscribe(seen.append):
        progress = run(Slow, 9, clock=clock)
    late = [event for event in seen if isinstance(event, events.CheckpointLate)]
    assert [(event.description, event.grace_s) for event in late] == [("at 'each_iteration', cursor 5", 25)]
    assert 39 <= late[0].gap_s <= 40
    assert progress.longest_gap_s == late[0].gap_s
