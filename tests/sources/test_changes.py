"""Data and code change between any two executions of an iteration job: no row is lost, whatever changes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import every, on_stop
from tests.changes import Place, place
from tests.examples import examples
from tests.stories import GROUPED, KINDS, NUMBERED, SWAPPED, Code, Story, stories

__all__ = ["place"]


postgresql = pytest.mark.parametrize("place", ["postgresql"], indirect=True)
PAIRS = [(outer, inner) for outer in KINDS for inner in KINDS if not (outer in GROUPED and inner in NUMBERED)]


def _story(kind: str, change: str, number: int, *, inner: str | None = None, guard: bool = False) -> Story:
    """Return a story of six rows: two are done, then something changes."""
    executions = [("stop", 1, [(change, number, 5)]), ("stop", 9, list[Any]())]
    return Story(Code(kind, guard=guard), inner, [0] * 6, 2, on_stop(), executions)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@examples(25)
def test_of_one_enumerator(place: Place, kind: str, data: st.DataObject) -> None:
    """Rows come, go, change and move, and batches have another size."""
    place.play(data.draw(stories(kind)))


@pytest.mark.parametrize("outer", KINDS)
@given(data=st.data())
@examples(40)
def test_of_one_enumerator_within_another(place: Place, outer: str, data: st.DataObject) -> None:
    """The same at both levels: a position within a row goes to that row and to no other."""
    inner = st.sampled_from([inner for each, inner in PAIRS if each == outer])
    place.play(data.draw(stories(outer, inner)))


@given(story=stories(st.sampled_from(["records", "batches", "ranges"]), changes=["order", "guard"]))
@examples(25)
def test_of_the_order(place: Place, story: Story) -> None:
    """A new version reads its select in another order."""
    place.play(story)


@given(story=stories(st.sampled_from(SWAPPED), changes=["kind", "kind"]))
@examples(25)
def test_of_the_enumerator(place: Place, story: Story) -> None:
    """A new version has another enumerator."""
    place.play(story)


ONCE: dict[str, Story] = {
    "an index in a select": _story("items", "kind", 1),
    "a key in a sequence": _story("records", "kind", 0),
    "another order": _story("records", "order", 2),
    "a shorter sequence": _story("items", "delete", 0),
    "a shorter file": _story("csv_rows of a file", "delete", 0),
    "a position in a row of a place": _story("items", "insert", 0, inner="times", guard=True),
    "a position in a batch of another size": _story("ranges", "batch size", 0, inner="batches"),
    "a batch of which a row is gone": _story("batches", "leave or enter", 1, inner="records"),
    "nothing has changed after an error in the next row": Story(
        Code("times"),
        "items",
        [0, 0],
        3,
        every(items=3),
        [("error", 2, []), ("error", 1, []), ("stop", 9, [])],
    ),
    "a crash between": Story(
        Code("items"),
        None,
        [0] * 6,
        1,
        every(items=1),
        [("crash before", 2, []), ("stop", 9, [])],
        marks=True,
    ),
}


@pytest.mark.parametrize("story", ONCE.values(), ids=ONCE)
def test_of_what_was_lost_once(place: Place, story: Story) -> None:
    """Positions are applied to nothing but what they were taken from, in the retry of a refused job neither."""
    place.play(story)


@postgresql
@given(data=st.data())
@examples(15)
def test_on_postgresql(place: Place, data: st.DataObject) -> None:
    """On PostgreSQL the rules are the same, for one enumerator and for two."""
    kind, inner = data.draw(
        st.sampled_from(PAIRS + [(kind, None) for kind in ("records", "batches", "ranges")])
    )
    place.play(data.draw(stories(kind, inner)))
