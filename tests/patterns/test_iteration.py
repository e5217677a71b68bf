"""Pattern 2: one thing done to many items."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from typing import Any

import pytest

from harness import (
    Enumerator,
    InlineRun,
    IterationJob,
    Portion,
    RetryLater,
    events,
    items,
    nested,
    parallel,
    run,
    subscribe,
    times,
)
from harness.errors import CursorError, JobDefinitionError, UsageError
from harness.stops import Count, Every
from harness.stores.memory import MemoryStore
from tests.jobs import DONE, BadCursor, CountByIteration, CountInSteps, Dates, FailAt, Told, raises, told

pytestmark = pytest.mark.usefixtures("form")


def test_a_job_does_every_item(done: list[object]) -> None:
    """Without an interruption the job is a loop over its items."""
    progress = run(CountByIteration, 3)
    assert done == [0, 1, 2]
    assert (progress.state, progress.done, progress.total) == ("completed", 3, 3)


@pytest.mark.parametrize("chunk", [1, 2, 7, 10])
def test_interrupted_anywhere_it_does_everything_once(done: list[object], chunk: int) -> None:
    """A job resumes strictly after the cursor (I6), in as many executions as arithmetic says."""
    ended = InlineRun(CountByIteration, 10, stops=[Every(chunk)]).drain()
    assert done == list(range(10))
    assert len(ended) == 10 // chunk + 1


def test_an_error_is_resumed_at_the_item_that_failed(done: list[object]) -> None:
    """The cursor stays at the last success (I12)."""
    ended = InlineRun(FailAt, 5, 3).drain()
    assert done == [0, 1, 2, "failed", 3, 4]
    assert [each.reason for each in ended] == ["RuntimeError: cannot do 3", None]


def test_arguments_and_cursors_keep_their_types(done: list[object]) -> None:
    """Dates are dates in every execution (C5)."""
    InlineRun(Dates, date(2024, 2, 27), stops=[Every(2)]).drain()
    assert done == [
        date(2024, 2, 27),
        date(2024, 2, 28),
        date(2024, 2, 29),
        date(2024, 3, 1),
        date(2024, 3, 2),
    ]


def test_a_cursor_that_json_cannot_hold_is_refused_before_the_item_is_done(done: list[object]) -> None:
    """An item whose cursor could not be stored is not begun (I39)."""
    with pytest.raises(CursorError, match=r"cursor: builtins\.set would not come back equal"):
        run(BadCursor)
    assert done == []


@pytest.mark.parametrize(
    ("found", "event"), [(None, events.NothingToIterate), ([], events.NothingFound)], ids=["None", "empty"]
)
def test_nothing_to_iterate_completes(done: list[object], found: Any, event: type[events.Event]) -> None:
    """None and an enumerator that yields nothing have an event of their own, and all hooks run (I5)."""

    class Nothing(Told):
        def build_enumerator(self, numbers: int, *, cursor: Any) -> Any:
            return found

    seen: list[object] = []
    with subscribe(seen.append, events.NothingToIterate, events.NothingFound):
        assert run(Nothing, 3).state == "completed"
    assert [type(each) for each in seen] == [event]
    assert done == ["start", "shutdown", "complete"]


def test_nothing_is_left_when_a_job_resumes(done: list[object]) -> None:
    """on_complete runs for items of earlier executions, even if build_enumerator returns None."""

    class Left(Told):
        def build_enumerator(self, numbers: int, *, cursor: Any) -> Any:
            return None if cursor == numbers - 1 else super().build_enumerator(numbers, cursor=cursor)

    InlineRun(Left, 2, stops=[Count(2)]).drain()
    assert done == ["start", 0, 1, "shutdown", "resume", "shutdown", "complete"]
    seen = list[Any]()
    with subscribe(seen.append, events.NothingFound):
        InlineRun(CountByIteration, 2, stops=[Count(2)]).drain()
    assert [event.done for event in seen] == [2]


@pytest.mark.parametrize("found", ["ab", b"ab", {"a": 1, "b": 2}, {1, 2}, (1, 2, 3), (1,), 5, None])
def test_what_is_no_pair_is_refused_before_it_is_done(done: list[object], found: Any) -> None:
    """A text of two letters too; what was yielded is in the message."""

    class Odd(CountByIteration):
        def build_enumerator(self, numbers: int, *, cursor: Any) -> Any:
            return [(0, 0), found]

    inline = InlineRun(Odd, 3)
    with pytest.raises(JobDefinitionError, match=r"yielded .*, which is not a pair; yield \(item, cursor\)"):
        inline.execute()
    assert done == [0]
    progress = inline.progress
    assert progress is not None
    assert (progress.state, progress.cursor) == ("failed", 0)


def test_what_is_no_pair_is_refused_within_others() -> None:
    """Anything but a pair is refused in the outer level of nested() and in a slice of a parallel run."""
    bad: list[Any] = ["ab"]

    class Outer(CountByIteration):
        def build_enumerator(self, numbers: int, *, cursor: Any) -> Any:
            return nested([lambda cursor: bad, lambda outer, cursor: times(2, cursor=cursor)], cursor=cursor)

    class Slices(CountByIteration):
        def build_enumerator(self, numbers: int, *, cursor: Any) -> Any:
            return parallel(lambda part, parts, cursor: bad, instances=1, cursor=cursor)

    for job in (Outer, Slices):
        with pytest.raises(JobDefinitionError, match="yielded 'ab', which is not a pair"):
            run(job, 3)


def test_a_pair_may_be_a_list(done: list[object]) -> None:
    """A pair may be any sequence of two values."""

    class Lists(CountByIteration):
        def build_enumerator(self, numbers: int, *, cursor: Any) -> Any:
            return [[1, "a"], iter((2, "b"))]

    assert run(Lists, 3).cursor is None
    assert done == [1, 2]


@pytest.mark.parametrize("found", [{1, 2}, frozenset(), {"a": 1}, "ab"], ids=repr)
def test_what_has_no_order_is_no_enumerator(found: Any) -> None:
    """Its order may be another in the next execution."""

    class Odd(CountByIteration):
        def build_enumerator(self, numbers: int, *, cursor: Any) -> Any:
            return found

    with pytest.raises(JobDefinitionError, match="in an order that does not change"):
        run(Odd, 3)


def test_the_item_that_failed_is_told_with_its_cursor() -> None:
    """The event has the item and its cursor, whatever becomes of the error (I16)."""
    seen = list[Any]()
    with subscribe(seen.append, events.ItemFailed):
        InlineRun(FailAt, 5, 3).drain()
    assert [(event.cursor, str(event.error)) for event in seen] == [(3, "cannot do 3")]


@pytest.mark.parametrize("suppressed", [ValueError("no"), RetryLater(5)], ids=repr)
def test_what_around_iterate_suppresses_goes_on(done: list[object], suppressed: BaseException) -> None:
    """The items after it are not done, so the job is not complete."""

    class Careless(Told):
        def around_iterate(self) -> Any:
            return suppress(BaseException)

    Careless.at = {2: raises(suppressed)}
    assert [each.outcome for each in InlineRun(Careless, 4).drain()] == ["interrupted", "completed"]
    assert [each for each in done if type(each) is int] == [0, 1, 2, 3]


def test_what_is_no_iterable_is_refused_by_type() -> None:
    """The error names the type found."""

    class Odd(CountByIteration):
        def build_enumerator(self, numbers: int, *, cursor: Any) -> Any:
            del cursor
            return numbers

    with pytest.raises(
        JobDefinitionError, match=r"Odd\.build_enumerator returned int; return an iterable of"
    ):
        run(Odd, 3)


def each(self: Any, item: Any) -> None:
    """Stand in for each_iteration."""


def build(self: Any, *, cursor: Any) -> Any:
    """Stand in for build_enumerator."""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"build_enumerator": build}, "must define each_iteration"),
        ({"each_iteration": each}, "must define build_enumerator"),
        ({"each_iteration": each, "build_enumerator": build, "perform": each}, "cannot define perform"),
        (
            {"each_iteration": each, "build_enumerator": lambda self, cursor: None},
            "must take cursor as a keyword",
        ),
        (
            {"each_iteration": lambda self, item, cursor: None, "build_enumerator": build},
            "'cursor' is reserved",
        ),
    ],
)
def test_mistakes_in_a_class_fail_when_it_is_defined(body: dict[str, Any], message: str) -> None:
    """A mistake fails when the class is defined, not at the first interruption in production (I1 to I4)."""
    with pytest.raises(JobDefinitionError, match=message):
        type("Mistaken", (IterationJob,), body)


class Hooked(Told):
    """Records the context around its hooks as well."""

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Wrap an execution."""
        DONE.append("enter")
        try:
            yield
        finally:
            DONE.append("exit")


def test_hooks_run_in_order(done: list[object]) -> None:
    """on_start once, on_resume later, on_shutdown each time, on_complete at the end (I13, I14)."""
    InlineRun(Hooked, 2, stops=[Every(1)]).drain()
    assert done == [
        "start", "enter", 0, "exit", "shutdown",
        "resume", "enter", 1, "exit", "shutdown",
        "resume", "enter", "exit", "shutdown", "complete",
    ]  # fmt: skip


def test_a_completed_job_does_nothing_when_it_runs_again(done: list[object]) -> None:
    """A crash between the last save and the queue's own end costs nothing."""
    inline = InlineRun(Hooked, 2)
    inline.drain()
    done.clear()
    assert inline.execute().outcome == "completed"
    assert done == []


def test_should_stop_is_asked_at_every_checkpoint(done: list[object]) -> None:
    """A job's own condition stops it, with its reason (I8)."""

    class Own(CountByIteration):
        def should_stop(self) -> str | None:
            return "enough" if self.execution.items == 2 else None

    assert InlineRun(Own, 5).execute().reason == "enough"
    assert done == [0, 1]


def test_items_are_events_while_somebody_listens() -> None:
    """Each item done is an event with its new cursor (I16), for subscribers that ask for that event."""
    seen, others = list[events.Event](), list[events.Event]()
    with subscribe(seen.append, events.ItemDone), subscribe(others.append):
        run(CountByIteration, 2)
    assert [event.cursor if isinstance(event, events.ItemDone) else event for event in seen] == [0, 1]
    assert others
    assert not any(isinstance(event, events.ItemDone) for event in others)


def test_subscribers_may_choose() -> None:
    """A subscriber that names kinds of events gets no others, and none after the end of the subscription."""
    seen = list[events.Event]()
    with subscribe(seen.append, events.JobStarted, events.JobCompleted):
        run(CountByIteration, 2)
    run(CountByIteration, 2)
    assert [type(event) for event in seen] == [events.JobStarted, events.JobCompleted]


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


# Drift.


class Growing(IterationJob):
    """Goes through a list that has more items in every execution."""

    def build_enumerator(self, *, cursor: Any) -> Enumerator[int]:
        """Return more items in each execution."""
        return items(range(3 + self.execution.progress.epoch), cursor=cursor)

    def each_iteration(self, item: int) -> None:
        """Do it."""


def test_a_collection_of_another_size_is_warned_of() -> None:
    """A collection of a known size that changed gives an event, and the job continues."""
    seen = list[Any]()
    with subscribe(seen.append):
        InlineRun(Growing, stops=[Count(2)]).drain()
    drifted = [event for event in seen if isinstance(event, events.CollectionDrifted)]
    assert [(event.before, event.now) for event in drifted] == [(4, 5)]


# Idempotency.


def test_an_idempotency_key_is_the_same_in_every_execution(done: list[object]) -> None:
    """The key is the same for one item of one job, and differs for every other item, job and type of value."""

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
