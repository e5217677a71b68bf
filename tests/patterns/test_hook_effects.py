"""Effects of hooks: attributes that they set, errors and reasons that reach them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from harness import (
    CancelJob,
    CollectionChanged,
    InlineRun,
    IterationJob,
    RetryLater,
    attribute,
    events,
    items,
    subscribe,
)
from harness.errors import CursorError, ResumeLimit
from harness.runtime.ends import Ended
from harness.stops import Count, Every
from harness.stores.memory import MemoryStore
from tests.jobs import Dead, raises
from tests.patterns.test_hooks import AT, ENDINGS, PATTERNS, ByIteration, Case, Ending, Hooks, InSteps, Script

pytestmark = pytest.mark.usefixtures("form")


def hooked(hook: Callable[[Any], object]) -> tuple[Any, InlineRun]:
    """Return a job that is interrupted once and does this at its first shutdown."""

    class Job(ByIteration):
        script = Script()

        def on_shutdown(self) -> None:
            if not self.script.told.count("hook"):
                self.script.told.append("hook")
                hook(self)

    return Job, InlineRun(Job, stops=[Count(AT)])


def test_attributes_that_a_hook_sets_are_kept() -> None:
    """Attributes that a hook sets are stored in a second save after the hook."""

    def count(job: Any) -> None:
        job.kept += 5

    _, inline = hooked(count)
    inline.execute()
    progress = inline.progress
    assert progress is not None
    assert (progress.attributes, progress.state) == ({"kept": 5}, "interrupted")


def test_attributes_that_a_failing_hook_sets_are_taken_back() -> None:
    """They are restored even if JSON cannot hold them, since they would break every later save."""

    def spoil(job: Any) -> None:
        job.kept += 5
        job.__dict__["_attributes"]["kept"] = {1, 2}

    _, inline = hooked(spoil)
    with subscribe((seen := list[Any]()).append, events.HookFailed):
        ended = inline.drain()
    assert [each.outcome for each in ended] == ["interrupted", "completed"]
    assert isinstance(seen[0].error, CursorError)
    progress = inline.progress
    assert progress is not None
    assert progress.attributes == {}


@pytest.mark.parametrize("hook", ["on_shutdown", "on_complete", "on_error"])
def test_who_was_superseded_ends_without_a_word(hook: str) -> None:
    """A superseded execution saves nothing more, wherever it detects this, and even if a hook fails."""
    store = MemoryStore()

    def taken_over(job: Any, *_: object) -> None:
        store.claim("7")
        job.kept += 1

    class Job(ByIteration):
        script = Script()

        def each_iteration(self, item: int) -> None:
            if hook == "on_error" and item == AT:
                raise ValueError

    setattr(Job, hook, taken_over)
    assert InlineRun(Job, job_id="7", store=store).execute() == Ended("superseded")
    progress = store.load("7")
    assert progress is not None
    assert (progress.epoch, progress.attributes) == (2, {} if hook == "on_shutdown" else progress.attributes)


# What else is the author's, around an end.


class Unprintable(ValueError):
    """An error without a text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_an_error_that_cannot_be_shown_is_an_error_all_the_same(pattern: Any) -> None:
    """Its type is kept."""
    case = Case(pattern, Ending("interrupted", "interrupted", ("on_error",), Unprintable))
    assert case.execute() == "interrupted"
    assert case.stored.reason == "Unprintable: (its message cannot be shown: RuntimeError)"
    case.check_saved()
    case.check_finished()


def test_what_cannot_be_stored_fails_at_the_place_that_can() -> None:
    """The items since the latest save are repeated; no crash is counted, and on_error gets the error."""

    class Spoils(ByIteration):
        script = Script()
        kept: Any = attribute(default=[])

        def each_iteration(self, item: int) -> None:
            super().each_iteration(item)
            if item == AT and len(self.script.done) == AT + 1:
                self.kept.append(object())

    inline = InlineRun(Spoils, stops=[Count(AT + 1)])
    with pytest.raises(CursorError):
        inline.execute()
    progress = inline.progress
    assert progress is not None
    assert (progress.state, progress.done, progress.ended) == ("failed", 0, progress.epoch)
    assert CursorError in Spoils.script.told
    inline.drain()
    assert Spoils.script.done == [0, 1, 2, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("ends", [KeyError("hook"), RetryLater(1), Dead()], ids=repr)
def test_an_execution_that_ends_before_its_work_keeps_the_proof(ends: BaseException) -> None:
    """A change of finished items is detected later, even after a detected crash."""
    letters = list("abcd")

    class Letters(Hooks, IterationJob):
        script = Script(hooks={"on_resume": raises(ends)})

        def build_enumerator(self, *, cursor: Any) -> Any:
            return items(letters, cursor=cursor)

        def each_iteration(self, item: str) -> None:
            """Do nothing."""

    inline = InlineRun(Letters, stops=[Count(2)])
    inline.execute()
    with suppress(KeyError, Dead):
        inline.execute()
    letters[0] = "z"
    with pytest.raises(CollectionChanged):
        inline.execute()


def test_a_reason_is_stored_as_text() -> None:
    """The progress can be read again, whatever reason should_stop and control exceptions give."""

    class Odd(ByIteration):
        script = Script()

        def should_stop(self) -> Any:
            return 404 if self.execution.done == 1 else None

    Odd.script.at[AT] = raises(RetryLater(1, reason=503))  # type: ignore[arg-type]
    assert [each.reason for each in InlineRun(Odd).drain()] == ["404", "503", None]


def test_on_error_hears_of_both_at_the_limit() -> None:
    """on_error gets the error that is no longer resumed, and then ResumeLimit, which has that error as its cause."""
    case = Case(ByIteration, ENDINGS["error at the limit"])
    with pytest.raises(ResumeLimit) as raised:
        case.inline.execute()
    assert isinstance(raised.value.__cause__, ValueError)
    assert [each for each in case.script.told if isinstance(each, type)] == [ValueError, ResumeLimit]


def test_on_error_hears_of_progress_that_cannot_be_used() -> None:
    """Progress of another job reaches on_error and is left as it is; the claim is no crash of that job."""
    store = MemoryStore()
    InlineRun(InStepsOf, job_id="7", store=store, stops=[Every(1)]).execute()
    case = Case(ByIteration, ENDINGS["completed"])
    case.inline.store = store
    assert case.execute().__name__ == "CorruptProgress"
    assert [each.__name__ for each in case.script.told if isinstance(each, type)] == ["CorruptProgress"]
    progress = store.load("7")
    assert progress is not None
    assert (progress.done, progress.ended, progress.crashes) == (1, progress.epoch, 0)


class InStepsOf(InSteps):
    """A job of another class."""

    script = Script()


def test_a_subscriber_changes_nothing() -> None:
    """Neither an error nor a control exception of a subscriber changes the job."""
    case = Case(ByIteration, ENDINGS["completed"])

    def refuse(event: events.Event) -> None:
        raise CancelJob if isinstance(event, events.JobStarted) else KeyError

    with subscribe(refuse):
        case.execute()
    case.check_finished()
    assert case.stored.state == "completed"
