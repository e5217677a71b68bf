"""docs/parity.md is complete, and the tests that it names exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from harness import InlineRun, events, subscribe
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
