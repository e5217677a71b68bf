"""Several items at a time: stops, executions that were replaced, and collections that change."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

import pytest

from harness import (
    Enumerator,
    InlineRun,
    events,
    every,
    items,
    run,
    subscribe,
)
from harness.errors import CollectionChanged, CursorError
from harness.stops import Every, Flag
from harness.stores.memory import MemoryStore
from tests import several_items
from tests.jobs import raises
from tests.several_items import Coroutines, Counted, Threads, made, stored

job = several_items.job


# Stops.


def test_what_is_in_progress_at_a_stop_is_finished(job: type[Counted]) -> None:
    """Within the grace period; the cursor is then that of the last item, with nothing beyond it."""
    flag = Flag()
    job.at[3] = lambda: flag.set("deploy")
    inline = InlineRun(job, 90, stops=[flag])
    told: list[Any] = []
    with subscribe(told.append, events.JobInterrupted):
        assert inline.execute().reason == "deploy"
    progress = stored(inline)
    assert progress.beyond == []
    assert sorted(job.done) == list(range(progress.done))
    assert [each.description for each in told] == [f"at 'each_iteration', cursor {progress.cursor}"]


def test_what_does_not_end_in_time_is_cancelled_and_comes_again() -> None:
    """Coroutines are cancelled after 80 % of the grace period; what was finished is not repeated."""
    flag = Flag()
    job = made(Coroutines, 3, grace_period=0.05)
    cancelled: list[int] = []

    async def hangs() -> None:
        flag.set("deploy")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    job.at[1] = hangs
    inline = InlineRun(job, 9, stops=[flag])
    assert inline.execute().reason == "deploy"
    assert cancelled == [1]
    assert 1 not in job.done
    job.at.clear()
    inline.stops.clear()
    inline.drain()
    assert sorted(job.done) == list(range(9))


def test_an_item_that_catches_its_cancellation_is_not_done() -> None:
    """A coroutine that is cancelled and returns as if nothing happened has left work undone: its item comes again."""
    flag = Flag()
    job = made(Coroutines, 3, grace_period=0.05)
    whole: list[str] = []

    async def catches() -> None:
        flag.set("deploy")
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
            raise AssertionError("nothing sets the event")

    async def does_it() -> None:
        whole.append("done")

    job.at[1] = catches
    inline = InlineRun(job, 9, stops=[flag])
    assert inline.execute().reason == "deploy"
    job.at[1] = does_it
    inline.stops.clear()
    inline.drain()
    assert whole == ["done"]


def test_threads_are_waited_for_after_the_grace_period() -> None:
    """Nothing can cancel them; what they do counts."""
    flag, go_on = Flag(), threading.Event()
    job = made(Threads, 3, grace_period=0)

    def slow() -> None:
        flag.set("deploy")
        assert go_on.wait(10)

    job.at[1] = slow
    inline = InlineRun(job, 60, stops=[flag])
    timer = threading.Timer(0.1, go_on.set)
    timer.start()
    assert inline.execute().reason == "deploy"
    timer.join()
    assert 1 in job.done
    assert stored(inline).done == len(job.done)


def test_a_job_that_waits_hears_of_a_stop() -> None:
    """``stopping()`` returns in each item that asks."""
    flag = Flag()
    job = made(Coroutines, 3)
    heard: list[str] = []

    class Asks(job):  # type: ignore[misc,valid-type]  # a class made here
        async def each_iteration(self, number: int, numbers: int) -> None:
            if number == 2:
                asyncio.get_running_loop().call_soon(flag.set, "deploy")
            heard.append(await self.stopping())

    assert InlineRun(Asks, 9, stops=[flag]).execute().reason == "deploy"
    assert heard == ["deploy"] * 3


def test_items_that_run_for_long_do_not_hold_up_max_runtime(job: type[Counted]) -> None:
    """The stop sources are asked while no item ends, so that no more is begun."""
    job.max_runtime = 0.02
    ended = InlineRun(job, 100_000).execute()
    assert ended.reason == "max_runtime"


def test_a_superseded_execution_gives_way() -> None:
    """Its coroutines are cancelled at once: the job belongs to another execution."""
    store = MemoryStore()
    job = made(Coroutines, 3, durability=every(items=1))
    job.at[0] = lambda: asyncio.Event().wait()
    job.at[1] = lambda: store.claim("7")
    inline = InlineRun(job, 9, job_id="7", store=store)
    assert inline.execute().outcome == "superseded"


def test_an_exit_ends_the_others(job: type[Counted]) -> None:
    """``SystemExit`` in an item starts no more, cancels coroutines, and leaves no thread and no task."""
    job.at[2] = raises(SystemExit(3))
    inline = InlineRun(job, 500)
    with pytest.raises(SystemExit):
        inline.execute()
    inline.drain()
    assert sorted(job.done) == list(range(500))


async def raises_cancelled() -> None:
    """End as a task does that was cancelled."""
    raise asyncio.CancelledError


async def cancels_its_task() -> None:
    """Cancel the task of the item, as a timeout of its own may do."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


@pytest.mark.parametrize("cancels", [raises_cancelled, cancels_its_task])
def test_a_task_of_an_item_that_cancels_itself_is_an_error(cancels: Any) -> None:
    """The job does not end in silence without that item."""
    job = made(Coroutines, 3)
    job.at[0] = cancels
    with pytest.raises(RuntimeError, match=r"item at cursor 0 was cancelled by its own code"):
        InlineRun(job, 1).execute()


# Changes.


@pytest.mark.parametrize("guard", [False, True])
def test_a_place_that_means_another_item_stops_the_job_before_any_work(done: list[Any], guard: bool) -> None:
    """With places for cursors, what lies up to the last item done beyond the cursor must be the same.

    With a guard all items must be the same.
    """
    letters = list("abcdefgh")
    job = made(Coroutines, 3)

    class Letters(job):  # type: ignore[misc,valid-type]  # a class made here
        def build_enumerator(self, *, cursor: Any) -> Any:
            return items(letters, cursor=cursor, guard=guard)

        async def each_iteration(self, letter: str) -> None:
            if letter == "a" and "failed" not in done:
                done.append("failed")
                raise ValueError("no")
            done.append(letter)

    inline = InlineRun(Letters)
    inline.execute()
    assert sorted(done) == ["b", "c", "failed"]
    for change in ("acdefgh", "xabcdefgh", "abxcdefgh", "a", ""):
        letters[:] = change
        with pytest.raises(CollectionChanged):
            inline.drain()
    letters[:] = "abcdefgh" if guard else "abcdefghi"
    inline.drain()
    assert sorted(done) == sorted([*letters, "failed"])


def test_the_cursor_is_not_that_of_an_item_that_has_left(done: list[Any]) -> None:
    """Items beyond the cursor may leave the collection; those that come after them are not done twice."""
    rows = [0, 10, 20, 30]
    job = made(Coroutines, 3)

    class Leaves(job):  # type: ignore[misc,valid-type]  # a class made here
        def build_enumerator(self, *, cursor: Any) -> Any:
            left = [row for row in rows if cursor is None or row > cursor]
            return Enumerator([(row, row) for row in left], keyed=True)

        async def each_iteration(self, row: int) -> None:
            if row == 0 and 10 not in done:
                while 20 not in done:
                    await asyncio.sleep(0)
                raise ValueError("no")
            done.append(row)

    inline = InlineRun(Leaves, stops=[Every(2)])
    inline.execute()
    assert sorted(done) == [10, 20]
    rows[:] = [0, 30, 40]
    inline.execute()
    assert stored(inline).cursor in {30, 40}
    inline.drain()
    assert sorted(done) == [0, 10, 20, 30, 40]


def test_two_items_with_one_cursor_are_refused(job: type[Counted]) -> None:
    """The cursor would not say which of them is done."""

    class Same(job):  # type: ignore[misc,valid-type]  # a class made by the fixture
        def build_enumerator(self, numbers: int, *, cursor: Any) -> Any:
            return [(0, "page 1"), (1, "page 1")]

    with pytest.raises(CursorError, match="two items in a row have the cursor 'page 1'"):
        run(Same, 2)
