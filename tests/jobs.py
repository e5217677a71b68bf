"""Every toy job, importable by a real worker. What they did is in ``DONE``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any, ClassVar

from harness import ContinuableJob, Enumerator, IterationJob, Step, attribute, items, on_stop, parallel_items

DONE: list[Any] = []
"""Items done, in order; emptied before each test."""


class CountInSteps(ContinuableJob):
    """Does each of some numbers, in the second of three steps."""

    last = attribute(default=-1, type=int)
    kept: attribute[list[int]] = attribute(default=[])

    def perform(self, numbers: int = 20) -> None:
        """Call the three steps."""
        self.numbers = numbers
        self.step("load")
        self.step("count", start=0)

        @self.step
        def finish() -> None:
            DONE.append("finish")

    def load(self) -> None:
        """Take no step."""
        DONE.append("load")

    def count(self, step: Step) -> None:
        """Take the step, and move its cursor after each number."""
        step.total = self.numbers
        for number in range(step.cursor, self.numbers):
            DONE.append(number)
            self.last = number
            step.advance()


class CountByIteration(IterationJob):
    """Does each of some numbers."""

    def build_enumerator(self, numbers: int, *, cursor: Any) -> Enumerator[int]:
        """Go through the numbers."""
        return items(range(numbers), cursor=cursor)

    def each_iteration(self, item: int, numbers: int) -> None:
        """Do one number."""
        assert item < numbers
        DONE.append(item)


class FailAt(IterationJob):
    """Fails at a number, once."""

    durability = on_stop()

    def build_enumerator(self, numbers: int, at: int, *, cursor: Any) -> Enumerator[int]:
        """Go through the numbers."""
        del at
        return items(range(numbers), cursor=cursor)

    def each_iteration(self, item: int, numbers: int, at: int) -> None:
        """Do one number, or fail in the middle of it."""
        del numbers
        if item == at and "failed" not in DONE:
            DONE.append("failed")
            raise RuntimeError(f"cannot do {item}")
        DONE.append(item)


class FailInSteps(ContinuableJob):
    """Fails at a number, once, with a cursor that it changes in place."""

    def perform(self, numbers: int, at: int) -> None:
        """Do the numbers, each after the cursor was changed for it."""

        @self.step("count", start=[0])
        def count(step: Step) -> None:
            while step.cursor[0] < numbers:
                number = step.cursor[0]
                step.cursor[0] += 1  # before the effect, and not yet a checkpoint
                if number == at and "failed" not in DONE:
                    DONE.append("failed")
                    raise RuntimeError(f"cannot do {number}")
                DONE.append(number)
                step.checkpoint()


class Reciprocals(CountByIteration):
    """Divides by each number."""

    def each_iteration(self, item: int, numbers: int) -> None:
        """Fail at the first."""
        super().each_iteration(item, numbers)
        DONE.append(1 / item)


class Dates(IterationJob):
    """Takes and iterates values that JSON has no form for."""

    def build_enumerator(self, start: date, *, cursor: Any) -> Iterator[tuple[date, date]]:
        """Go through the five days from a start."""
        ordinal = start.toordinal() if cursor is None else cursor.toordinal() + 1
        days = (date.fromordinal(each) for each in range(ordinal, start.toordinal() + 5))
        return ((day, day) for day in days)

    def each_iteration(self, item: date, start: date) -> None:
        """Do one day."""
        assert item >= start
        DONE.append(item)


class BadCursor(IterationJob):
    """Has a cursor that JSON cannot hold."""

    def build_enumerator(self, *, cursor: Any) -> Iterator[tuple[int, object]]:
        """Yield one item with a set for a cursor."""
        del cursor
        yield 1, {1, 2}

    def each_iteration(self, item: int) -> None:
        """Do it."""
        DONE.append(item)


def plain(numbers: int) -> int:
    """Do the numbers in a function that knows nothing of this package."""
    DONE.extend(range(numbers))
    return numbers


class Shared(IterationJob):
    """Does each of some numbers, in several instances."""

    def build_enumerator(self, count: int, instances: int, *, cursor: Any) -> Enumerator[int]:
        """Share the numbers."""
        return parallel_items(range(count), instances=instances, cursor=cursor)

    def each_iteration(self, item: int, count: int, instances: int) -> None:
        """Do one number."""
        assert item < count
        assert instances
        DONE.append(item)

    def on_start(self) -> None:
        """Record the call."""
        DONE.append("start")

    def on_complete(self) -> None:
        """Record the call."""
        DONE.append("complete")


class Dead(BaseException):
    """Stands for a process that is no more: nothing is saved after it."""


class Told(CountByIteration):
    """Runs the action of the test at some item, and records its hooks."""

    at: ClassVar[dict[int, Callable[[], object]]] = {}

    def each_iteration(self, item: int, numbers: int) -> None:
        """Do the item, unless the test planned another action for it."""
        self.at.get(item, int)()
        super().each_iteration(item, numbers)

    def on_start(self) -> None:
        """Record the call."""
        DONE.append("start")

    def on_resume(self) -> None:
        """Record the call."""
        DONE.append("resume")

    def on_shutdown(self) -> None:
        """Record the call."""
        DONE.append("shutdown")

    def on_complete(self) -> None:
        """Record the call."""
        DONE.append("complete")

    def on_cancel(self) -> None:
        """Record the call."""
        DONE.append("cancel")

    def on_error(self, error: Exception) -> None:
        """Record the error."""
        DONE.append(str(error))


def raises(error: BaseException, *, times: int = 1) -> Callable[[], None]:
    """Return a function that raises so often, and then no more."""
    left = [times]

    def function() -> None:
        if left[0]:
            left[0] -= 1
            raise error

    return function


def told(**at: Callable[[], object]) -> type[Told]:
    """Return the job that does this at item ``i…``."""

    class Job(Told):
        pass

    Job.at = {int(name[1:]): function for name, function in at.items()}
    return Job


class ThreeSteps(ContinuableJob):
    """Loads, counts to four, and sends."""

    def perform(self) -> None:
        """Do the steps."""
        self.step("load")

        @self.step("count", start=0)
        def count(step: Step) -> None:
            for number in range(step.cursor, 4):
                DONE.append(number)
                step.set(number + 1)

        self.step("send")

    def load(self) -> None:
        """Load."""
        DONE.append("load")

    def send(self) -> None:
        """Send."""
        DONE.append("send")
