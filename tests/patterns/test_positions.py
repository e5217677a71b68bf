"""A position is applied to what it was taken from, whatever the data and the code are when the job resumes."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from harness import (
    Enumerator,
    InlineRun,
    IterationJob,
    csv_rows,
    items,
    nested,
    parallel,
    parallel_items,
    throttle,
    times,
)
from harness.cursor import encode
from harness.errors import CollectionChanged, CursorError, JobDefinitionError
from harness.sources.parallel import SliceTable
from harness.stops import Count
from harness.stores.memory import MemoryStore

pytestmark = pytest.mark.usefixtures("form")


def by_key(rows: Sequence[Any], cursor: Any) -> list[tuple[Any, Any]]:
    """Return the rows of a sorted collection whose key comes after the cursor, as a select does."""
    return [(row, row) for row in rows if cursor is None or row > cursor]


def job_over(build: Callable[[Any], Any], done: list[Any]) -> type[IterationJob]:
    """Return a job over what *build* makes of a cursor."""

    class Over(IterationJob):
        def build_enumerator(self, *, cursor: Any) -> Any:
            return build(cursor)

        def each_iteration(self, item: Any) -> None:
            done.append(item)

    return Over


class Tree:
    """Customers with their orders, in a dict that tests change while the job is stopped."""

    def __init__(self, **orders: int) -> None:
        self.orders = orders

    def enumerator(self, cursor: Any) -> Enumerator[Any]:
        """Return the orders of all customers."""
        return nested(
            [
                lambda cursor: by_key(sorted(self.orders), cursor),
                lambda name, cursor: (
                    ((name, number), number) for number, _ in times(self.orders[name], cursor=cursor)
                ),
            ],
            cursor=cursor,
        )


def stopped_after(tree: Tree, number: int, done: list[Any]) -> InlineRun:
    """Return a run of a job over the tree that was interrupted after *number* orders."""
    inline = InlineRun(job_over(tree.enumerator, done), stops=[Count(number)])
    assert inline.execute().outcome == "interrupted"
    return inline


def test_the_outer_item_in_progress_may_leave(done: list[Any]) -> None:
    """If the outer item in progress is gone, no other item gets the position within it."""
    tree = Tree(ann=4, bob=4)
    inline = stopped_after(tree, 2, done)
    del tree.orders["ann"]
    inline.drain()
    assert done == [("ann", 0), ("ann", 1), *(("bob", number) for number in range(4))]


def test_an_item_that_leaves_with_its_last_inner_item_takes_nothing_along(done: list[Any]) -> None:
    """A job that marks the outer item as done with its last inner item goes on with the next outer item."""
    tree = Tree(ann=2, bob=3)
    inline = stopped_after(tree, 2, done)
    del tree.orders["ann"]
    inline.drain()
    assert done == [("ann", 0), ("ann", 1), ("bob", 0), ("bob", 1), ("bob", 2)]


def test_another_outer_item_may_come_before_the_one_in_progress(done: list[Any]) -> None:
    """A new item is done whole, and the item in progress goes on where it was, over further interruptions too."""
    tree = Tree(bob=4, eve=1)
    inline = stopped_after(tree, 2, done)
    tree.orders = {"ann": 3, **tree.orders}
    inline.stops[:] = [lambda at: len(done) == 4]
    assert inline.execute().outcome == "interrupted"  # in the middle of the new item
    tree.orders = {"abe": 1, **tree.orders}
    inline.stops[:] = []
    inline.drain()
    assert (
        sorted(done)
        == sorted(set(done))
        == sorted([("abe", 0), *(("ann", n) for n in range(3)), *(("bob", n) for n in range(4)), ("eve", 0)])
    )


def test_a_nested_level_that_counts_places_refuses_a_change(done: list[Any]) -> None:
    """If a cursor is only a place, a change before the item in progress stops the job; it does not guess."""
    names = ["ann", "bob", "eve"]

    def build(cursor: Any) -> Any:
        return nested(
            [
                lambda cursor: items(names, cursor=cursor),
                lambda name, cursor: (((name, n), n) for n, _ in times(2, cursor=cursor)),
            ],
            cursor=cursor,
        )

    inline = InlineRun(job_over(build, done), stops=[Count(3)])
    inline.execute()
    for change in (
        ["bob", "eve"],
        ["zoe", "ann", "bob", "eve"],
        ["ann", "zoe", "bob", "eve"],
        ["ann", "eve"],
    ):
        names[:] = change
        with pytest.raises(CollectionChanged):
            inline.drain()
    names[:] = ["ann", "bob", "eve", "new"]
    inline.drain()
    assert done == [(name, n) for name in ("ann", "bob", "eve", "new") for n in range(2)]


def test_cursors_of_release_0_1_are_refused_and_kept(done: list[Any]) -> None:
    """A nested cursor that does not say which item was in progress is refused by name; the progress stays as it is."""
    tree, store = Tree(ann=3, bob=3), MemoryStore()
    inline = InlineRun(job_over(tree.enumerator, done), store=store, stops=[Count(2)])
    inline.execute()
    progress = store.claim(inline.job_id)
    progress.cursor, progress.ended = (None, 1), progress.epoch
    store.save(progress)
    assert inline.drain()[-1].outcome == "completed"  # None: nothing was finished, and nothing is in progress
    progress = store.claim(inline.job_id)
    progress.state, progress.cursor, progress.completed = "interrupted", ("ann", 1), []
    progress.step, progress.ended = "each_iteration", progress.epoch
    store.save(progress)
    with pytest.raises(CursorError, match="cursors of earlier releases"):
        inline.drain()
    kept = store.load(inline.job_id)
    assert kept is not None
    assert kept.cursor == ("ann", 1)


@pytest.mark.parametrize(
    "change",
    [["b", "c", "d", "e"], ["x", "a", "b", "c", "d"], ["a", "c", "b", "d"], ["a"], []],
    ids=["deleted", "inserted", "reordered", "shortened", "emptied"],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_sequence_that_changed_before_the_cursor_stops_the_job(
    done: list[Any], change: list[str], wrapped: bool
) -> None:
    """items() compares what was done with what is there now, also within throttle(); progress is kept."""
    letters = ["a", "b", "c", "d"]

    def build(cursor: Any) -> Any:
        found = items(letters, cursor=cursor)
        return throttle(found, on=lambda: False, backoff=0) if wrapped else found

    inline = InlineRun(job_over(build, done), stops=[Count(2)])
    inline.execute()
    letters[:] = change
    with pytest.raises(CollectionChanged):
        inline.drain()
    letters[:] = ["a", "b", "x", "c", "d", "e"]
    assert inline.drain()[-1].outcome == "completed"
    assert done == ["a", "b", "x", "c", "d", "e"]


def test_items_that_can_change_in_place_are_not_compared(done: list[Any]) -> None:
    """A job may change its items while it works on them, so such items are no proof."""
    rows = [{"n": number} for number in range(3)]

    class Marking(IterationJob):
        def build_enumerator(self, *, cursor: Any) -> Any:
            return items(rows, cursor=cursor)

        def each_iteration(self, item: dict[str, int]) -> None:
            item["n"] += 100
            done.append(item["n"])

    inline = InlineRun(Marking, stops=[Count(1)])
    inline.execute()
    rows[0]["n"] = 0
    inline.drain()
    assert done == [100, 101, 102]


@pytest.mark.parametrize(
    ("before", "after"), [((2, 8), (4, 16)), ((4, 16), (2, 8)), ((2, 8), (2, 3)), ((3, 7), (1, 1))]
)
def test_a_deploy_may_change_the_division_of_a_parallel_run(
    done: list[Any], before: tuple[int, int], after: tuple[int, int]
) -> None:
    """The number of slices is that of the run and not of the code that resumes, so nothing is lost or done twice."""
    number = [before]

    def build(cursor: Any) -> Any:
        instances, slices = number[0]
        return parallel(
            lambda part, parts, cursor: by_key([n for n in range(100) if n % parts == part], cursor),
            instances=instances, slices=slices, cursor=cursor,
        )  # fmt: skip

    inline = InlineRun(job_over(build, done))
    inline.execute()
    for instance in inline.instances.values():
        instance.stops[:] = [Count(5)]
        instance.execute()
    number[0] = after
    inline.drain()
    assert sorted(done) == list(range(100))


def test_a_division_of_release_0_1_is_still_read(done: list[Any]) -> None:
    """Slices that were stored as bare numbers mean as many slices as the record has."""
    store = MemoryStore()

    def build(cursor: Any) -> Any:
        return parallel(
            lambda part, parts, cursor: by_key([n for n in range(30) if n % parts == part], cursor),
            instances=1, slices=9, cursor=cursor,
        )  # fmt: skip

    inline = InlineRun(job_over(build, done), store=store)
    slices = [encode(number) for number in range(3)]
    old = SliceTable(slices, [None] * 3, [False] * 3, wanted=1, active=[0], started=1).to_json()
    store.replace(f"parallel:{inline.job_id}", None, old.replace(',"run":""', ""))
    inline.drain()
    assert sorted(done) == list(range(30))


def test_a_position_in_another_parallel_run_is_refused(done: list[Any]) -> None:
    """An instance whose run was restarted stops by name, because its slice is now another one."""
    store = MemoryStore()

    def build(cursor: Any) -> Any:
        return parallel(lambda part, parts, cursor: times(9, cursor=cursor), instances=2, cursor=cursor)

    inline = InlineRun(job_over(build, done), store=store)
    inline.execute()
    first = inline.instances[0]
    first.stops[:] = [Count(2)]
    first.execute()
    key = f"parallel:{inline.job_id}"
    text = store.read(key)
    assert text is not None
    division = SliceTable.read(store, inline.job_id)
    assert division is not None
    store.replace(key, text, text.replace(division.run, "another"))
    with pytest.raises(CollectionChanged, match="new parallel run"):
        first.drain()


def test_a_slice_of_a_sequence_that_changed_stops_its_instance(done: list[Any]) -> None:
    """parallel_items() compares a slice with what it was at the start; later items are no change."""
    letters = list("abcdefgh")
    build = lambda cursor: parallel_items(letters, instances=1, cursor=cursor)  # noqa: E731
    inline = InlineRun(job_over(build, done))
    inline.execute()
    del letters[0]
    with pytest.raises(CollectionChanged):
        inline.instances[0].drain()
    letters[:] = [*"abcdefgh", "later"]
    inline.instances[0].drain()
    assert sorted(done) == list("abcdefgh")


def test_an_enumerator_is_not_empty_the_second_time() -> None:
    """``if any(found): return found`` loses no item: a second reading begins at the cursor again."""
    for found in (
        items(["abc"], cursor=None),
        items(list("abc"), cursor=0),
        times(3, cursor=0),
        nested([lambda cursor: times(2, cursor=cursor)], cursor=None),
        throttle(items(list("abc"), cursor=None), on=lambda: False, backoff=0),
        csv_rows(io.StringIO("a\n1\n2\n"), cursor=None),
        Enumerator([(1, 1), (2, 2)]),
        Enumerator(lambda: iter([(1, 1), (2, 2)])),
    ):
        assert any(found)
        assert list(found) == list(found) != []


def test_what_can_be_read_once_is_refused_the_second_time(done: list[Any]) -> None:
    """An enumerator over an iterator, and a generator that was begun, are refused by name and not half empty."""
    found = Enumerator((n, n) for n in range(3))
    assert any(found)
    with pytest.raises(JobDefinitionError, match="was already read"):
        iter(found)
    wrapped = throttle(((n, n) for n in range(3)), on=lambda: False, backoff=0)
    assert any(wrapped)
    with pytest.raises(JobDefinitionError, match="was already read"):
        list(wrapped)

    def begun(cursor: Any) -> Any:
        pairs = ((n, n) for n in range(3) if cursor is None or n > cursor)
        next(pairs)
        return pairs

    with pytest.raises(JobDefinitionError, match="was already read"):
        InlineRun(job_over(begun, done)).drain()
    assert done == []


@pytest.mark.parametrize("pairs", [17, None, "ab", b"ab", list])
def test_throttle_refuses_what_it_cannot_iterate(pairs: Any) -> None:
    """throttle() raises when it is called, and the error says what it got and what to use."""
    with pytest.raises(Exception, match=r"throttle\(\) got .*use an enumerator"):
        throttle(pairs, on=lambda: False, backoff=1)
