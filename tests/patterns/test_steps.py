"""Pattern 1: named steps, each with a cursor."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from harness import ContinuableJob, InlineRun, Step, attribute, events, run, subscribe
from harness.errors import CursorError, InvalidStep, JobDefinitionError, UnadvanceableCursor
from harness.stops import AfterStep, AtStep, Every
from harness.stores.memory import MemoryStore
from tests import jobs
from tests.jobs import CountInSteps

pytestmark = pytest.mark.usefixtures("form")


def test_a_job_runs_its_steps_in_order(done: list[object]) -> None:
    """Without an interruption the job is a method that calls methods."""
    progress = run(CountInSteps, 3)
    assert done == ["load", 0, 1, 2, "finish"]
    assert (progress.state, progress.completed) == ("completed", ["load", "count", "finish"])
    assert (progress.done, progress.total, progress.attributes) == (3, 3, {"last": 2})


@pytest.mark.parametrize("chunk", [1, 2, 7, 10])
def test_interrupted_anywhere_it_does_everything_once(done: list[object], chunk: int) -> None:
    """Completed steps are skipped, the one in progress goes on at its cursor (C8)."""
    inline = InlineRun(CountInSteps, 10, stops=[Every(chunk)])
    ended = inline.drain()
    assert done == ["load", *range(10), "finish"]
    assert [each.outcome for each in ended] == ["interrupted"] * (10 // chunk) + ["completed"]
    assert {each.reason for each in ended[:-1]} <= {f"every:{chunk}"}


def test_there_is_a_checkpoint_between_steps_once_something_advanced(done: list[object]) -> None:
    """A stop after a step happens before the next begins; there is none after the last (C19)."""
    inline = InlineRun(CountInSteps, 3, stops=[AfterStep("load")])
    assert inline.execute().reason == "after-step:load"
    assert done == ["load"]
    assert [each.outcome for each in InlineRun(CountInSteps, 3, stops=[AfterStep("finish")]).drain()] == [
        "completed"
    ]


class Invalid(ContinuableJob):
    """Calls the steps of the plan that it gets."""

    def perform(self, plan: list[str]) -> None:
        """Call the steps of the plan, by name or by what the name stands for."""
        for name in plan:
            if name == "stop":
                self.execution.interrupt("test")
            elif name == "nested":

                @self.step("outer")
                def outer(step: Step) -> None:
                    del step
                    self.step("a")

            elif name == "count":

                @self.step("count", start=0)
                def count(step: Step) -> None:
                    step.advance()

            elif name == "number":
                self.step(3)  # type: ignore[call-overload]  # the mistake under test
            else:
                self.step(name)

    def a(self) -> None:
        """Do nothing."""

    def b(self) -> None:
        """Do nothing."""

    def three(self, one: int, two: int, three: int) -> None:
        """Take too much."""

    def keyword(self, *, step: Step) -> None:
        """Take it by keyword only."""


@pytest.mark.parametrize(
    ("plan", "error", "message"),
    [
        (["number"], InvalidStep, "Step 3 must be a str or a function; got 'int'"),
        (["a", "a"], InvalidStep, "Step 'a' has already been encountered"),
        (["nested"], InvalidStep, "Step 'a' is nested inside step 'outer'"),
        (["three"], JobDefinitionError, "Step method 'three' must accept 0 or 1 arguments"),
        (["keyword"], JobDefinitionError, "Step method 'keyword' must not accept keyword-only arguments"),
        (["missing"], InvalidStep, "Step 'missing' is not a method of Invalid, and no function follows it"),
        (
            ["missing", "a"],
            InvalidStep,
            "Step 'missing' is not a method of Invalid, and no function follows it",
        ),
    ],
)
def test_steps_that_cannot_be_right_are_refused(
    plan: list[str], error: type[Exception], message: str
) -> None:
    """Each mistake has an error that names both sides (C9, C11)."""
    with pytest.raises(error, match=message):
        run(Invalid, plan)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (["a", "b", "stop"], ["b", "a"], "Step 'b' found, expected to see 'a'"),
        (["a", "b", "stop"], ["a"], "perform ended without step 'b', which an earlier execution completed"),
        (["a", "stop"], [], "perform ended without step 'a', which an earlier execution completed"),
    ],
)
def test_a_resumed_run_must_meet_the_steps_it_completed(
    before: list[str], after: list[str], message: str
) -> None:
    """Reordered and dropped steps are errors, never a silent finish (C11, C12)."""
    store = MemoryStore()
    assert InlineRun(Invalid, before, job_id="7", store=store).execute().outcome == "interrupted"
    with pytest.raises(InvalidStep, match=message):
        InlineRun(Invalid, after, job_id="7", store=store).execute()
    progress = store.load("7")
    assert progress is not None
    assert progress.completed == before[:-1]


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (["b"], "Step 'b' found, expected to resume from 'count'"),
        (["count"], "Step 'count' found, expected to see 'a'"),
        (["a", "b"], "Step 'b' found, expected to resume from 'count'"),
        (["a"], "perform ended without step 'count', which is in progress at 'count', cursor 1"),
    ],
)
def test_a_step_in_progress_is_expected_after_those_completed(after: list[str], message: str) -> None:
    """An unknown step is held against the one in progress, a known one against its place (C11)."""
    store = MemoryStore()
    InlineRun(Invalid, ["a", "count"], job_id="7", store=store, stops=[Every(1)]).execute()
    with pytest.raises(InvalidStep, match=message):
        InlineRun(Invalid, after, job_id="7", store=store).execute()


class Renamed(ContinuableJob):
    """Has its step under another name in each release."""

    release = 1

    def perform(self) -> None:
        """Call the step of this release, or none."""
        if self.release < 3:
            name = "old" if self.release == 1 else "new"

            @self.step(name, start=0)
            def count(step: Step) -> None:
                step.advance()


@pytest.mark.parametrize(
    ("release", "message"),
    [
        (2, "Step 'new' found, expected to resume from 'old'"),
        (3, "perform ended without step 'old', which is in progress"),
    ],
)
def test_a_resumed_run_must_reach_its_step_in_progress(
    monkeypatch: pytest.MonkeyPatch, release: int, message: str
) -> None:
    """A step that a new release renames or drops is an error, and the progress is kept (C12)."""
    inline = InlineRun(Renamed, stops=[Every(1)])
    inline.execute()
    monkeypatch.setattr(Renamed, "release", release)
    with pytest.raises(InvalidStep, match=message):
        inline.execute()
    assert inline.progress is not None
    assert (inline.progress.step, inline.progress.cursor) == ("old", 1)


class Isolated(ContinuableJob):
    """Gives its second step an execution of its own."""

    def perform(self) -> None:
        """Call four steps."""
        for name in "abcd":

            @self.step(name, isolated=name == "b")
            def step() -> None:
                jobs.DONE.append(name)  # noqa: B023 - runs immediately


def test_isolated_steps_have_an_execution_of_their_own(done: list[object]) -> None:
    """The job is interrupted before the isolated step and before the one after it (C30)."""
    inline = InlineRun(Isolated)
    seen = []
    for ended in inline.executions():
        seen.append((ended.reason, list(done)))
        done.clear()
    assert seen == [("isolating", ["a"]), ("isolating", ["b"]), (None, ["c", "d"])]


def test_a_method_and_a_function_of_one_name_are_refused() -> None:
    """A name that is a method runs it; what is decorated with it then would run never."""

    class Both(ContinuableJob):
        def perform(self) -> None:
            @self.step("load")
            def load() -> None: ...

        def load(self) -> None: ...

    with pytest.raises(InvalidStep, match="rename the method or the decorated function 'load'"):
        run(Both)


def test_advance_without_a_start_says_what_to_do() -> None:
    """None has no successor (C16)."""

    class NoStart(ContinuableJob):
        def perform(self) -> None:
            @self.step
            def count(step: Step) -> None:
                step.advance()

    with pytest.raises(UnadvanceableCursor, match="start the step at"):
        run(NoStart)


def test_advance_from_skips() -> None:
    """The cursor becomes the successor of what is given (C15)."""
    seen = []

    class From(ContinuableJob):
        def perform(self) -> None:
            @self.step("ids", start=0)
            def ids(step: Step) -> None:
                step.advance(from_=41)
                seen.append((step.cursor, step.advanced, step.resumed, step.description))

    run(From)
    assert seen == [(42, True, False, "at 'ids', cursor 42")]


def test_attributes_outlive_executions_and_have_their_own_defaults() -> None:
    """A mutable default is not shared between jobs (C7)."""

    class Collects(ContinuableJob):
        seen: attribute[list[int]] = attribute(default=[])

        def perform(self) -> None:
            @self.step("count", start=0)
            def count(step: Step) -> None:
                for number in range(step.cursor, 3):
                    self.seen.append(number)
                    step.advance()

    for _ in range(2):
        assert run(Collects, stops=[Every(1)]).attributes == {"seen": [0, 1, 2]}


def test_attributes_are_checked_when_they_are_set() -> None:
    """A wrong type and a value that would not come back are refused where they are set, not when they are saved."""
    job = CountInSteps()
    with pytest.raises(
        JobDefinitionError, match=r"attribute CountInSteps\.last takes int; got 'x' of type str"
    ):
        job.last = "x"  # type: ignore[assignment]
    with pytest.raises(CursorError, match=r"attribute CountInSteps\.kept\[1\]: builtins\.set"):
        job.kept = [0, {1}]  # type: ignore[list-item]


def test_mistakes_in_a_class_fail_when_it_is_defined() -> None:
    """A mistake fails when the class is defined, not at the first interruption in production."""
    with pytest.raises(JobDefinitionError, match="must define perform"):
        type("Nothing", (ContinuableJob,), {})
    with pytest.raises(JobDefinitionError, match=r"attribute Hides\.step hides ContinuableJob\.step"):
        type("Hides", (ContinuableJob,), {"perform": lambda self: None, "step": attribute(default=1)})
    with pytest.raises(JobDefinitionError, match="takes on_stop"):
        type("Odd", (ContinuableJob,), {"perform": lambda self: None, "durability": "often"})
    # Python 3.11 wraps what __set_name__ raises, later ones do not.
    with pytest.raises((JobDefinitionError, RuntimeError)):
        type(
            "Typed", (ContinuableJob,), {"perform": lambda self: None, "n": attribute(default="x", type=int)}
        )


def test_events_come_in_the_originals_order() -> None:
    """Started, interrupted job, interrupted step; then resumed, skipped and completed (C32, C33)."""
    seen: list[Any] = []
    with subscribe(seen.append):
        InlineRun(CountInSteps, 2, stops=[AtStep("count", 1)]).drain()
    names = [type(event).__name__ for event in seen if not isinstance(event, events.ProgressSaved)]
    assert names == [
        "JobStarted", "StepStarted", "StepCompleted", "StepStarted", "JobInterrupted", "StepInterrupted",
        "JobResumed", "StepSkipped", "StepStarted", "StepCompleted", "StepStarted", "StepCompleted", "JobCompleted",
    ]  # fmt: skip


def test_log_lines_tell_the_story(caplog: pytest.LogCaptureFixture) -> None:
    """Each names the job, its id and the step (C35)."""
    caplog.set_level("INFO", logger="harness")
    InlineRun(CountInSteps, 2, job_id="7", stops=[AtStep("count", 1)]).drain()
    assert "CountInSteps (Job ID: 7) Resuming at 'count', cursor 1 (resumption 1)" in caplog.messages
    assert "CountInSteps (Job ID: 7) Step 'load' skipped" in caplog.messages
    assert any(
        line.startswith("CountInSteps (Job ID: 7) Interrupted at 'count', cursor 1")
        for line in caplog.messages
    )


def test_a_default_may_bind_the_variable_of_a_loop(done: list[object]) -> None:
    """A default works with or without the step, as a keyword and in a partial; a parameter named step gets the step."""

    def named(step: Step, name: str = "") -> None:
        done.append((name, step.cursor))

    class Loop(ContinuableJob):
        def perform(self) -> None:
            for name in ("a", "b"):

                @self.step(f"{name}1", start=7)
                def with_step(step: Step, name: str = name) -> None:
                    done.append((name, step.cursor))

                @self.step(f"{name}2")
                def without(name: str = name) -> None:
                    done.append(name)

                @self.step(f"{name}3")
                def keyword(step: Step, *, name: str = name) -> None:
                    done.append((name, step.name))

                @self.step(f"{name}4")
                def optional(step: Step | None = None) -> None:
                    done.append(step.name if step else None)

                self.step(f"{name}5")(partial(named, name=name.upper()))

    run(Loop)
    assert done == [
        ("a", 7),
        "a",
        ("a", "a3"),
        "a4",
        ("A", None),
        ("b", 7),
        "b",
        ("b", "b3"),
        "b4",
        ("B", None),
    ]


def test_a_step_needs_a_function(done: list[object]) -> None:
    """An attribute that has the name of a step but is not a method is refused, with its name."""

    class Named(ContinuableJob):
        load = 17

        def perform(self) -> None:
            self.step("load")

    with pytest.raises(JobDefinitionError, match=r"Named\.load is 17, not a method"):
        run(Named)
