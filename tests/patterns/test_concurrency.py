"""Several items at a time, with one cursor that never passes what was not done; and their errors."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from harness import (
    CancelJob,
    CompleteEarly,
    InlineRun,
    Portion,
    RetryLater,
    events,
    every,
    items,
    run,
    subscribe,
    throttle,
)
from harness.stops import Every
from tests import several_items
from tests.jobs import Dead, raises
from tests.several_items import NUMBERS, Coroutines, Counted, Threads, crashes, made, stored

job = several_items.job


# Every item once.


def test_every_item_is_done_once_and_several_at_a_time(job: type[Counted]) -> None:
    """Never more than the number at a time; the count and the cursor are those of all."""
    progress = run(job, 50)
    assert sorted(job.done) == list(range(50))
    assert (progress.state, progress.done, progress.total, progress.beyond) == ("completed", 50, 50, [])
    assert 1 <= job.most <= job.concurrency


@pytest.mark.parametrize("number", NUMBERS)
def test_threads_work_at_the_same_time(number: int) -> None:
    """As many as the class says: each waits for all the others of its group."""
    job = made(Threads, number)
    barrier = threading.Barrier(number)
    job.at.update(dict.fromkeys(range(2 * number), lambda: barrier.wait(10)))
    run(job, 2 * number)
    assert job.most == number


@pytest.mark.parametrize("chunk", [1, 2, 7, 20])
def test_interrupted_anywhere_it_does_everything_once(job: type[Counted], chunk: int) -> None:
    """A stop begins no more items and repeats none of those that were in progress."""
    InlineRun(job, 30, stops=[Every(chunk)]).drain()
    assert sorted(job.done) == list(range(30))


def test_a_portion_is_not_exceeded(job: type[Counted]) -> None:
    """Items in progress count for the limit."""
    inline = InlineRun(job, 40, portion=Portion(after=4, limit=17), stops=[Every(5)])
    inline.drain()
    assert sorted(job.done) == list(range(5, 22))
    assert stored(inline).done == 17


def test_each_item_is_an_event(job: type[Counted]) -> None:
    """With its own cursor, in the order in which the items ended."""
    seen: list[Any] = []
    with subscribe(seen.append, events.ItemDone):
        run(job, 12)
    assert sorted(each.cursor for each in seen) == list(range(12))
    assert [each.items for each in seen] == list(range(1, 13))


# The cursor.


def test_the_cursor_waits_for_the_slowest(job: type[Counted]) -> None:
    """What is done beyond it is in the record, is limited, and is not repeated after a crash; the rest is."""
    job.durability = every(items=1)
    limit = 8 * job.concurrency
    last = limit - 1
    passed = threading.Event()

    def first() -> Any:
        if issubclass(job, Threads):
            assert passed.wait(10)
            raise Dead
        return waits()

    async def waits() -> None:
        while not passed.is_set():
            await asyncio.sleep(0)
        raise Dead

    job.at.update({0: first, last: passed.set})
    inline = InlineRun(job, 3 * limit)
    crashes(inline)
    progress = stored(inline)
    assert progress.cursor is None
    assert [each.cursor for each in progress.beyond][-1] <= last
    assert len(job.done) <= limit
    before = set(job.done)
    saved = {each.cursor for each in progress.beyond if each.done}
    assert len(before - saved) <= 1
    job.at.clear()
    inline.drain()
    assert sorted(job.done) == sorted([*range(3 * limit), *(before - saved)])
    assert stored(inline).done == 3 * limit


def test_a_record_has_version_2_only_while_something_lies_beyond_the_cursor() -> None:
    """Older releases refuse it by number, for they would repeat items; without such items they read it."""
    job = made(Coroutines, 3)
    job.at[0] = raises(ValueError("no"))
    inline = InlineRun(job, 9)
    inline.execute()
    progress = stored(inline)
    assert [(each.cursor, each.done) for each in progress.beyond] == [(0, False), (1, True), (2, True)]
    assert json.loads(progress.to_json())["version"] == 2
    inline.drain()
    assert json.loads(stored(inline).to_json())["version"] == 1
    assert job.done[:2] == [1, 2]
    assert sorted(job.done) == list(range(9))


def test_one_at_a_time_goes_on_with_what_several_left() -> None:
    """A release without concurrency skips what lies beyond the cursor."""
    job = made(Coroutines, 3)
    job.at[0] = raises(ValueError("no"))
    inline = InlineRun(job, 9)
    inline.execute()
    job.concurrency = 1
    inline.drain()
    assert job.done == [1, 2, 0, *range(3, 9)]


def test_long_cursors_take_no_more_of_the_record_than_there_is_room_for() -> None:
    """The number of items beyond the cursor is also limited by the bytes that their cursors take."""

    class Long(made(Coroutines, 50)):  # type: ignore[misc]  # a class made here
        def build_enumerator(self, numbers: int, *, cursor: Any) -> Any:
            pairs = [(n, f"{n:0>2000}") for n in range(numbers)]
            return [pair for pair in pairs if cursor is None or pair[1] > cursor]

    Long.at[0] = raises(ValueError("no"))
    inline = InlineRun(Long, 200)
    inline.execute()
    assert 0 < len(stored(inline).beyond) <= 12
    inline.drain()
    assert sorted(Long.done) == list(range(200))


# Errors.


def test_an_error_lets_the_others_finish_and_is_resumed(job: type[Counted]) -> None:
    """The failed item alone comes again."""
    job.at[4] = raises(RuntimeError("not now"))
    ended = InlineRun(job, 20).drain()
    assert [each.reason for each in ended] == ["RuntimeError: not now", None]
    assert sorted(job.done) == list(range(20))


def test_of_several_errors_the_one_of_the_first_item_counts() -> None:
    """All are told as events."""
    job = made(Coroutines, 3)
    job.at.update({0: raises(ValueError("first")), 1: raises(ValueError("second"))})
    seen: list[Any] = []
    with subscribe(seen.append, events.ItemFailed):
        ended = InlineRun(job, 9).drain()
    assert ended[0].reason == "ValueError: first"
    assert sorted(each.cursor for each in seen) == [0, 1]
    assert sorted(job.done) == list(range(9))


def test_an_error_without_any_item_done_is_left_to_the_queue(job: type[Counted]) -> None:
    """As with one at a time."""
    job.at.update({number: raises(ValueError(f"no {number}"), times=9) for number in range(20)})
    inline = InlineRun(job, 20)
    with pytest.raises(ValueError, match="no 0"):
        inline.execute()
    assert job.done == []


def test_control_exceptions_do_what_they_say(job: type[Counted]) -> None:
    """RetryLater comes again later, CompleteEarly leaves out the rest, CancelJob ends the job; others finish first."""
    job.at[5] = raises(RetryLater(7))
    ended = InlineRun(job, 20).execute()
    assert (ended.outcome, ended.delay) == ("interrupted", 7)
    assert 5 not in job.done
    for error, outcome in ((CompleteEarly(), "completed"), (CancelJob(), "cancelled")):
        job.done.clear()
        job.at[5] = raises(error)
        inline = InlineRun(job, 200)
        assert inline.drain()[-1].outcome == outcome
        assert 5 not in job.done
        assert len(job.done) < 200
        assert stored(inline).state == outcome


def test_a_source_that_fails_or_waits_lets_items_finish(job: type[Counted]) -> None:
    """What it raises comes after them: a throttle repeats nothing."""
    waits = [False, False, True, False, False, False, True, False]

    class Throttled(job):  # type: ignore[misc,valid-type]  # a class made by the fixture
        def build_enumerator(self, numbers: int, *, cursor: Any) -> Any:
            found = items(range(numbers), cursor=cursor)
            return throttle(found, on=lambda: bool(waits) and waits.pop(0), backoff=3)

    ended = InlineRun(Throttled, 20).drain()
    assert [each.reason for each in ended] == ["throttled", "throttled", None]
    assert sorted(job.done) == list(range(20))


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("base", [Threads, Coroutines])
def test_the_item_that_always_fails_is_set_aside(base: type[Counted], number: int) -> None:
    """After as many failures as with one at a time, and no other item with it."""
    job = made(base, number, quarantine=True, max_item_failures=2)
    job.at[5] = raises(ValueError("poison"), times=99)
    progress = run(job, 30)
    assert [(each.cursor, each.failures) for each in progress.quarantined] == [(5, 3)]
    assert (progress.state, progress.done) == ("completed", 29)
    assert sorted(job.done) == [number for number in range(30) if number != 5]


@pytest.mark.parametrize("limit", [0, 2])
def test_after_a_crash_items_are_done_one_at_a_time(limit: int) -> None:
    """So that the item which kills its worker is set aside, and none that was at work at the same time."""
    job = made(Coroutines, 3, quarantine=True, max_item_failures=limit, durability=every(items=1))
    job.at[2] = raises(Dead(), times=99)
    inline = InlineRun(job, 12)
    for _ in range(12):
        try:
            if inline.execute().outcome == "completed":
                break
        except Dead:
            pass
    progress = stored(inline)
    assert [each.cursor for each in progress.quarantined] == [2]
    assert progress.state == "completed"
    assert set(job.done) == set(range(12)) - {2}
