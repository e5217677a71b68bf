"""Contents and times of the saves of a job."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from harness import ContinuableJob, InlineRun, Step, every, run
from harness.errors import CheckpointInTransaction
from harness.stops import AtStep, Every
from harness.stores.memory import MemoryStore
from tests.jobs import CountInSteps

pytestmark = pytest.mark.usefixtures("form")


def test_durability_by_items_saves_on_the_way() -> None:
    """Stored progress is never more than the given number of items behind."""
    stored = []
    store = MemoryStore()

    class Watched(ContinuableJob):
        durability = every(items=3)

        def perform(self) -> None:
            @self.step("count", start=0)
            def count(step: Step) -> None:
                for _ in range(7):
                    step.advance()
                    progress = store.load("7")
                    stored.append(progress.cursor if progress else None)

    InlineRun(Watched, job_id="7", store=store).execute()
    assert stored == [None, None, 3, 3, 3, 6, 6]


def test_durability_by_time_saves_on_the_way() -> None:
    """Stored progress is never more than the given number of seconds behind."""
    now, stored, store = [0.0], [], MemoryStore()

    class Watched(ContinuableJob):
        durability = every(seconds=1)

        def perform(self) -> None:
            @self.step("count", start=0)
            def count(step: Step) -> None:
                for _ in range(6):
                    now[0] += 0.4
                    step.advance()
                    progress = store.load("7")
                    stored.append(progress.cursor if progress else None)

    InlineRun(Watched, job_id="7", store=store, clock=lambda: now[0]).execute()
    assert stored == [None, None, 3, 3, 3, 6]


def test_progress_does_not_grow_with_interruptions() -> None:
    """A thousand interruptions leave it as large as one, but for the digits of its counts (C26)."""
    few = InlineRun(CountInSteps, 1_000, stops=[AtStep("count", 999)])
    many = InlineRun(CountInSteps, 1_000, stops=[Every(1)])
    sizes = [
        max(len(each.progress.to_json()) for _ in each.executions() if each.progress) for each in (few, many)
    ]
    digits = 3 * len("999")  # of the epoch, the resumptions and the interruptions
    assert sizes[1] - sizes[0] <= digits


def test_a_checkpoint_in_an_open_transaction_is_refused() -> None:
    """A checkpoint there is refused because the work may be rolled back; the error names the way out (C20)."""
    engine = create_engine("sqlite://")

    class Forgets(ContinuableJob):
        commits = False

        def perform(self) -> None:
            with Session(engine) as self.session:
                self.step("count", start=0)

        def count(self, step: Step) -> None:
            self.session.execute(text("SELECT 1"))
            if self.commits:
                self.session.commit()
            step.advance()

    with pytest.raises(
        CheckpointInTransaction, match=r"inside an open transaction.*commit before the checkpoint"
    ):
        run(Forgets)
    assert run(type("Commits", (Forgets,), {"commits": True})).state == "completed"
    engine.dispose()
