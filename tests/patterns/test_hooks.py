"""Every hook, in every way an execution can end, whatever the hook does: the end is saved and nothing is repeated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from harness import (
    CancelJob,
    CompleteEarly,
    ContinuableJob,
    InlineRun,
    IterationJob,
    RetryLater,
    Step,
    attribute,
    events,
    items,
    on_stop,
    subscribe,
)
from harness.errors import CursorError, Interrupt, ResumeLimit, UsageError
from harness.progress import Progress
from harness.stops import CANCEL, PAUSE
from tests.jobs import Dead, raises

pytestmark = pytest.mark.usefixtures("form")

NUMBERS = 5
AT = 2
"""The number at which a job is ended, and how many are done before it."""


@dataclass
class Script:
    """Actions of a test's job at its items and hooks, and the record of them."""

    at: dict[int, Callable[[], object]] = field(default_factory=dict)
    hooks: dict[str, Callable[[], object]] = field(default_factory=dict)
    told: list[Any] = field(default_factory=list)

    @property
    def done(self) -> list[int]:
        """The numbers done."""
        return [each for each in self.told if type(each) is int]

    def do(self, number: int) -> None:
        """Do a number, or what is to happen there."""
        self.at.get(number, int)()
        self.told.append(number)

    def hook(self, name: str) -> None:
        """Run a hook."""
        self.told.append(name)
        self.hooks.get(name, int)()


class Hooks:
    """All hooks of both patterns, as the script says."""

    script: ClassVar[Script]
    durability = on_stop()
    kept = attribute(default=0)

    def on_start(self) -> None:
        """Follow the script."""
        self.script.hook("on_start")

    def on_resume(self) -> None:
        """Follow the script."""
        self.script.hook("on_resume")

    def on_shutdown(self) -> None:
        """Follow the script."""
        self.script.hook("on_shutdown")

    def on_complete(self) -> None:
        """Follow the script."""
        self.script.hook("on_complete")

    def on_cancel(self) -> None:
        """Follow the script."""
        self.script.hook("on_cancel")

    def on_error(self, error: Exception) -> None:
        """Follow the script."""
        self.script.told.append(type(error))
        self.script.hook("on_error")


class ByIteration(Hooks, IterationJob):
    """Does numbers, one item each."""

    def build_enumerator(self, *, cursor: Any) -> Any:
        """Go through the numbers."""
        return items(range(NUMBERS), cursor=cursor)

    def each_iteration(self, item: int) -> None:
        """Do one."""
        self.script.do(item)


class InSteps(Hooks, ContinuableJob):
    """Does numbers in a step."""

    def perform(self) -> None:
        """Call the step."""
        self.step("count", start=0)

    def count(self, step: Step) -> None:
        """Do them."""
        for number in range(step.cursor, NUMBERS):
            self.script.do(number)
            step.advance()


PATTERNS: list[Any] = [ByIteration, InSteps]


@dataclass(frozen=True)
class Ending:
    """A way for an execution to end.

    :ivar outcome: of the execution, or the error that it raises. :ivar state: what is stored.
    :ivar hooks: those of the end that run.
    """

    outcome: Any
    state: str
    hooks: tuple[str, ...]
    at: Callable[[], BaseException] | None = None
    stop: Any = None
    policy: dict[str, Any] = field(default_factory=dict)


def at_two(answer: str) -> Callable[[Any], str | None]:
    """Return a stop source that answers once."""
    asked = list[None]()

    def source(position: Any) -> str | None:
        if position.done != AT or asked:
            return None
        asked.append(None)
        return answer

    return source


ENDINGS = {
    "completed": Ending("completed", "completed", ("on_shutdown",)),
    "completed early": Ending("completed", "completed", ("on_shutdown",), CompleteEarly),
    "interrupted": Ending("interrupted", "interrupted", ("on_shutdown",), stop="deploy"),
    "later": Ending("interrupted", "interrupted", ("on_shutdown",), lambda: RetryLater(7)),
    "paused": Ending("paused", "paused", ("on_shutdown",), stop=PAUSE),
    "cancelled": Ending("cancelled", "cancelled", ("on_shutdown", "on_cancel"), stop=CANCEL),
    "cancelled by itself": Ending("cancelled", "cancelled", ("on_shutdown", "on_cancel"), CancelJob),
    "resumed": Ending("interrupted", "interrupted", ("on_error",), lambda: ValueError("no")),
    "failed": Ending(
        ValueError, "failed", ("on_error",), lambda: ValueError("no"),
        policy={"resume_errors_after_advancing": False},
    ),
    "own error": Ending(CursorError, "failed", ("on_error",), CursorError),
    "limit": Ending(ResumeLimit, "failed", ("on_error",), stop="deploy", policy={"max_resumptions": 0}),
    "error at the limit": Ending(
        ResumeLimit, "failed", ("on_error",), lambda: ValueError("no"), policy={"max_resumptions": 0}
    ),
}  # fmt: skip

ACTS: dict[str, Callable[[], BaseException] | None] = {
    "returns": None,
    "error": lambda: KeyError("hook"),
    "own error": lambda: UsageError("hook"),
    "CompleteEarly": CompleteEarly,
    "CancelJob": CancelJob,
    "RetryLater": lambda: RetryLater(9),
    "Interrupt": Interrupt,
    "SystemExit": SystemExit,
    "KeyboardInterrupt": KeyboardInterrupt,
}
EXITS = (SystemExit, KeyboardInterrupt)


class Case:
    """A job in a test, run one execution at a time."""

    def __init__(self, pattern: Any, ending: Ending, **hooks: str) -> None:
        self.script = script = Script()
        if ending.at is not None:
            script.at[AT] = raises(ending.at())
        script.hooks = {name: raises(made()) for name, act in hooks.items() if (made := ACTS[act])}
        job = type("Job", (pattern,), {"script": script, **ending.policy})
        stops = [at_two(ending.stop)] if ending.stop else []
        self.inline = InlineRun(job, stops=stops, job_id="7")
        self.seen: list[events.Event] = []

    @property
    def stored(self) -> Progress:
        """The stored progress."""
        progress = self.inline.progress
        assert progress is not None
        return progress

    def execute(self) -> Any:
        """Run one execution; return its outcome, or the type that it raised."""
        with subscribe(self.seen.append):
            try:
                return self.inline.execute().outcome
            except (Exception, *EXITS) as error:  # noqa: BLE001 - what it raises is what is looked at
                return type(error)

    def finish(self) -> None:
        """Run executions until no other is due."""
        for _ in range(5):
            if self.stored.state in {"completed", "cancelled"}:
                return
            self.execute()
        raise AssertionError("it never ends")

    def failed_hooks(self) -> list[events.HookFailed]:
        """Return the events of failed hooks."""
        return [event for event in self.seen if isinstance(event, events.HookFailed)]

    def check_saved(self) -> None:
        """Check that the end was saved with all that was done, and that nothing looks like a crash."""
        stored = self.stored
        assert (stored.ended, stored.crashes) == (stored.epoch, 0)
        assert stored.done == len(self.script.done)

    def check_finished(self, *, partly: bool = False) -> None:
        """Run on to the end, and check that each number was done once; if *partly*, that none was repeated."""
        self.finish()
        done = self.script.done
        assert done == list(range(len(done)))
        assert partly or len(done) == NUMBERS
        self.check_saved()
        assert not any(isinstance(event, events.CrashNoticed) for event in self.seen)


# Hooks of the end.


@pytest.mark.pairwise
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(
    ("name", "hook"), [(name, hook) for name, ending in ENDINGS.items() for hook in ending.hooks]
)
def test_a_hook_of_the_end_changes_nothing(
    pattern: Any, name: str, hook: str, act: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The execution ended as it did and is saved; an error and a control exception become an event and a traceback."""
    ending, made = ENDINGS[name], ACTS[act]
    case = Case(pattern, ending, **{hook: act})
    with caplog.at_level(logging.ERROR, logger="harness"):
        outcome = case.execute()
    exits = made is not None and issubclass(type(made()), EXITS)
    in_work = exits and name.startswith("completed")  # on_complete is still to come
    assert outcome == (type(made()) if exits and made else ending.outcome)
    assert case.stored.state == ("failed" if in_work else ending.state)
    case.check_saved()
    told = [event.hook for event in case.failed_hooks()]
    assert told == ([] if made is None or exits else [hook])
    lines = [record for record in caplog.records if f"{hook} failed" in record.getMessage()]
    assert [bool(record.exc_info) for record in lines] == [True] * len(told)
    if not exits:
        assert [each for each in case.script.told if each in ending.hooks][: len(ending.hooks)] == list(
            ending.hooks
        )
    case.check_finished(partly=ending.outcome == "cancelled" or name == "completed early")


def test_a_control_exception_after_the_end_is_refused_by_name() -> None:
    """The event says what raised what, and where it may be raised."""
    case = Case(ByIteration, ENDINGS["interrupted"], on_shutdown="RetryLater")
    case.execute()
    (event,) = case.failed_hooks()
    assert "on_shutdown raised RetryLater, but the execution has ended (interrupted)" in str(event.error)
    assert isinstance(event.error.__cause__, RetryLater)


# Hooks of the work.

OUTCOMES: dict[str, Any] = {
    "returns": "completed", "error": KeyError, "own error": UsageError, "CompleteEarly": "completed",
    "CancelJob": "cancelled", "RetryLater": "interrupted", "Interrupt": "interrupted",
    "SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt,
}  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("hook", ["on_start", "on_resume", "on_complete"])
def test_a_hook_of_the_work_is_work(pattern: Any, hook: str, act: str) -> None:
    """Its errors end the execution and its control exceptions do what they say; the end is saved all the same."""
    case = Case(pattern, ENDINGS["interrupted" if hook == "on_resume" else "completed"], **{hook: act})
    if hook == "on_resume":
        assert case.execute() == "interrupted"
    resumed = (hook, act) == ("on_complete", "error")  # as any error of an execution that had advanced
    assert case.execute() == ("interrupted" if resumed else OUTCOMES[act])
    case.check_saved()
    assert case.failed_hooks() == []
    case.check_finished(partly=act in {"CancelJob", "CompleteEarly"})
    told = case.script.told
    cancelled = act == "CancelJob"
    assert told.count("on_complete") == (
        1 if act in {"returns", "CompleteEarly"} else 2 if hook == "on_complete" else 1
    ) - (cancelled and 1)
    again = hook == "on_start" and act not in {"returns", "CompleteEarly", "CancelJob"}
    assert told.count("on_start") == 1 + again


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("ending", ["completed", "completed early"])
def test_when_all_is_done_on_complete_alone_is_run_again(pattern: Any, ending: str) -> None:
    """After an error or a crash in it no item is done, though there may be more by then."""
    for error in (KeyError("hook"), Dead()):
        case = Case(pattern, ENDINGS[ending])
        case.script.hooks["on_complete"] = raises(error)
        if isinstance(error, Dead):
            with pytest.raises(Dead):
                case.execute()
        else:
            case.execute()
        before = case.script.done
        assert case.stored.all_done
        case.script.told.clear()
        assert case.execute() == "completed"
        assert before == list(range(NUMBERS if ending == "completed" else AT))
        assert case.script.told == ["on_resume", "on_shutdown", "on_complete"]


def test_on_complete_finds_what_around_iterate_and_perform_set_up() -> None:
    """on_complete finds that setup even in an execution that has nothing else to do."""

    class Iterating(ByIteration):
        @contextmanager
        def around_iterate(self) -> Iterator[None]:
            self.client = "client"
            yield

        def on_complete(self) -> None:
            self.script.hook("on_complete")
            self.script.told.append(self.client)

    class Stepping(InSteps):
        def perform(self) -> None:
            self.client = "client"
            super().perform()

        def on_complete(self) -> None:
            self.script.hook("on_complete")
            self.script.told.append(self.client)

    for pattern in (Iterating, Stepping):
        case = Case(pattern, ENDINGS["completed"], on_complete="RetryLater")
        assert case.execute() == "interrupted"
        case.check_finished()
        assert case.script.told[-1] == "client"


@pytest.mark.parametrize("act", ACTS)
def test_a_hook_of_the_quarantine(act: str) -> None:
    """The item stays set aside and is not reported again; an error is an event, a control exception is obeyed."""

    class Job(ByIteration):
        quarantine = True
        max_item_failures = 1

        def on_quarantine(self, item: int, error: str) -> None:
            self.script.hook("on_quarantine")

    case = Case(Job, Ending("", "", (), policy={}), on_quarantine=act)
    case.script.at[AT] = raises(ValueError("poison"), times=9)
    assert [case.execute() for _ in range(2)] == ["interrupted", "interrupted"]
    expected = OUTCOMES[act] if act not in {"error", "own error"} else "completed"
    assert case.execute() == expected
    assert [event.hook for event in case.failed_hooks()] == ["on_quarantine"] * (
        act in {"error", "own error"}
    )
    case.check_saved()
    case.finish()
    rest = [] if act in {"CancelJob", "CompleteEarly"} else [3, 4]
    assert case.script.done == [0, 1, *rest]
    assert case.script.told.count("on_quarantine") == 1
    assert (case.stored.crashes, len(case.stored.quarantined)) == (0, 1)


# What a hook leaves behind.
