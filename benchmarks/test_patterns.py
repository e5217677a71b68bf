"""Cost of the two patterns per item, compared with a bare loop and with a method call that tests one flag.

Ratios and differences are taken within one run, of processor time, so that other programs count little.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import AsyncIterator, Callable
from time import thread_time
from typing import Any

import pytest

from harness import ContinuableJob, IterationJob, Step, every, items, on_stop, run
from harness.durability import Durability

ITEMS = 300_000
ROUNDS = 9


class Advance(ContinuableJob):
    """Advances, and measures that against the loop around it."""

    def perform(self, seen: list[float]) -> None:
        """Run one step."""

        @self.step("count", start=0)
        def count(step: Step) -> None:
            start = thread_time()
            for _ in range(ITEMS):
                step.advance()
            middle = thread_time()
            for _ in range(ITEMS):
                pass
            seen.append(((middle - start) - (thread_time() - middle)) / ITEMS * 1e9)


class Iterate(IterationJob):
    """Does nothing to each item."""

    def build_enumerator(self, *, cursor: Any) -> Any:
        """Go through a range."""
        return items(range(ITEMS), cursor=cursor)

    def each_iteration(self, item: int) -> None:
        """Do nothing."""


def bare() -> float:
    """Return the seconds that the same items take without a job."""
    job = Iterate()
    start = thread_time()
    for item, _ in ((index, index) for index in range(ITEMS)):
        job.each_iteration(item)
    return thread_time() - start


def advance(durability: Durability) -> float:
    """Return what an advance costs above the loop, in ns."""
    seen: list[float] = []
    run(Advance, seen, durability=durability)
    return seen[0]


def iterate(durability: Durability) -> float:
    """Return what an iteration costs above the loop, in ns."""
    start = thread_time()
    run(Iterate, durability=durability)
    return (thread_time() - start - bare()) / ITEMS * 1e9


class Flagged:
    """The floor: a method that tests one flag."""

    flag = False

    def test(self) -> None:
        """Do nothing while the flag is not set."""
        if self.flag:
            raise AssertionError


def call() -> float:
    """Return what a method call with one flag test costs above the loop, in ns."""
    flagged = Flagged()
    start = thread_time()
    for _ in range(ITEMS):
        flagged.test()
    middle = thread_time()
    for _ in range(ITEMS):
        pass
    return ((middle - start) - (thread_time() - middle)) / ITEMS * 1e9


def show(label: str, values: list[float]) -> float:
    """Print the median with its spread and return it."""
    low, median, high = statistics.quantiles(values, n=4)
    print(
        f"\n{label}: {median:.0f} ns, quartiles {low:.0f} to {high:.0f}, least {min(values):.0f}, {len(values)} rounds"
    )
    return median


@pytest.mark.parametrize(
    ("label", "measure", "limit"), [("step.advance()", advance, 4), ("each_iteration", iterate, 8)]
)
def test_hot_path(
    capsys: pytest.CaptureFixture[str], label: str, measure: Callable[[Durability], float], limit: float
) -> None:
    """A checkpoint that saves nothing costs little, and a save every second adds hardly anything."""
    with capsys.disabled():
        rounds = [(call(), measure(on_stop()), measure(every(seconds=1))) for _ in range(ROUNDS)]
        show("a method call with one flag test", [floor for floor, _, _ in rounds])
        plain = show(f"{label} above the loop, on_stop()", [one for _, one, _ in rounds])
        saving = show(f"{label} above the loop, every(seconds=1)", [other for _, _, other in rounds])
        low, ratio, high = statistics.quantiles([one / floor for floor, one, _ in rounds], n=4)
        print(f"{label}: every(seconds=1) / on_stop() = {saving / plain:.3f}")
        print(f"{label}: {ratio:.1f} calls, quartiles {low:.1f} to {high:.1f}; the limit is {limit}")
    assert plain > 0


class OneAtATime(Iterate):
    """Sets ``concurrency = 1``."""

    concurrency = 1


def test_one_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    """An iteration with ``concurrency = 1`` costs as much as one without the attribute, measured in turn."""

    def seconds(job: type[IterationJob]) -> float:
        start = thread_time()
        run(job, durability=on_stop())
        return thread_time() - start

    with capsys.disabled():
        rounds = [(seconds(Iterate), seconds(OneAtATime)) for _ in range(ROUNDS)]
        low, ratio, high = statistics.quantiles([one / none for none, one in rounds], n=4)
        print(
            f"\nconcurrency = 1 / no concurrency: {ratio:.3f}, quartiles {low:.3f} to {high:.3f}, {ROUNDS} rounds"
        )
    assert ratio < 2


class Awaited(IterationJob):
    """Does nothing to each item, in coroutines."""

    async def build_enumerator(self, *, cursor: Any) -> AsyncIterator[tuple[int, int]]:
        """Go through a range."""
        for index in range(ITEMS):
            yield index, index

    async def each_iteration(self, item: int) -> None:
        """Do nothing."""


async def bare_async() -> float:
    """Return the seconds that the same coroutines take without a job."""
    job = Awaited()
    start = thread_time()
    async for item, _ in job.build_enumerator(cursor=None):
        await job.each_iteration(item)
    return thread_time() - start


def test_async_items(capsys: pytest.CaptureFixture[str]) -> None:
    """An async iteration costs at most 1.5 times a bare one and 400 ns."""
    over = []
    with capsys.disabled():
        for _ in range(ROUNDS):
            start = thread_time()
            run(Awaited, durability=on_stop())
            over.append((thread_time() - start - 1.5 * asyncio.run(bare_async())) / ITEMS * 1e9)
        assert show("an async iteration above 1.5 bare ones; the limit is 400 ns", over)
