"""Several instances of a job share its items: each item once, and the end once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq import Queue

from harness import (
    CompleteEarly,
    Enumerator,
    InlineRun,
    IterationJob,
    Portion,
    RetryLater,
    events,
    items,
    nested,
    parallel,
    parallel_items,
    run,
    subscribe,
    times,
)
from harness.errors import CursorError, UsageError
from harness.queues.rq import cancel, enqueue, scale
from harness.stops import Every
from harness.stores.memory import MemoryStore
from tests.jobs import DONE, Dead, Shared
from tests.queues.test_rq import work

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def numbers(done: list[Any]) -> list[int]:
    """Return the items done, in order of their value."""
    return sorted(item for item in done if type(item) is int)


@pytest.mark.parametrize("count", [0, 1, 3, 16, 100])
@pytest.mark.parametrize("instances", [1, 4])
def test_every_item_is_done_once(done: list[object], count: int, instances: int) -> None:
    """Any number of items is done once; on_start runs once before them and on_complete once after (I31, I32)."""
    seen = list[Any]()
    with subscribe(seen.append):
        InlineRun(Shared, count, instances).drain()
    assert numbers(done) == list(range(count))
    assert (done[0], done[-1], len(done)) == ("start", "complete", count + 2)
    assert [type(event) for event in seen].count(events.ParallelStarted) == 1
    assert [type(event) for event in seen].count(events.AllDone) == 1


def test_any_enumerator_can_be_shared(done: list[object]) -> None:
    """A sharing function gets the number of its slice and the number of slices."""

    class Letters(IterationJob):
        def build_enumerator(self, *, cursor: Any) -> Enumerator[Any]:
            return parallel(
                lambda part, parts, cursor: items(LETTERS[part::parts].split(), cursor=cursor),
                instances=3,
                cursor=cursor,
                slices=26,
            )

        def each_iteration(self, item: str) -> None:
            DONE.append(item)

    InlineRun(Letters, stops=[Every(2)]).drain()
    assert Counter(done) == Counter(LETTERS)


@given(st.data())
def test_nothing_is_lost_or_done_twice_whatever_happens(data: st.DataObject) -> None:
    """Instances in any order, interrupted anywhere, and more or fewer of them at any time."""
    DONE.clear()
    count = data.draw(st.integers(0, 40), "items")
    inline = InlineRun(Shared, count, data.draw(st.integers(1, 5), "instances"), stops=[Every(1)])
    inline.execute()
    ended = set[int]()
    while waiting := sorted(set(inline.instances) - ended):
        if data.draw(st.integers(0, 5)) == 0:
            inline.scale(data.draw(st.integers(1, 6), "scale to"))
        number = data.draw(st.sampled_from(waiting), "instance")
        if inline.instances[number].execute().outcome == "completed":
            ended.add(number)
    assert numbers(DONE) == list(range(count))
    assert (DONE.count("start"), DONE.count("complete")) == (1, 1)
    assert DONE[-1] == "complete"


@pytest.mark.parametrize("moment", ["taking", "working", "finishing", "completing"])
def test_an_instance_that_died_goes_on_with_what_it_had(
    done: list[object], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A slice stays with its instance after a crash anywhere, and the end comes after all slices."""
    inline = InlineRun(Shared, 30, 3, stops=[Every(1)])
    inline.execute()
    victim, store = inline.instances[0], inline.store
    deaths = [moment]

    def dying(*_: object) -> None:
        if deaths:
            deaths.clear()
            raise Dead

    if moment == "completing":
        victim.execute()  # takes a slice, which is then the last
        for number in (1, 2):
            inline.instances[number].drain()
        inline.stops.clear()
    with monkeypatch.context() as patch:
        replace = store.replace
        if moment in {"taking", "finishing"}:
            nth = {"taking": 1, "finishing": 2}[moment]
            calls = [0]

            def replacing(key: str, before: str | None, after: str) -> bool:
                result = replace(key, before, after)
                calls[0] += 1
                if calls[0] == nth:
                    dying()
                return result

            patch.setattr(store, "replace", replacing)
        else:
            target = {"working": "each_iteration", "completing": "on_complete"}[moment]
            patch.setattr(Shared, target, dying)
        with pytest.raises(Dead):
            victim.drain()
    for instance in inline.instances.values():
        instance.drain()
    assert numbers(done) == list(range(30))
    assert done.count("complete") == 1


def test_the_one_that_starts_the_instances_may_die(done: list[object]) -> None:
    """A second run starts the missing instances, and starts none twice."""
    store = DyingStore()
    inline = InlineRun(Shared, 30, 3, store=store)
    with pytest.raises(Dead):
        inline.execute()
    assert inline.instances == {}
    inline.drain()
    assert sorted(inline.instances) == [0, 1, 2]
    assert (numbers(done), done.count("complete")) == (list(range(30)), 1)


class DyingStore(MemoryStore):
    """Crashes once, right after the instances' record was made."""

    died = False

    def replace(self, key: str, before: str | None, after: str) -> bool:
        """Replace, and crash."""
        result = super().replace(key, before, after)
        if not self.died:
            self.died = True
            raise Dead
        return result


def test_fewer_instances_end_with_their_slice(done: list[object]) -> None:
    """The rest is left to those that stay."""
    inline = InlineRun(Shared, 80, 4, stops=[Every(1)])
    inline.execute()
    for instance in inline.instances.values():
        instance.execute()
    inline.scale(1)
    inline.instances[3].drain()
    assert numbers(done)[-1] < 79, "it ended while there was work"
    for instance in inline.instances.values():
        instance.drain()
    assert numbers(done) == list(range(80))


def test_on_rq_the_instances_are_jobs_of_their_own(queue: Queue, done: list[object]) -> None:
    """The instances have the queue and settings of the job, resume like any job, and end the run once."""
    enqueue(queue, Shared, 50, 4, options={"job_id": "7", "timeout": 77})
    work(queue, stops=[Every(7)])
    assert numbers(done) == list(range(50))
    assert (done.count("start"), done.count("complete")) == (1, 1)
    assert sorted(queue.finished_job_registry.get_job_ids()) == ["7", "7-0", "7-1", "7-2", "7-3"]
    instance = queue.fetch_job("7-2")
    assert instance is not None
    assert instance.timeout == 77


def test_on_rq_their_number_can_be_changed(queue: Queue, redis: Redis, done: list[object]) -> None:
    """While they run, from outside."""
    enqueue(queue, Shared, 50, 2, options={"job_id": "7"})
    with pytest.raises(UsageError, match="is not a parallel run"):
        scale(redis, "7", 3)
    work(queue, max_jobs=1)
    scale(redis, "7", 5)
    assert queue.get_job_ids() == [f"7-{number}" for number in range(5)]
    scale(redis, "7", 1)
    work(queue)
    assert (numbers(done), done.count("complete")) == (list(range(50)), 1)
    with pytest.raises(UsageError, match="is not in RQ"):
        scale(redis, "8", 3)


def test_on_rq_all_of_them_can_be_cancelled(queue: Queue, redis: Redis, done: list[object]) -> None:
    """The id of the enqueued job cancels all of them, and on_complete then never runs."""
    enqueue(queue, Shared, 50, 3, options={"job_id": "7"})
    work(queue, max_jobs=1)
    cancel(redis, "7")
    work(queue)
    assert done == ["start"]
    assert len(queue.canceled_job_registry) == 3


def test_what_cannot_be_shared_is_refused() -> None:
    """Numbers that make no sense, foreign cursors, portions, and a parallel run within another enumerator (I32)."""
    for instances in (0, -1, True, "4"):
        with pytest.raises(UsageError, match="takes instances of 1 or more"):
            parallel(lambda *_: [], instances=instances, cursor=None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="takes slices of 4 or more"):
        parallel(lambda *_: [], instances=4, cursor=None, slices=3)
    with pytest.raises(CursorError, match="resumes from None or from its own cursor"):
        parallel_items([1], instances=1, cursor=3)
    with pytest.raises(TypeError, match="takes a sequence"):
        parallel_items({1, 2}, instances=1, cursor=None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a portion of a parallel run"):
        run(Shared, 5, 2, portion=Portion(limit=1))
    inner = nested(
        [
            lambda cursor: times(2, cursor=cursor),
            lambda _, cursor: parallel_items([1], instances=1, cursor=cursor),
        ],
        cursor=None,
    )
    with pytest.raises(UsageError, match="is the outermost enumerator"):
        list(inner)


@pytest.mark.parametrize("instances", [1, 3])
def test_an_instance_may_complete_early(done: list[object], instances: int) -> None:
    """An instance that completes early leaves its rest to the others, and the run ends once."""

    class Enough(Shared):
        def each_iteration(self, item: int, count: int, instances: int) -> None:
            if item == 2:
                raise CompleteEarly
            super().each_iteration(item, count, instances)

    inline = InlineRun(Enough, 48, instances, stops=[Every(1)])
    with subscribe((seen := list[Any]()).append, events.AllDone):
        inline.drain()
    expected = [0, 1, *range(4, 48)] if instances > 1 else [0, 1]
    assert (numbers(done), done.count("complete"), done[-1]) == (expected, 1, "complete")
    assert len(seen) == 1


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_an_instance_knows_the_total_of_its_slices(done: list[object], chunk: int) -> None:
    """The total counts the slices taken so far; interrupted or not, all items are done in the end."""
    seen = list[tuple[int, int | None]]()

    class Shares(Shared):
        def each_iteration(self, item: int, count: int, instances: int) -> None:
            seen.append((self.execution.done, self.execution.total))
            super().each_iteration(item, count, instances)

    inline = InlineRun(Shares, 50, 3, stops=[Every(chunk)])
    inline.drain()
    ended = [instance.progress for instance in inline.instances.values()]
    assert [progress and progress.total for progress in ended] == [
        (progress and progress.done) or None for progress in ended
    ]
    assert all(total is not None and done < total for done, total in seen)


def test_an_instance_may_go_on_later(done: list[object]) -> None:
    """An exception that ends an execution of any job ends one of an instance."""

    class Later(Shared):
        def each_iteration(self, item: int, count: int, instances: int) -> None:
            if item == 7 and "later" not in DONE:
                DONE.append("later")
                raise RetryLater(5)
            super().each_iteration(item, count, instances)

    ended = InlineRun(Later, 10, 2).drain()
    assert [each.delay for each in ended if each.outcome == "interrupted"] == [5]
    assert numbers(done) == list(range(10))
