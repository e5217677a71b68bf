"""Mistakes with several items at a time are refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from harness import (
    ContinuableJob,
    Enumerator,
    InlineRun,
    IterationJob,
    nested,
    on_stop,
    parallel_items,
    run,
    throttle,
    times,
    with_transaction,
)
from harness.errors import JobDefinitionError
from tests import several_items
from tests.several_items import Counted, Threads, made

job = several_items.job


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
