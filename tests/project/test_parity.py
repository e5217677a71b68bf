"""docs/parity.md is complete, and the tests that it names exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from harness import ContinuableJob, Enumerator, InlineRun, IterationJob, events, items, run, subscribe
from harness.stops import AtStep
from tests.jobs import CountInSteps

TESTS = Path(__file__).parents[1]
ROW = re.compile(r"^\| ([CISM]\d+) \| (.+) \| (.+) \| (test_\w+\.py)::(test_\w+) \|$", re.MULTILINE)


def rows() -> list[tuple[str, ...]]:
    """Return the rows of the table."""
    return ROW.findall((TESTS.parent / "docs" / "parity.md").read_text(encoding="utf-8"))


def test_every_statement_has_a_row() -> None:
    """C1 to C39, I1 to I41, and those of the neighbours that are iteration's, in order, each once."""
    steps = [f"C{number}" for number in range(1, 40)]
    iteration = [f"I{number}" for number in range(1, 42)]
    assert [row[0] for row in rows()] == [*steps, *iteration, "S4", "S5", "S6", "M3", "M6", "M7"]


def test_every_row_has_a_verdict() -> None:
    """Same, better or different with how, or not applicable with why."""
    verdicts = re.compile(r"same\b|better: .|different: .|not applicable: .")
    assert [row[0] for row in rows() if not verdicts.match(row[2])] == []


def test_every_test_named_exists() -> None:
    """A row that names a test which is gone says nothing."""
    names = {
        (path.name, node.name)
        for path in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert [row[0] for row in rows() if (row[3], row[4]) not in names] == []


def test_events_carry_durations_in_seconds() -> None:
    """Events have the durations of the step and of the execution, by the job's clock (C34)."""
    now, seen = [0.0], list[Any]()

    class Slow(CountInSteps):
        def load(self) -> None:
            now[0] += 1.5

    with subscribe(seen.append):
        InlineRun(Slow, 2, stops=[AtStep("count", 1)], clock=lambda: now[0]).execute()
    durations = {type(event): event.duration_s for event in seen if hasattr(event, "duration_s")}
    assert durations == {events.StepCompleted: 1.5, events.JobInterrupted: 1.5, events.StepInterrupted: 0.0}


def test_a_job_reads_its_cursor_and_arguments() -> None:
    """The execution has the cursor of the last item done, and the arguments of the job (S5)."""
    seen = list[Any]()

    class Read(IterationJob):
        def build_enumerator(self, first: str, *, second: int, cursor: int | None) -> Enumerator[str]:
            return items(["a", "b"], cursor=cursor)

        def each_iteration(self, item: str, first: str, *, second: int) -> None:
            seen.append((item, self.execution.cursor, self.execution.args, self.execution.kwargs))

    run(Read, "x", second=2)
    assert seen == [("a", None, ("x",), {"second": 2}), ("b", 0, ("x",), {"second": 2})]


def test_a_step_does_not_return_its_value() -> None:
    """A step that is skipped later could not return it again, so results are kept in attributes (C10)."""
    returned = list[Any]()

    class Load(ContinuableJob):
        def perform(self) -> None:
            returned.append(self.step("load"))

        def load(self) -> int:
            return 5

    run(Load)
    assert returned != [5]
