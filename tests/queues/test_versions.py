"""A job is interrupted under one version of its code and resumed under another: it works, or says what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness import ContinuableJob, Enumerator, InlineRun, IterationJob, Step, attribute, items, nested, times
from harness.errors import CorruptProgress, CursorError, HarnessError, InvalidStep, UnsupportedProgress
from harness.stops import AtStep, Every
from harness.stores.memory import MemoryStore
from tests.jobs import DONE


class Import(ContinuableJob):
    """Version 1: loads, then prices ten rows."""

    rejected = attribute(default=0)

    def perform(self) -> None:
        """Call the steps."""
        self.step("load")
        self.step("price", start=0)

    def load(self) -> None:
        """Load."""
        DONE.append("load")
        self.rejected = 2

    def price(self, step: Step) -> None:
        """Price the rows."""
        for row in range(step.cursor, 10):
            DONE.append(row)
            step.advance()


def deployed(new: type[Any], old: type[Any]) -> type[Any]:
    """Give a class the name of another: the next version of the same job."""
    new.__qualname__, new.__module__ = old.__qualname__, old.__module__
    return new


def interrupted(job: type[Any], *stops: Any) -> MemoryStore:
    """Return a store with a job that was interrupted."""
    store = MemoryStore()
    InlineRun(job, job_id="7", store=store, stops=stops).execute()
    return store


def resume(job: type[Any], store: MemoryStore) -> InlineRun:
    """Run the job to its end."""
    inline = InlineRun(job, job_id="7", store=store)
    inline.drain()
    return inline


def test_a_step_may_be_added_at_the_end(done: list[object]) -> None:
    """An added step runs after the others; new attributes have their default, the others keep their values."""

    class Version2(Import):
        skipped = attribute(default=7)

        def perform(self) -> None:
            super().perform()
            self.step("report")

        def report(self) -> None:
            DONE.append((self.rejected, self.skipped))

    store = interrupted(Import, AtStep("price", 4))
    resume(deployed(Version2, Import), store)
    assert done == ["load", *range(10), (2, 7)]


def test_an_attribute_may_go(done: list[object]) -> None:
    """The stored value of a removed attribute is ignored (C7)."""

    class Version2(ContinuableJob):
        perform, price = Import.perform, Import.price

        def load(self) -> None:
            raise AssertionError("completed before")

    store = interrupted(Import, AtStep("price", 4))
    resume(deployed(Version2, Import), store)
    assert done == ["load", *range(10)]


def renamed(self: Any) -> None:
    """Call the second step by another name."""
    self.step("load")
    self.step("set_prices", start=0)


def inserted(self: Any) -> None:
    """Call a new step between the two."""
    self.step("load")
    self.step("check")
    self.step("price", start=0)


def removed(self: Any) -> None:
    """Leave the first step out."""
    self.step("price", start=0)


@pytest.mark.parametrize(
    ("perform", "message"),
    [
        (renamed, "Step 'set_prices' found, expected to resume from 'price'"),
        (inserted, "Step 'check' found, expected to resume from 'price'"),
        (removed, "Step 'price' found, expected to see 'load'"),
    ],
)
def test_steps_that_no_longer_match_are_an_error_and_the_progress_is_kept(
    done: list[object], perform: Any, message: str
) -> None:
    """The error names what was found and what was expected, nothing is run, and the old version can still go on."""
    body = {"perform": perform, "set_prices": Import.price, "check": lambda self: None}
    store = interrupted(Import, AtStep("price", 4))
    with pytest.raises(InvalidStep, match=message):
        resume(deployed(type("Version2", (Import,), body), Import), store)
    progress = store.load("7")
    assert progress is not None
    assert (progress.completed, progress.step, progress.cursor) == (["load"], "price", 4)
    resume(Import, store)
    assert done == ["load", *range(10)]


class Mail(IterationJob):
    """Version 1: goes through a list."""

    def build_enumerator(self, *, cursor: Any) -> Enumerator[Any]:
        """Go through it."""
        return items(list("abcdef"), cursor=cursor)

    def each_iteration(self, item: Any) -> None:
        """Do one."""
        DONE.append(item)


def test_a_cursor_of_another_enumerator_is_refused(done: list[object]) -> None:
    """The error says what the new one resumes from; nothing is done, and the cursor is kept."""

    class Version2(Mail):
        def build_enumerator(self, *, cursor: Any) -> Enumerator[Any]:
            return nested([lambda cursor: times(3, cursor=cursor)] * 2, cursor=cursor)

    store = interrupted(Mail, Every(2))
    before = len(done)
    with pytest.raises(CursorError, match="resumes from a tuple of 2 elements or from None; got 1"):
        resume(deployed(Version2, Mail), store)
    assert len(done) == before
    resume(Mail, store)
    assert len(done) == 6


def test_progress_of_another_job_is_refused() -> None:
    """A renamed class, or an id that was used twice, is distinguished from a new version."""
    store = interrupted(Import, AtStep("price", 4))
    with pytest.raises(
        CorruptProgress, match=r"belongs to tests\.queues\.test_versions:Import, not to .*:Mail"
    ):
        resume(Mail, store)


def rewritten(store: MemoryStore, **changes: Any) -> None:
    """Have the stored progress as another version of this package wrote it."""
    progress = store.load("7")
    assert progress is not None
    data = json.loads(progress.to_json()) | changes
    data = {name: value for name, value in data.items() if value is not None}
    store._texts["7"] = json.dumps(data)


def test_progress_of_an_older_format_is_read(done: list[object]) -> None:
    """Missing fields get their defaults, and no earlier crash is assumed (C4)."""
    store = interrupted(Import, AtStep("price", 4))
    new = (
        "ended",
        "crashes",
        "crashes_in_a_row",
        "failures",
        "failure",
        "quarantined",
        "longest_gap_s",
        "id",
    )
    rewritten(store, **dict.fromkeys(new))
    inline = resume(Import, store)
    progress = inline.progress
    assert progress is not None
    assert (done, progress.crashes) == (["load", *range(10)], 0)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"version": 99}, UnsupportedProgress),
        ({"version": "one"}, CorruptProgress),
        ({"epoch": "3"}, CorruptProgress),
    ],
)
def test_progress_of_a_newer_format_is_refused_and_kept(changes: Any, error: type[HarnessError]) -> None:
    """Progress of a newer format is refused by name; a worker with the newer release can go on."""
    store = interrupted(Import, AtStep("price", 4))
    rewritten(store, **changes)
    before = store._texts["7"]
    with pytest.raises(error):
        resume(Import, store)
    assert store._texts["7"] == before
