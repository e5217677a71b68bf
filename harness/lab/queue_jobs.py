"""Jobs of the behaviour suite for queues. They append a line to a file for each item, so any process may run them."""

from __future__ import annotations

import asyncio
import time
from datetime import date
from pathlib import Path
from typing import Any

from harness.durability import every
from harness.iteration import IterationJob
from harness.job import attribute
from harness.runtime.stepping import Step
from harness.sources.enumerators import Enumerator, items
from harness.sources.parallel import parallel_items
from harness.steps import ContinuableJob


def note(path: str, line: object) -> None:
    """Append a line to a file."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


class Count(IterationJob):
    """Processes numbers."""

    durability = every(items=1)
    error_delay = 0

    def build_enumerator(self, path: str, numbers: int, pace: float = 0.0, *, cursor: Any) -> Enumerator[int]:
        """Go through the numbers."""
        return items(range(numbers), cursor=cursor)

    def each_iteration(self, item: int, path: str, numbers: int, pace: float = 0.0) -> None:
        """Do one number."""
        if pace:
            time.sleep(pace)
        note(path, item)


class Stamp(IterationJob):
    """Records the time of its start."""

    def build_enumerator(self, path: str, *, cursor: Any) -> Enumerator[int]:
        """Do one item."""
        return items([0], cursor=cursor)

    def each_iteration(self, item: int, path: str) -> None:
        """Record the time."""
        note(path, time.time())


class InSteps(ContinuableJob):
    """Processes numbers in two steps."""

    durability = every(items=1)

    def perform(self, path: str, numbers: int) -> None:
        """Process them twice."""
        for name in ("first", "second"):
            self.step(name, start=0)(self._numbers(name, path, numbers))

    def _numbers(self, name: str, path: str, numbers: int) -> Any:
        def run(step: Step) -> None:
            while step.cursor < numbers:
                note(path, f"{name} {step.cursor}")
                step.advance()

        return run


class Yields(Count):
    """Stops after every item."""

    def should_stop(self) -> bool:
        """Stop after the first item."""
        return self.execution.items > 0


class Awaits(Yields):
    """Awaits each item, and stops after it."""

    async def each_iteration(  # type: ignore[override]  # an execution awaits it
        self, item: int, path: str, numbers: int, pace: float = 0.0
    ) -> None:
        """Do one number after a turn of the event loop."""
        await asyncio.sleep(pace)
        note(path, item)


class Fails(Count):
    """Fails once, at number 2."""

    resume_errors_after_advancing = False

    def each_iteration(self, item: int, path: str, numbers: int, pace: float = 0.0) -> None:
        """Do one number, or fail once at number 2."""
        failed = Path(f"{path}.failed")
        if item == 2 and not failed.exists():
            failed.touch()
            raise RuntimeError("cannot do 2")
        super().each_iteration(item, path, numbers, pace)


class Typed(IterationJob):
    """Records the type and the value of its argument."""

    def build_enumerator(self, path: str, day: date, *, cursor: Any) -> Enumerator[int]:
        """Do one item."""
        return items([0], cursor=cursor)

    def each_iteration(self, item: int, path: str, day: date) -> None:
        """Note it."""
        note(path, f"{type(day).__name__} {day.isoformat()}")


class Shared(Count):
    """Processes numbers in two instances."""

    def build_enumerator(self, path: str, numbers: int, pace: float = 0.0, *, cursor: Any) -> Enumerator[int]:
        """Share the numbers."""
        return parallel_items(range(numbers), instances=2, cursor=cursor)


class Ends(Count):
    """Records its hooks, and counts executions in an attribute."""

    executions = attribute(default=0)

    def on_start(self) -> None:
        """Count the first execution."""
        self.executions += 1

    def on_resume(self) -> None:
        """Count another execution."""
        self.executions += 1

    def on_cancel(self) -> None:
        """Note it."""
        note(self.execution.args[0], "cancelled")

    def on_complete(self) -> None:
        """Note it."""
        note(self.execution.args[0], f"complete after {self.executions}")
