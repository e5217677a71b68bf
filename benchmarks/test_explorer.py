"""Trials that the explorer runs per second of one core: the orders job, 61 orders, SQLite in a file."""

from __future__ import annotations

import statistics
from time import perf_counter, process_time

import pytest

from harness.explore import Explorer, parse_trial
from harness.explore.scenarios import seeded
from scenarios.orders import scenario

ROUNDS = 3


@pytest.mark.parametrize(("queue", "wanted"), [("inline", 60), ("rq", 25)])
@pytest.mark.parametrize("form", ["steps", "iteration"])
def test_crashes_a_second(capsys: pytest.CaptureFixture[str], form: str, queue: str, wanted: int) -> None:
    """Each crash is tried, from the first to the last; on average a trial runs half of the job."""
    with (
        seeded(scenario, "quick"),
        Explorer(scenario.forms[form], queue=queue, actions=["crash"]) as explorer,
    ):
        trials = [parse_trial(name) for name in explorer.names()]
        rates, busy = [], []
        for _ in range(ROUNDS):
            started, worked = perf_counter(), process_time()
            explorer.run(trials)
            rates.append(len(trials) / (perf_counter() - started))
            busy.append(len(trials) / (process_time() - worked))
    with capsys.disabled():
        print(
            f"\norders as {form} on {queue}: {statistics.median(rates):.0f} trials/s, "
            f"{statistics.median(busy):.0f} a second of processor time, {len(trials)} trials, {ROUNDS} rounds; "
            f"wanted {wanted}"
        )
    assert rates
