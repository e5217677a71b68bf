"""What the three forms of each scenario cost when nothing interrupts them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from harness.interruptions import parse
from harness.lab import Lab
from harness.scenario import FORMS, Scenario
from scenarios import emails, orders, reports

ROUNDS = 5


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Yield a stack that is unwound after the test."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "scenario", [orders.scenario, reports.scenario, emails.scenario], ids=lambda s: s.name
)
def test_cost(benchmark: Any, lab: Lab, stack: ExitStack, scenario: Scenario, form: str) -> None:
    """An uninterrupted run, from the queue to its end, does every item once; its time is the form's cost."""
    records = []

    def setup() -> tuple[tuple[Any], dict[str, Any]]:
        stack.close()
        return (stack.enter_context(lab.prepared(scenario, form)),), {}

    benchmark.pedantic(lambda trial: records.append(trial.run(parse("none"))), setup=setup, rounds=ROUNDS)
    assert {record["verdict"] for record in records} == {"exactly once"}
    benchmark.extra_info.update(scenario=scenario.name, pattern=form, items=records[0]["items"])
