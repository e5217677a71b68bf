"""Processor time of the demonstration jobs in their forms, in turn and in one run, as ratios to the plain loop."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest

from harness import every, on_stop, with_transaction
from harness.durability import Durability
from harness.interruptions import parse_interruption
from harness.lab import Lab
from harness.scenario import Scenario
from scenarios import emails, orders, reports

ROUNDS = 7
Case = tuple[str, Durability | None]
PLAIN: Case = ("plain", None)
CASES: list[Case] = [
    (form, durability)
    for form in ("steps", "iteration")
    for durability in (on_stop(), every(seconds=1), every(items=5), with_transaction())
]


@pytest.mark.parametrize("scenario", [orders.scenario, reports.scenario, emails.scenario], ids=str)
def test_forms(capsys: pytest.CaptureFixture[str], tmp_path: Path, scenario: Scenario) -> None:
    """A whole run, from the enqueue to its end: SQLite, RQ's worker in this process, fakeredis."""
    times: dict[Case, list[float]] = {case: [] for case in (PLAIN, *CASES)}
    with Lab(tmp_path) as lab:
        for number in range(ROUNDS + 1):
            for case, found in times.items():
                with lab.prepared(scenario, *case) as trial:
                    before = time.process_time()
                    record = trial.run(parse_interruption("none"))
                    took = time.process_time() - before
                assert record["verdict"] == "exactly once"
                if number:  # the first round warms up
                    found.append(took / record["items"])
    plain = times[PLAIN]
    with capsys.disabled():
        print(f"\n{scenario}: plain {statistics.median(plain) * 1e6:.0f} µs an item")
        for case in CASES:
            low, median, high = statistics.quantiles(
                [each / other for each, other in zip(times[case], plain, strict=True)], n=4
            )
            print(f"  {case[0]}, {case[1]}: {median:.2f} ({low:.2f} to {high:.2f})")
