"""Data and code change between any two executions of an iteration job: no row is lost, whatever changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.changes import GROUPED, KINDS, NUMBERED, SWAPPED, Place, Story, place, stories
from tests.examples import examples

__all__ = ["place"]


postgresql = pytest.mark.parametrize("place", ["postgresql"], indirect=True)
PAIRS = [(outer, inner) for outer in KINDS for inner in KINDS if not (outer in GROUPED and inner in NUMBERED)]


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


@postgresql
@given(data=st.data())
@examples(15)
def test_on_postgresql(place: Place, data: st.DataObject) -> None:
    """It is the same there, for one enumerator and for two."""
    kind, inner = data.draw(
        st.sampled_from(PAIRS + [(kind, None) for kind in ("records", "batches", "ranges")])
    )
    place.play(data.draw(stories(kind, inner)))
