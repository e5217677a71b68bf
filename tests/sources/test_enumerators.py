"""One suite for all enumerators, those of the standard library and those of a database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness import Enumerator, InlineRun, IterationJob, RetryLater, nested, throttle, times
from harness.cursor import decode, encode
from harness.errors import UsageError
from harness.stops import Every
from tests.awaited import twin_of
from tests.databases import ASYNC
from tests.enumerator_cases import IN_DATABASE, MOST, PLAIN, Case, World, filled, never
from tests.examples import examples

EVERYWHERE = [
    *(pytest.param("sqlite", case, id=name) for name, case in PLAIN.items()),
    *(
        # By default each case on one of the two databases, in turn.
        pytest.param(backend, case, id=f"{name}-{backend}", marks=[pytest.mark.full] * ((number + turn) % 2))
        for turn, backend in enumerate(("sqlite", "postgresql"))
        for number, (name, case) in enumerate(IN_DATABASE.items())
    ),
]
EVERYWHERE += [
    # With an AsyncSession, each case on one of the drivers, in turn; by default every third of them.
    pytest.param(driver, case, id=f"{name}-{driver}", marks=[pytest.mark.full] * ((number + turn) % 9 != 0))
    for turn, driver in enumerate(ASYNC)
    for number, (name, case) in enumerate(reversed(IN_DATABASE.items()))
    if (number + turn) % len(ASYNC) == 0
]
every_enumerator = pytest.mark.parametrize(("world", "case"), EVERYWHERE, indirect=["world"])


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Return tables and a folder for files; no test changes them."""
    folder = tmp_path_factory.mktemp("enumerators")
    with filled(request, folder) as world:
        yield world


def sizes(world: World) -> list[World]:
    """Return nothing, one item, one batch, and more of them with and without a rest."""
    return [world.of(rows, 2) for rows in (0, 1, 2, 5, 6)]


def stored(cursor: Any) -> Any:
    """Return the cursor as the next execution gets it."""
    return decode(json.loads(json.dumps(encode(cursor))))


def read(world: World, case: Case, cursor: Any) -> list[Any]:
    """Return the plain items after a cursor, with theirs."""
    return world.read(case.make(world, cursor))


def job_over(world: World, case: Case, done: list[Any]) -> type[IterationJob]:
    """Return a job that adds each item to *done*."""

    class Reading(IterationJob):
        def build_enumerator(self, *, cursor: Any) -> Any:
            return case.make(world, cursor)

        def each_iteration(self, item: Any) -> None:
            done.append(world.plain(item))

    job: Any = twin_of(Reading) if world.is_async else Reading
    return job  # type: ignore[no-any-return]  # a twin is a subclass


@pytest.mark.sample(24)
@every_enumerator
def test_resumed_from_each_cursor_it_yields_exactly_the_rest(world: World, case: Case) -> None:
    """Each cursor comes back equal from JSON, and the enumerator then yields exactly the rest."""
    for each in sizes(world):
        whole = read(each, case, None)
        assert [item for item, _ in whole] == case.expected(each)
        for index, (_, cursor) in enumerate(whole):
            assert (again := stored(cursor)) == cursor
            assert read(each, case, again) == whole[index + 1 :]


@pytest.mark.sample(24)
@every_enumerator
def test_the_size_is_right_or_unknown(world: World, case: Case) -> None:
    """The size counts the whole, before the first item and after a resume, and the cheap size agrees with it."""
    for each in sizes(world):
        for cursor in (None, *(cursor for _, cursor in read(each, case, None)[-1:])):
            enumerator = case.make(each, cursor)
            assert enumerator.free_size in {None, case.size(each)}
            assert each.size_of(enumerator) == case.size(each)
            assert enumerator.free_size == case.size(each)
            assert enumerator.batched == (case.count is not None)


@pytest.mark.sample(24)
@every_enumerator
def test_interrupted_after_every_item_nothing_is_lost_or_done_twice(world: World, case: Case) -> None:
    """A job that stops after each item does the same items in the same order."""
    for each in sizes(world):
        done: list[Any] = []
        # Jobs count the items of a batch, so every multiple of these numbers is after a whole batch.
        ended = InlineRun(job_over(each, case, done), stops=[Every(1)]).drain()
        assert done == case.expected(each)
        assert len(ended) == len(done) + 1


@pytest.mark.sample(24)
@every_enumerator
@given(
    rows=st.integers(0, MOST),
    batch_size=st.integers(1, MOST + 1),
    stops=st.sets(st.integers(1, 2 * MOST)),
)
@example(rows=MOST, batch_size=MOST, stops=set())
@examples(8)
def test_interrupted_anywhere_nothing_is_lost_or_done_twice(
    world: World, case: Case, rows: int, batch_size: int, stops: set[int]
) -> None:
    """Nothing is lost or duplicated for any size of the whole and of the batches, and for any interruption."""
    world, done = world.of(rows, batch_size), list[Any]()
    InlineRun(job_over(world, case, done), stops=[lambda at: len(done) in stops]).drain()
    assert done == case.expected(world)


def test_a_throttled_item_is_not_read() -> None:
    """The job waits before an item is produced, the first too, and is asked again before each one."""
    read: list[int] = []

    def pairs() -> Iterator[tuple[int, int]]:
        for number in range(3):
            read.append(number)
            yield number, number

    answers = iter([False, True, False, False, True])
    iterator = iter(throttle(pairs(), on=lambda: next(answers), backoff=7))
    assert next(iterator) == (0, 0)
    with pytest.raises(RetryLater) as raised:
        next(iterator)
    assert (raised.value.delay, raised.value.reason) == (7, "throttled")
    assert read == [0]
    read.clear()
    iterator = iter(throttle(pairs(), on=lambda: next(answers), backoff=lambda: 0.5))
    assert next(iterator) == (0, 0)
    assert next(iterator) == (1, 1)
    with pytest.raises(RetryLater) as raised:
        next(iterator)
    assert raised.value.delay == 0.5
    assert read == [0, 1]
    with pytest.raises(RetryLater):
        next(iter(throttle(pairs(), on=[lambda: False, lambda: True], backoff=0)))
    assert read == [0, 1]


def test_the_first_that_says_wait_is_enough() -> None:
    """Conditions are asked in turn, outer ones first, each with its own backoff."""
    asked: list[str] = []

    def condition(name: str, wait: bool) -> Any:
        return lambda: asked.append(name) or wait  # type: ignore[func-returns-value]

    inner = throttle(times(2, cursor=None), on=[condition("c", True), condition("d", True)], backoff=3)
    outer = throttle(inner, on=[condition("a", False), condition("b", False)], backoff=5)
    with pytest.raises(RetryLater) as raised:
        next(iter(outer))
    assert (asked, raised.value.delay) == (["a", "b", "c"], 3)


def test_throttle_asks_for_the_size_only_if_it_is_needed() -> None:
    """A throttled enumerator asks for the size only if it is needed."""
    asked: list[int] = []
    inner = Enumerator([([1], 0)], size=lambda: asked.append(1) or 1, batched=True)  # type: ignore[func-returns-value]
    outer = throttle(inner, on=never, backoff=0)
    assert (outer.free_size, outer.batched, asked) == (None, True, [])
    assert (outer.size, outer.size, outer.free_size, asked) == (1, 1, 1, [1])
    assert throttle([(1, 1)], on=never, backoff=0).size is None


@pytest.mark.parametrize("wrap", [lambda pairs: throttle(pairs, on=never, backoff=0), lambda pairs: nested(
    [lambda cursor: pairs, lambda outer, cursor: pairs], cursor=None)])  # fmt: skip
def test_what_is_wrapped_is_closed_with_the_wrapper(wrap: Any) -> None:
    """The cleanup of a generator does not wait for the garbage collector."""
    closed: list[int] = []

    def pairs() -> Iterator[tuple[int, int]]:
        try:
            yield from ((number, number) for number in range(4))
        finally:
            closed.append(1)

    inner = pairs()
    iterator = iter(wrap(inner))
    next(iterator)
    iterator.close()
    assert closed == [1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"on": True, "backoff": 1}, TypeError, "takes a function or a list of functions as on; got True"),
        ({"on": [], "backoff": 1}, TypeError, r"got \[\]"),
        ({"on": [never, 1], "backoff": 1}, TypeError, "got"),
        ({"on": never, "backoff": -1}, UsageError, "takes seconds of 0 or more; got -1"),
    ],
)
def test_throttle_refuses_what_it_cannot_ask(options: Any, error: type[Exception], message: str) -> None:
    """throttle() refuses a wrong option when it is called, and the error says what it got."""
    with pytest.raises(error, match=message):
        throttle([], **options)


def test_a_throttled_job_goes_on_after_the_backoff(done: list[object]) -> None:
    """A throttled job is interrupted with its reason, waits, and does each item once (I17, I30)."""
    answers = iter([False, True, True, False, False, False])

    class Throttled(IterationJob):
        def build_enumerator(self, *, cursor: Any) -> Any:
            return throttle(times(3, cursor=cursor), on=lambda: next(answers), backoff=30)

        def each_iteration(self, item: int) -> None:
            done.append(item)

    ended = InlineRun(Throttled).drain()
    assert [(each.outcome, each.reason, each.delay) for each in ended[:-1]] == [
        ("interrupted", "throttled", 30)
    ] * 2
    assert done == [0, 1, 2]
