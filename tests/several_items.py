"""Jobs that do several items at a time, as coroutines and as threads, and note how many were at work."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, ClassVar

import pytest

from harness import (
    InlineRun,
    IterationJob,
    items,
    on_stop,
)
from harness.progress import Progress
from tests.jobs import Dead

NUMBERS = (3, 10)


class Counted(IterationJob, abstract=True):
    """Does each of some numbers, several at a time, and notes how many were at work."""

    durability = on_stop()
    at: ClassVar[dict[int, Any]] = {}
    done: ClassVar[list[int]] = []
    lock: ClassVar[threading.Lock]
    busy = most = 0

    def build_enumerator(self, numbers: int, *, cursor: Any) -> Any:
        """Go through the numbers."""
        return items(range(numbers), cursor=cursor)

    def began(self) -> None:
        """Note that an item is at work."""
        with self.lock:
            self.busy += 1
            type(self).most = max(self.most, self.busy)

    def ended(self, number: int, *, done: bool) -> None:
        """Note that it ended."""
        with self.lock:
            self.busy -= 1
            if done:
                self.done.append(number)


class Threads(Counted):
    """Its items are plain functions."""

    def each_iteration(self, number: int, numbers: int) -> None:
        """Do the number, and what the test planned."""
        self.began()
        done = False
        try:
            self.at.get(number, int)()
            done = True
        finally:
            self.ended(number, done=done)


class Coroutines(Counted):
    """Its items are coroutine functions."""

    async def each_iteration(self, number: int, numbers: int) -> None:
        """Do the number, and what the test planned, some turns of the loop later."""
        self.began()
        done = False
        try:
            for _ in range(number % 3 + 1):
                await asyncio.sleep(0)
            result = self.at.get(number, int)()
            if hasattr(result, "__await__"):
                await result
            done = True
        finally:
            self.ended(number, done=done)


CASES = [(base, number) for base in (Threads, Coroutines) for number in NUMBERS]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}")
def job(request: pytest.FixtureRequest) -> type[Counted]:
    """Return a job for a number of items at a time."""
    return made(*request.param)


def made(base: type[Counted], number: int, **policy: Any) -> type[Counted]:
    """Return a job of its own for a test."""
    own = {"concurrency": number, "at": {}, "done": [], "lock": threading.Lock(), "__module__": __name__}
    return type(base.__name__, (base,), own | policy)


def crashes(inline: InlineRun) -> None:
    """Run an execution that crashes."""
    with pytest.raises(Dead):
        inline.execute()


def stored(inline: InlineRun) -> Progress:
    """Return the record of a run."""
    progress = inline.progress
    assert progress is not None
    return progress
