"""Jobs whose items have fifty effects each, and that hang in the middle of one until a test kills them."""

from __future__ import annotations

import os
from typing import Any

from rq.job import get_current_job

from harness import ContinuableJob, Enumerator, IterationJob, Step, every, items, on_stop
from tests.workers import PATIENCE

EFFECTS, BATCHES, HANGS = 50, 3, 26
"""Effects of an item, items, and the effects of the second item that have happened when the job hangs."""


def send(batch: int) -> None:
    """Do the effects of one item; the first execution to come to the second item hangs in its middle."""
    job = get_current_job()
    assert job is not None
    for number in range(EFFECTS):
        if batch == 1 and number == HANGS and job.connection.set(f"hung:{job.id}", os.getpid(), nx=True):
            job.connection.blpop([f"never:{job.id}"], PATIENCE)
        job.connection.rpush(f"done:{job.id}", batch * EFFECTS + number)


class Letters(IterationJob):
    """Saves after each item."""

    durability = every(items=1)

    def build_enumerator(self, *, cursor: Any) -> Enumerator[int]:
        """Go through the batches."""
        return items(range(BATCHES), cursor=cursor)

    def each_iteration(self, batch: int) -> None:
        """Send one batch."""
        send(batch)


class LettersOnStop(Letters):
    """Saves when it stops, so that a kill repeats all of an execution."""

    durability = on_stop()


class LettersInSteps(ContinuableJob):
    """The same in a step with a cursor."""

    durability = every(items=1)

    def perform(self) -> None:
        """Call the step."""
        self.step("send", start=0)

    def send(self, step: Step) -> None:
        """Send the batches after the cursor."""
        step.total = BATCHES
        while step.cursor < BATCHES:
            send(step.cursor)
            step.advance()


class LettersInWholeSteps(ContinuableJob):
    """A step for each batch, without a cursor; no save comes before the end."""

    durability = on_stop()

    def perform(self) -> None:
        """Call the steps."""
        self.step("first")
        self.step("second")
        self.step("third")

    def first(self) -> None:
        """Send a batch."""
        send(0)

    def second(self) -> None:
        """Send a batch, and hang."""
        send(1)

    def third(self) -> None:
        """Send a batch."""
        send(2)
