"""Data and code change between any two executions of a job of steps: no row of any step is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from harness import ContinuableJob, Step
from tests.changes import Place, inline, place, play_on
from tests.examples import examples
from tests.scene import Scene
from tests.stories import Story, stories

__all__ = ["place"]

NAMES = ["load", "price", "tell", "close"]
CHANGES = ["add step", "remove step", "rename step", "swap steps"]
IDS = 10_000
"""The ids of what a step does begin at its number times this."""


class Steps(Scene):
    """A story of a job of steps, each of which does all rows."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """Return the number of a step."""
        return self._numbers.setdefault(name, len(self._numbers))

    def change(self, changes: Sequence[tuple[str, int, int]]) -> None:
        """Change the data, and the steps."""
        super().change([each for each in changes if each[0] not in CHANGES])
        for name, a, b in changes:
            if name in CHANGES:
                steps = list(self.world.code.steps)
                self.changed |= {~self.number(each) for each in changed_steps(steps, name, a, b)}
                self.world = replace(self.world, code=replace(self.world.code, steps=tuple(steps)))

    def stable(self) -> list[int]:
        """Return what every step that was there all the time did to rows that were."""
        steps = [self.number(name) for name in self.first.code.steps]
        rows = super().stable()
        return [step * IDS + row for step in steps if ~step not in self.changed for row in rows]


def changed_steps(steps: list[str], name: str, a: int, b: int) -> list[str]:
    """Change the names of steps, in place; return those that are no longer what they were."""
    if name == "add step":
        new = next(each for n in range(99) if (each := f"new {n}") not in steps)
        steps.insert(a % (len(steps) + 1), new)
        return [new]
    if not steps:
        return []
    old = steps.pop(a % len(steps))
    if name == "rename step":
        steps.insert(a % (len(steps) + 1), f"{old} again")
    elif name == "swap steps":
        steps.insert(b % (len(steps) + 1), old)
        return []  # wherever it is called, it is the same step
    return [old]


class Stepping(ContinuableJob):
    """Calls the steps that its scene has."""

    scene: ClassVar[Steps]
    session: Session

    def perform(self) -> None:
        """Hold a session."""
        with Session(self.scene.engine) as self.session:
            for name in self.scene.world.code.steps:
                self.step(name, start=-1, isolated=name == "tell")(self.all_rows)

    def all_rows(self, step: Step) -> None:
        """Do the rows after the cursor."""
        scene = self.scene
        base = scene.number(step.name) * IDS
        for row in sorted(scene.visible(None), key=lambda row: row.id):
            if row.id <= step.cursor:
                continue
            if not scene.transactional:
                scene.do(self, [base + row.id], 1)
                step.set(row.id)
                continue
            with step.transaction():
                scene.do(self, [base + row.id], 1)
                step.set(row.id)


@given(
    story=stories(
        "items", changes=CHANGES, steps=st.integers(1, len(NAMES)).map(lambda number: tuple(NAMES[:number]))
    )
)
@examples(100)
def test_of_steps(place: Place, story: Story) -> None:
    """A new version has a step more, a step less, or gives a step another name or another place."""
    scene = Stepping.scene = Steps(replace(story, marks=False), place.engine, place.folder)
    play_on(scene, inline(scene, Stepping))
