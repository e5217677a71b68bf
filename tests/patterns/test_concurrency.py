"""Several items at a time, as coroutines and as threads, with one cursor that never passes what was not done."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any, ClassVar

import pytest

from harness import (
    CancelJob,
    CompleteEarly,
    ContinuableJob,
    Enumerator,
    InlineRun,
    IterationJob,
    Portion,
    RetryLater,
    events,
    every,
    items,
    nested,
    on_stop,
    parallel_items,
    run,
    subscribe,
    throttle,
    times,
    with_transaction,
)
from harness.errors import CollectionChanged, CursorError, JobDefinitionError
from harness.progress import Progress
from harness.stops import Every, Flag
from harness.stores.memory import MemoryStore
from tests.jobs import Dead, raises

NUMBERS = (3, 10)


class Counted(IterationJob, abstract=True):
    """Does each of some numbers, several at a time, and notes how many were at work."""

    durability = on_stop()
    at: ClassVar[dict[int, Any]] = {}
    done: ClassVar[list[int]] = []
    lock: ClassVar[threading.Lock]
    busy = most = 0

    def build_enumerator(self, numbers: int, *, cursor: Any) -> Any:
        """Go through the numbers."""
        return items(range(numbers), cursor=cursor)

    def began(self) -> None:
        """Note that an item is at work."""
        with self.lock:
            self.busy += 1
            type(self).most = max(self.most, self.busy)

    def ended(self, number: int, *, done: bool) -> None:
        """Note that it ended."""
        with self.lock:
            self.busy -= 1
            if done:
                self.done.append(number)


class Threads(Counted):
    """Its items are plain functions."""

    def each_iteration(self, number: int, numbers: int) -> None:
        """Do the number, and what the test planned."""
        self.began()
        done = False
        try:
            self.at.get(number, int)()
            done = True
        finally:
            self.ended(number, done=done)


class Coroutines(Counted):
    """Its items are coroutine functions."""

    async def each_iteration(self, number: int, numbers: int) -> None:
        """Do the number, and what the test planned, some turns of the loop later."""
        self.began()
        done = False
        try:
            for _ in range(number % 3 + 1):
                await asyncio.sleep(0)
            result = self.at.get(number, int)()
            if hasattr(result, "__await__"):
                await result
            done = True
        finally:
            self.ended(number, done=done)


CASES = [(base, number) for base in (Threads, Coroutines) for number in NUMBERS]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}")
def job(request: pytest.FixtureRequest) -> type[Counted]:
    """Return a job for a number of items at a time."""
    return made(*request.param)


def made(base: type[Counted], number: int, **policy: Any) -> type[Counted]:
    """Return a job of its own for a test."""
    own = {"concurrency": number, "at": {}, "done": [], "lock": threading.Lock(), "__module__": __name__}
    return type(base.__name__, (base,), own | policy)


def crashes(inline: InlineRun) -> None:
    """Run an execution that crashes."""
    with pytest.raises(Dead):
        inline.execute()


def stored(inline: InlineRun) -> Progress:
    """Return the record of a run."""
    progress = inline.progress
    assert progress is not None
    return progress


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


def test_a_place_that_means_another_item_stops_the_job_before_any_work(done: list[Any]) -> None:
    """With places for cursors, what lies up to the last item done beyond the cursor must be the same."""
    letters = list("abcdefgh")
    job = made(Coroutines, 3)

    class Letters(job):  # type: ignore[misc,valid-type]  # a class made here
        def build_enumerator(self, *, cursor: Any) -> Any:
            return items(letters, cursor=cursor)

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
    letters[:] = "abcdefghi"
    inline.drain()
    assert sorted(done) == sorted([*"abcdefghi", "failed"])


def test_two_items_with_one_cursor_are_refused(job: type[Counted]) -> None:
    """The cursor would not say which of them is done."""

    class Same(job):  # type: ignore[misc,valid-type]  # a class made by the fixture
        def build_enumerator(self, numbers: int, *, cursor: Any) -> Any:
            return [(0, "page 1"), (1, "page 1")]

    with pytest.raises(CursorError, match="two items in a row have the cursor 'page 1'"):
        run(Same, 2)


# Mistakes.


@pytest.mark.parametrize("value", [0, -1, 2.0, "3", True, None])
def test_a_wrong_number_is_refused_when_the_class_is_defined(value: Any) -> None:
    """A whole number of 1 or more."""
    with pytest.raises(JobDefinitionError, match=r"concurrency: got .*whole number of 1 or more"):
        made(Threads, value)


def test_a_wrong_number_of_a_property_is_refused_when_it_is_read() -> None:
    """It may depend on a setting."""
    job = made(Threads, property(lambda self: 0))  # type: ignore[arg-type]  # a property
    with pytest.raises(JobDefinitionError, match="concurrency: got 0"):
        run(job, 3)


def test_steps_have_no_concurrency() -> None:
    """A step has one cursor, which its own code moves."""
    with pytest.raises(JobDefinitionError, match="concurrency is for iteration jobs"):
        type("Steps", (ContinuableJob,), {"concurrency": 3, "perform": lambda self: None})


@pytest.mark.parametrize(
    "build",
    [
        lambda cursor: nested([lambda cursor: times(3, cursor=cursor)], cursor=cursor),
        lambda cursor: throttle(
            nested([lambda cursor: times(3, cursor=cursor)], cursor=cursor), on=lambda: False, backoff=1
        ),
        lambda cursor: parallel_items(range(9), instances=2, cursor=cursor),
    ],
    ids=["nested", "throttled nested", "parallel"],
)
def test_sources_of_one_item_at_a_time_are_refused(job: type[Counted], build: Any) -> None:
    """Before any work, and the error says what to do."""

    class Serial(job):  # type: ignore[misc,valid-type]  # a class made by the fixture
        def build_enumerator(self, numbers: int, *, cursor: Any) -> Any:
            return build(cursor)

    with pytest.raises(JobDefinitionError, match="is read one item at a time; remove concurrency"):
        run(Serial, 3)
    assert job.done == []


def test_a_shared_transaction_is_refused(job: type[Counted]) -> None:
    """When the class is defined, and when a run overrides the durability."""
    with pytest.raises(JobDefinitionError, match=r"share self\.session; define new_session\(self\)"):
        type("Shared", (job,), {"durability": with_transaction()})
    with pytest.raises(JobDefinitionError, match=r"share self\.session; define new_session\(self\)"):
        run(job, 3, durability=with_transaction())
    own = {"durability": with_transaction(items=3), "new_session": lambda self: None}
    with pytest.raises(JobDefinitionError, match=r"each item has a transaction of its own"):
        type("Shared", (job,), own)


def test_an_item_of_pairs_of_ones_own_is_skipped_if_the_one_before_it_came_again(done: list[Any]) -> None:
    """A page may begin further ahead than before, so that a part of it is not done; a key says which item it is."""

    def job_over(pages: list[int], *, keyed: bool) -> type[IterationJob]:
        class Pages(IterationJob):
            concurrency = 3
            durability = on_stop()

            def build_enumerator(self, *, cursor: Any) -> Any:
                found = [(each, each) for each in pages if cursor is None or each > cursor]
                return Enumerator(found, keyed=keyed)

            async def each_iteration(self, page: int) -> None:
                if page == 1 and "failed" not in done:
                    done.append("failed")
                    raise ValueError("no")
                done.append(page)

        return Pages

    for change, keyed, again in (
        ([1, 2, 3, 4], False, []),
        ([0, 1, 2, 3, 4], False, []),
        ([1, 3, 4], False, [3]),
        ([2, 3, 4], False, [2]),
        ([1, 3, 4], True, []),
    ):
        done.clear()
        pages = [1, 2, 3, 4]
        inline = InlineRun(job_over(pages, keyed=keyed))
        inline.execute()
        assert done == ["failed", 2, 3]
        pages[:] = change
        inline.drain()
        assert sorted(done[3:]) == sorted([*again, *(set(change) - {2, 3})]), change
        assert inline.progress is not None
        assert inline.progress.done == len(set(change) | {2, 3})
