"""What ends an execution, other than its last item: the job itself, limits, errors, deaths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from harness import (
    CancelJob,
    CompleteEarly,
    ContinuableJob,
    CrashLimit,
    Enumerator,
    InlineRun,
    IterationJob,
    MemoryStore,
    Portion,
    Progress,
    QuarantineFull,
    RetryLater,
    Step,
    UsageError,
    any_of,
    events,
    every,
    items,
    limit_runtime,
    run,
    subscribe,
)
from harness.stops import Count, Every, Flag
from tests.jobs import DONE, CountByIteration, CountInSteps


class Told(CountByIteration):
    """Does as the test says at some item, and tells which hooks ran."""

    at: ClassVar[dict[int, Callable[[], object]]] = {}

    def each_iteration(self, item: int, numbers: int) -> None:
        """Do the item, unless told otherwise."""
        self.at.get(item, int)()
        super().each_iteration(item, numbers)

    def on_start(self) -> None:
        """Tell."""
        DONE.append("start")

    def on_resume(self) -> None:
        """Tell."""
        DONE.append("resume")

    def on_shutdown(self) -> None:
        """Tell."""
        DONE.append("shutdown")

    def on_complete(self) -> None:
        """Tell."""
        DONE.append("complete")

    def on_cancel(self) -> None:
        """Tell."""
        DONE.append("cancel")

    def on_error(self, error: Exception) -> None:
        """Tell."""
        DONE.append(str(error))


def raises(error: BaseException, *, times: int = 1) -> Callable[[], None]:
    """Return a function that raises so often, and then no more."""
    left = [times]

    def function() -> None:
        if left[0]:
            left[0] -= 1
            raise error

    return function


def told(**at: Callable[[], object]) -> type[Told]:
    """Return the job that does this at item ``i…``."""

    class Job(Told):
        pass

    Job.at = {int(name[1:]): function for name, function in at.items()}
    return Job


# Ended by the job.


def test_a_job_may_complete_early(done: list[object]) -> None:
    """The rest is not done, on_complete runs, and the job counts as completed (I15)."""
    progress = run(told(i2=raises(CompleteEarly("enough"))), 5)
    assert done == ["start", 0, 1, "shutdown", "complete"]
    assert (progress.state, progress.done) == ("completed", 2)


def test_a_job_may_cancel_itself(done: list[object]) -> None:
    """on_cancel runs in place of on_complete, and it never runs again (I15, S4)."""
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


def test_the_jobs_own_except_does_not_swallow_how_it_ends() -> None:
    """What ends a job passes ``except Exception``."""

    class Careful(CountByIteration):
        def each_iteration(self, item: int, numbers: int) -> None:
            try:
                raise CancelJob
            except Exception as error:
                raise AssertionError("swallowed") from error

    assert run(Careful, 2).state == "cancelled"


@pytest.mark.parametrize("delay", [-1, float("inf"), float("nan")])
def test_a_delay_is_a_time(delay: float) -> None:
    """RetryLater refuses what is none."""
    with pytest.raises(UsageError, match="takes seconds of 0 or more"):
        RetryLater(delay)


# Portions.


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_a_job_may_be_tried_on_a_few_items(done: list[object], chunk: int) -> None:
    """The limit counts over all executions, and the total is that of the portion."""
    inline = InlineRun(CountByIteration, 20, portion=Portion(limit=7), stops=[Every(chunk)])
    inline.drain()
    progress = inline.progress
    assert progress is not None
    assert done == list(range(7))
    assert (progress.state, progress.done, progress.total) == ("completed", 7, 7)


def test_a_job_may_start_in_the_middle(done: list[object]) -> None:
    """After a given cursor, and from there on as ever, also if the first execution ends before its first item."""
    InlineRun(told(i5=raises(RetryLater(0))), 8, portion=Portion(after=4, limit=2)).drain()
    assert [item for item in done if type(item) is int] == [5, 6]


def test_a_portion_is_checked() -> None:
    """A limit is a count, steps have no portion, and the cursor is not passed as an argument (I4)."""
    with pytest.raises(UsageError, match=r"Portion\(limit=…\) takes an int"):
        Portion(limit=-1)
    with pytest.raises(UsageError, match="a portion is for iteration jobs"):
        InlineRun(CountInSteps, 3, portion=Portion(limit=1))
    with pytest.raises(UsageError, match="use Portion"):
        InlineRun(CountByIteration, 3, cursor=1)


# Limits.


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
    """What is none is refused."""
    with pytest.raises(UsageError, match="takes seconds over 0 or None"):
        limit_runtime(seconds)


def test_stop_sources_can_be_combined(done: list[object]) -> None:
    """By the job's author as well: any of several, and the job's own should_stop."""
    flag = Flag()

    class Job(CountByIteration):
        stop = any_of(Count(2), flag)

        def should_stop(self) -> bool | str | None:
            return self.stop(self.execution)

    assert [each.reason for each in InlineRun(Job, 4).drain()] == ["count:2", None]
    assert done == [0, 1, 2, 3]


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


# Deaths.


class Dead(BaseException):
    """Stands for a process that is no more: nothing is saved after it."""


class Dying(CountByIteration):
    """Dies at an item, again and again."""

    durability = every(items=1)
    max_crashes = 2
    at = 3

    def each_iteration(self, item: int, numbers: int) -> None:
        """Do the item or die."""
        if item == self.at:
            raise Dead
        super().each_iteration(item, numbers)


def die(inline: InlineRun, times: int = 1) -> None:
    """Have so many executions die."""
    for _ in range(times):
        with pytest.raises(Dead):
            inline.execute()


def stored(inline: InlineRun) -> Progress:
    """Return the stored progress."""
    progress = inline.progress
    assert progress is not None
    return progress


def test_deaths_are_noticed_and_counted(done: list[object]) -> None:
    """An execution that never ended tells the next one, which goes on at the saved cursor."""
    inline, seen = InlineRun(Dying, 5), list[Any]()
    die(inline)
    with subscribe(seen.append):
        die(inline)
    crashes = [event for event in seen if isinstance(event, events.CrashNoticed)]
    assert [(event.crashes_in_a_row, event.description) for event in crashes] == [
        (1, "at 'each_iteration', cursor 2")
    ]
    assert (stored(inline).crashes, done) == (1, [0, 1, 2])


def test_a_job_that_only_ever_dies_fails_in_the_end(done: list[object]) -> None:
    """After max_crashes in a row it is not tried again; its progress is kept, and somebody may enqueue it anew."""
    inline = InlineRun(Dying, 5)
    die(inline, 3)
    with pytest.raises(CrashLimit, match="died 3 times at 'each_iteration', cursor 2 without getting on"):
        inline.execute()
    progress = stored(inline)
    assert (progress.state, progress.cursor, progress.crashes) == ("failed", 2, 3)
    die(inline)
    assert done == [0, 1, 2]


def test_deaths_in_a_row_are_forgotten_when_the_job_gets_on(done: list[object]) -> None:
    """A job that does an item between two deaths is a job at work."""

    class Unlucky(Dying):
        def each_iteration(self, item: int, numbers: int) -> None:
            if DONE.count("died") < item:
                DONE.append("died")
                raise Dead
            DONE.append(item)

    inline = InlineRun(Unlucky, 8)
    die(inline, 7)
    assert inline.drain()[-1].outcome == "completed"
    assert [item for item in done if item != "died"] == list(range(8))
    assert (stored(inline).crashes, stored(inline).crashes_in_a_row) == (7, 0)


# Quarantine.


class Quarantining(Told):
    """Sets items aside after two failures."""

    quarantine = True
    max_item_failures = 2

    def on_quarantine(self, item: int, error: str) -> None:
        """Tell."""
        DONE.append(f"aside {item}")


def test_an_item_that_keeps_failing_is_set_aside(done: list[object]) -> None:
    """With its error, reported; the job goes on, and everything else is done once (M7)."""

    class Job(Quarantining):
        at: ClassVar[Any] = {
            2: raises(ValueError("poison"), times=99),
            4: raises(ValueError("hiccup"), times=2),
        }

    seen = list[Any]()
    with subscribe(seen.append):
        progress = run(Job, 6)
    assert [item for item in done if type(item) is int] == [0, 1, 3, 4, 5]
    assert [(each.cursor, each.failures, each.error) for each in progress.quarantined] == [
        (2, 3, "ValueError: poison")
    ]
    assert [event.cursor for event in seen if isinstance(event, events.ItemQuarantined)] == [2]
    assert done.count("aside 2") == 1
    assert (progress.state, progress.done, progress.errors) == ("completed", 5, 5)


def test_an_item_that_kills_its_worker_is_set_aside(done: list[object]) -> None:
    """Whatever durability says: after a death each item is saved, until it is known which one it was."""

    class Job(Dying):
        durability = every(seconds=1000)
        quarantine = True
        max_item_failures = 2
        max_crashes = 10

    inline = InlineRun(Job, 6)
    die(inline, 4)
    inline.drain()
    assert done == [0, 1, 2, 0, 1, 2, 4, 5]
    assert [(each.cursor, each.error) for each in stored(inline).quarantined] == [(3, "its worker died")]


def test_quarantine_is_not_for_everything(done: list[object]) -> None:
    """When very many fail it is not the items, and the job fails."""

    class Job(Quarantining):
        max_item_failures = 0
        max_quarantined = 3

        def each_iteration(self, item: int, numbers: int) -> None:
            raise ConnectionError("no database")

    inline = InlineRun(Job, 10)
    with pytest.raises(QuarantineFull, match=r"has set 3 items aside .* ConnectionError: no database"):
        inline.drain()
    assert len(stored(inline).quarantined) == 3


def test_by_default_nothing_is_set_aside(done: list[object]) -> None:
    """An item that keeps failing fails the job, with the cursor of the last success (I12)."""
    inline = InlineRun(told(i2=raises(ValueError("poison"), times=99)), 4)
    with pytest.raises(ValueError, match="poison"):
        inline.drain()
    assert (stored(inline).state, stored(inline).cursor) == ("failed", 1)


# Drift.


class Growing(IterationJob):
    """Goes through a list that has more items in every execution."""

    def build_enumerator(self, *, cursor: Any) -> Enumerator[int]:
        """Return so many more."""
        return items(range(3 + self.execution.progress.epoch), cursor=cursor)

    def each_iteration(self, item: int) -> None:
        """Do it."""


def test_a_collection_of_another_size_is_warned_of() -> None:
    """Where the size is known for free; the job goes on."""
    seen = list[Any]()
    with subscribe(seen.append):
        InlineRun(Growing, stops=[Count(2)]).drain()
    drifted = [event for event in seen if isinstance(event, events.CollectionDrifted)]
    assert [(event.before, event.now) for event in drifted] == [(4, 5)]


# Idempotency.


def test_an_idempotency_key_is_the_same_in_every_execution(done: list[object]) -> None:
    """Of one item of one job; another for every other item, job and type of value."""

    class Keys(IterationJob):
        def build_enumerator(self, *, cursor: Any) -> Iterator[tuple[Any, int]]:
            del cursor
            return iter([(1, 0), ("1", 1), ((1,), 2)])

        def each_iteration(self, item: Any) -> None:
            DONE.append(self.idempotency_key(item))

    for job_id in ("a", "a", "b"):
        InlineRun(Keys, job_id=job_id, store=MemoryStore()).drain()
    assert done[:3] == done[3:6]
    assert len(set(done)) == 6


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
