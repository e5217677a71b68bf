"""Data and code change between any two executions of any instance of a parallel run: no row is lost."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from harness import InlineRun, parallel, parallel_items
from harness.errors import HarnessError
from harness.sources.parallel_selects import parallel_batches, parallel_records
from tests.changes import Changing, Place, go_back, inline, insist, place
from tests.examples import examples
from tests.scene import OUTERMOST, ROWS, Scene, columns_of
from tests.stories import FUNCTION, Story, stories

__all__ = ["place"]

CHANGES = ["instances", "slices", "scale"]
SHARED = [
    "items",
    "times",
    "csv_rows",
    "csv_rows of a file",
    "csv_batches",
    "records",
    "batches",
    "throttled items",
]
"""Enumerators that a function of the job cuts into slices."""


class Sharing(Changing):
    """Shares what its scene says, by a function of its own or by the enumerator's own means."""

    def build_enumerator(self, *, cursor: Any) -> Any:
        """Share rows among instances."""
        scene, code = self.scene, self.scene.world.code
        many: dict[str, Any] = {"instances": code.instances, "cursor": cursor}
        if code.shared == FUNCTION:
            return parallel(self.part, slices=code.slices, **many)
        if code.kind == "items":
            return parallel_items([f"{row.id} {row.note}" for row in scene.visible(None)], **many)
        read = parallel_batches if code.kind == "batches" else parallel_records
        select = sa.select(ROWS.c.id).where(ROWS.c.parent == OUTERMOST)
        return read(self.session, select, columns=columns_of(code), batch_size=code.batch_size, **many)

    def part(self, part: int, parts: int, cursor: Any) -> Any:
        """Return one slice: the rows whose number leaves a remainder."""
        step = 1 if self.scene.world.code.kind == "times" else 10
        return self.found(cursor, lambda number: number // step % parts == part)


def play_parallel(story: Story, place: Place, turns: list[int]) -> None:
    """Play a story of a parallel run to its end, and judge it.

    :param turns: which instance has the next execution.
    """
    scene = Changing.scene = Scene(story, place.engine, place.folder)
    run = inline(scene, Sharing)
    scene.run(run)
    before = [(scene.world, set(scene.marked))]
    ended: set[int] = set()
    executions: list[Any] = [*zip(story.executions, turns, strict=False)]
    while waiting := sorted(set(run.instances) - ended):
        (plan, at, changes), turn = executions.pop(0) if executions else (("", 0, []), 0)
        number = waiting[turn % len(waiting)]
        try:
            scene.tell(f"instance {number}")
            if scene.run(run.instances[number], plan, at) == "completed":
                ended.add(number)
        except HarnessError:
            insist(scene, run.instances[number])
            for each in waiting:
                go_back(scene, run.instances[each], before)
            break
        before.append((scene.world, set(scene.marked)))
        change(scene, run, changes)
    scene.judge()


def change(scene: Scene, run: InlineRun, changes: list[tuple[str, int, int]]) -> None:
    """Change data, code, and how many instances there are."""
    scene.change([each for each in changes if each[0] != "scale"])
    for name, a, _ in changes:
        if name == "scale":
            run.scale(1 + a % 4)
    scene.tell(f"changed: {changes}")


numbers = st.integers(1, 4)
turns = st.lists(st.integers(0, 3), min_size=4, max_size=4)


@given(
    story=stories(
        st.sampled_from(["items", "records", "batches"]), changes=CHANGES, shared=st.just("by its own means"),
        instances=numbers,
    ),
    turns=turns,
)  # fmt: skip
@examples(60)
def test_of_a_collection_that_is_shared(place: Place, story: Story, turns: list[int]) -> None:
    """A list or a select is cut into slices, and then there are other rows, and more or fewer instances."""
    play_parallel(story, place, turns)


@given(
    story=stories(st.sampled_from(SHARED), changes=CHANGES, shared=st.just(FUNCTION), instances=numbers),
    turns=turns,
)
@examples(60)
def test_of_slices_that_the_job_cuts_itself(place: Place, story: Story, turns: list[int]) -> None:
    """A new version asks for another number of instances or of slices."""
    play_parallel(story, place, turns)


@given(
    story=stories(
        st.sampled_from(["items", "records", "csv_rows"]), st.sampled_from(["items", "records", "times"]),
        changes=CHANGES, shared=st.just(FUNCTION), instances=numbers,
    ),
    turns=turns,
)  # fmt: skip
@examples(40)
def test_of_slices_with_rows_within_rows(place: Place, story: Story, turns: list[int]) -> None:
    """Each slice is one enumerator within another."""
    play_parallel(story, place, turns)
