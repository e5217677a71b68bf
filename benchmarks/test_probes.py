"""Cost of installed probes while nothing is explored; ratios of neighbouring runs."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import nullcontext
from time import perf_counter

import pytest

from benchmarks.test_patterns import advance, iterate
from harness import every
from harness.explore import probes
from harness.explore.scenarios import seeded
from harness.queues.inline import InlineRun
from harness.stores.memory import MemoryStore
from scenarios.orders import scenario

ROUNDS = 15


def orders() -> float:
    """Return the seconds in which 61 orders are processed, on SQLite."""
    with seeded(scenario, "quick"):
        run = InlineRun(scenario.forms["iteration"], job_id="orders", store=MemoryStore())
        start = perf_counter()
        run.execute()
        return perf_counter() - start


@pytest.mark.parametrize(
    ("label", "measure"),
    [
        ("step.advance()", lambda: advance(every(seconds=1))),
        ("each_iteration", lambda: iterate(every(seconds=1))),
        ("61 orders on SQLite", orders),
    ],
)
def test_idle_probes(capsys: pytest.CaptureFixture[str], label: str, measure: Callable[[], float]) -> None:
    """The hot path does not call any probe; a statement or a commit costs one look-up more."""
    ratios, control = [], []
    for _ in range(ROUNDS):
        times = []
        for context in (nullcontext, probes.installed, nullcontext):
            with context():
                times.append(measure())
        ratios.append(times[1] / statistics.mean((times[0], times[2])))
        control.append(times[2] / times[0])
    with capsys.disabled():
        for what, values in (("with idle probes / without", ratios), ("without / without", control)):
            low, median, high = statistics.quantiles(values, n=4)
            print(f"\n{label}, {what}: {median:.3f}, quartiles {low:.3f} to {high:.3f}, {ROUNDS} rounds")
    assert ratios
