"""One suite for all enumerators, those of the standard library and those of a database."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness import InlineRun, IterationJob
from harness.cursor import decode, encode
from harness.stops import Every
from tests.enumerator_cases import IN_DATABASE, MOST, PLAIN, Case, World, filled

EVERYWHERE = [
    *(pytest.param("sqlite", case, id=name) for name, case in PLAIN.items()),
    *(
        pytest.param(backend, case, id=f"{name}-{backend}")
        for backend in ("sqlite", "postgresql")
        for name, case in IN_DATABASE.items()
    ),
]
every_enumerator = pytest.mark.parametrize(("world", "case"), EVERYWHERE, indirect=["world"])


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Return tables and a folder for files; no test changes them."""
    folder = tmp_path_factory.mktemp("enumerators")
    url, schema = f"sqlite:///{folder / 'test.db'}", None
    if request.param == "postgresql":
        url, schema = request.getfixturevalue("postgresql_url"), f"enumerators_{uuid.uuid4().hex}"
    with filled(url, schema) as session:
        yield World(session, folder)


def sizes(world: World) -> list[World]:
    """Return nothing, one item, one batch, and more of them with and without a rest."""
    return [world.of(rows, 2) for rows in (0, 1, 2, 5, 6)]


def stored(cursor: Any) -> Any:
    """Return the cursor as the next execution gets it."""
    return decode(json.loads(json.dumps(encode(cursor))))


def read(world: World, case: Case, cursor: Any) -> list[Any]:
    """Return the plain items after a cursor, with theirs."""
    return [(world.plain(item), cursor) for item, cursor in case.make(world, cursor)]


def job_over(world: World, case: Case, done: list[Any]) -> type[IterationJob]:
    """Return a job that adds each item to *done*."""

    class Reading(IterationJob):
        def build_enumerator(self, *, cursor: Any) -> Any:
            return case.make(world, cursor)

        def each_iteration(self, item: Any) -> None:
            done.append(world.plain(item))

    return Reading


@every_enumerator
def test_resumed_from_each_cursor_it_yields_exactly_the_rest(world: World, case: Case) -> None:
    """Without interruption all comes; a cursor comes back equal from JSON, and after it comes what came after it."""
    for each in sizes(world):
        whole = read(each, case, None)
        assert [item for item, _ in whole] == case.expected(each)
        for index, (_, cursor) in enumerate(whole):
            assert (again := stored(cursor)) == cursor
            assert read(each, case, again) == whole[index + 1 :]


@every_enumerator
def test_the_size_is_right_or_unknown(world: World, case: Case) -> None:
    """Before, and of a resumed one all the same, the size counts the whole; what is cheap of it agrees."""
    for each in sizes(world):
        for cursor in (None, *(cursor for _, cursor in read(each, case, None)[-1:])):
            enumerator = case.make(each, cursor)
            assert enumerator.cheap_size in {None, case.size(each)}
            assert enumerator.size == case.size(each)
            assert enumerator.cheap_size == case.size(each)
            assert enumerator.batched == (case.count is not None)


@every_enumerator
def test_interrupted_after_every_item_nothing_is_lost_or_done_twice(world: World, case: Case) -> None:
    """A job that stops after each item does the same items in the same order."""
    for each in sizes(world):
        done: list[Any] = []
        # Jobs count what is in a batch, so every so many of these is after every batch.
        ended = InlineRun(job_over(each, case, done), stops=[Every(1)]).drain()
        assert done == case.expected(each)
        assert len(ended) == len(done) + 1


@every_enumerator
@given(
    rows=st.integers(0, MOST),
    batch_size=st.integers(1, MOST + 1),
    stops=st.sets(st.integers(1, 2 * MOST)),
)
@example(rows=MOST, batch_size=MOST, stops=set())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_interrupted_anywhere_nothing_is_lost_or_done_twice(
    world: World, case: Case, rows: int, batch_size: int, stops: set[int]
) -> None:
    """Whatever the sizes of the whole and of the batches, and wherever it is interrupted."""
    world, done = world.of(rows, batch_size), list[Any]()
    InlineRun(job_over(world, case, done), stops=[lambda at: len(done) in stops]).drain()
    assert done == case.expected(world)
