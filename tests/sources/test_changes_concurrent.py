"""Several items at a time: whatever changes between executions, and wherever they are cut, nothing is lost."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import every, on_stop
from tests.changes import Changing, Place, inline, place, play_on
from tests.examples import examples
from tests.scene import Scene
from tests.stories import KINDS, SWAPPED, Story, stories

__all__ = ["place"]


class Several(Changing):
    """Does several items at a time, each of which takes some turns of the event loop."""

    begun = 0

    async def each_iteration(self, item: Any) -> None:  # type: ignore[override]  # async this time
        """Wait, then do the rows of an item."""
        turns = self.scene.story.turns
        number, self.begun = self.begun, self.begun + 1
        for _ in range(turns[number % len(turns)]):
            await asyncio.sleep(0)
        super().each_iteration(item)


class Played(Scene):
    """A scene in which each execution has a number of items at a time of its own."""

    executions = 0

    def run(self, *args: Any, **kwargs: Any) -> str:
        """Run one execution."""
        several = self.story.several
        Several.concurrency = several[self.executions % len(several)]
        self.executions += 1
        self.tell(f"{Several.concurrency} at a time")
        return super().run(*args, **kwargs)


def play(place: Place, story: Story) -> None:
    """Play a story with several items at a time."""
    scene = Several.scene = Played(story, place.engine, place.folder)
    play_on(scene, inline(scene, Several))


several = st.tuples(st.sampled_from([1, 3, 10]), st.sampled_from([3, 10, 3, 10, 1]))
turns = st.lists(st.integers(0, 6), min_size=1, max_size=7).map(tuple)
durability = st.sampled_from([on_stop(), every(items=1), every(items=2), every(items=3), every(seconds=2)])


def concurrent(told: st.SearchStrategy[Story]) -> st.SearchStrategy[Story]:
    """Draw stories in which several items are at work."""
    return st.builds(
        lambda story, several, turns, durability: replace(
            story, several=several, turns=turns, durability=durability
        ),
        told, several, turns, durability,
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@examples(60)
def test_of_several_items_at_a_time(place: Place, kind: str, data: st.DataObject) -> None:
    """Rows come, go, change and move, batches have another size, and so has the number of items at a time."""
    play(place, data.draw(concurrent(stories(kind))))


@given(
    story=concurrent(stories(st.sampled_from(["records", "batches", "ranges"]), changes=["order", "guard"]))
)
@examples(40)
def test_of_the_order(place: Place, story: Story) -> None:
    """A new version reads its select in another order."""
    play(place, story)


@given(story=concurrent(stories(st.sampled_from(SWAPPED), changes=["kind", "kind"])))
@examples(40)
def test_of_the_enumerator(place: Place, story: Story) -> None:
    """A new version has another enumerator."""
    play(place, story)
