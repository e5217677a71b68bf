"""Crashes and items that keep failing: detected, counted, and given up in the end."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from harness import InlineRun, events, every, run, subscribe
from harness.errors import CrashLimit, QuarantineFull
from harness.progress import Progress
from tests.jobs import DONE, CountByIteration, Dead, Told, raises, told

# Deaths.


class Dying(CountByIteration):
    """Crashes at an item, again and again."""

    durability = every(items=1)
    max_crashes = 2
    at = 3

    def each_iteration(self, item: int, numbers: int) -> None:
        """Do the item or crash."""
        if item == self.at:
            raise Dead
        super().each_iteration(item, numbers)


def die(inline: InlineRun, times: int = 1) -> None:
    """Let *times* executions crash."""
    for _ in range(times):
        with pytest.raises(Dead):
            inline.execute()


def stored(inline: InlineRun) -> Progress:
    """Return the stored progress."""
    progress = inline.progress
    assert progress is not None
    return progress


def test_deaths_are_noticed_and_counted(done: list[object]) -> None:
    """The next execution detects one that never ended, and goes on at the saved cursor."""
    inline, seen = InlineRun(Dying, 5), list[Any]()
    die(inline)
    with subscribe(seen.append):
        die(inline)
    crashes = [event for event in seen if isinstance(event, events.CrashNoticed)]
    assert [(event.crashes_in_a_row, event.description) for event in crashes] == [
        (1, "at 'each_iteration', cursor 2")
    ]
    assert (stored(inline).crashes, done) == (1, [0, 1, 2])


def test_a_job_that_only_ever_dies_fails_in_the_end(done: list[object]) -> None:
    """After max_crashes in a row the job is not tried again; its progress is kept, and a new enqueue may resume it."""
    inline = InlineRun(Dying, 5)
    die(inline, 3)
    with pytest.raises(CrashLimit, match="crashed 3 times at 'each_iteration', cursor 2 without progress"):
        inline.execute()
    progress = stored(inline)
    assert (progress.state, progress.cursor, progress.crashes) == ("failed", 2, 3)
    die(inline)
    assert done == [0, 1, 2]


def test_deaths_in_a_row_are_forgotten_when_the_job_gets_on(done: list[object]) -> None:
    """A job that does an item between two crashes counts as making progress."""

    class Unlucky(Dying):
        def each_iteration(self, item: int, numbers: int) -> None:
            if DONE.count("died") < item:
                DONE.append("died")
                raise Dead
            DONE.append(item)

    inline = InlineRun(Unlucky, 8)
    die(inline, 7)
    assert inline.drain()[-1].outcome == "completed"
    assert [item for item in done if item != "died"] == list(range(8))
    assert (stored(inline).crashes, stored(inline).crashes_in_a_row) == (7, 0)


# Quarantine.


class Quarantining(Told):
    """Sets items aside after two failures."""

    quarantine = True
    max_item_failures = 2

    def on_quarantine(self, item: int, error: str) -> None:
        """Record the item."""
        DONE.append(f"aside {item}")


def test_an_item_that_keeps_failing_is_set_aside(done: list[object]) -> None:
    """The item is set aside and reported with its error; the job continues, and does everything else once (M7)."""

    class Job(Quarantining):
        at: ClassVar[Any] = {
            2: raises(ValueError("poison"), times=99),
            4: raises(ValueError("hiccup"), times=2),
        }

    seen = list[Any]()
    with subscribe(seen.append):
        progress = run(Job, 6)
    assert [item for item in done if type(item) is int] == [0, 1, 3, 4, 5]
    assert [(each.cursor, each.failures, each.error) for each in progress.quarantined] == [
        (2, 3, "ValueError: poison")
    ]
    assert [event.cursor for event in seen if isinstance(event, events.ItemQuarantined)] == [2]
    assert done.count("aside 2") == 1
    assert (progress.state, progress.done, progress.errors) == ("completed", 5, 5)


def test_an_item_that_kills_its_worker_is_set_aside(done: list[object]) -> None:
    """After a crash each item is saved, under any durability, until it is known which item was the cause."""

    class Job(Dying):
        durability = every(seconds=1000)
        quarantine = True
        max_item_failures = 2
        max_crashes = 10

    inline = InlineRun(Job, 6)
    die(inline, 4)
    inline.drain()
    assert done == [0, 1, 2, 0, 1, 2, 4, 5]
    assert [(each.cursor, each.error) for each in stored(inline).quarantined] == [(3, "its worker died")]


def test_quarantine_is_not_for_everything(done: list[object]) -> None:
    """If very many items fail, the items are not the cause, and the job fails."""

    class Job(Quarantining):
        max_item_failures = 0
        max_quarantined = 3

        def each_iteration(self, item: int, numbers: int) -> None:
            raise ConnectionError("no database")

    inline = InlineRun(Job, 10)
    with pytest.raises(QuarantineFull, match=r"has set 3 items aside .* ConnectionError: no database"):
        inline.drain()
    assert len(stored(inline).quarantined) == 3


def test_by_default_nothing_is_set_aside(done: list[object]) -> None:
    """An item that keeps failing fails the job, with the cursor of the last success (I12)."""
    inline = InlineRun(told(i2=raises(ValueError("poison"), times=99)), 4)
    with pytest.raises(ValueError, match="poison"):
        inline.drain()
    assert (stored(inline).state, stored(inline).cursor) == ("failed", 1)
