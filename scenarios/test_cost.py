"""Cost of the three forms of each scenario when nothing interrupts them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from harness import every, on_stop, with_transaction
from harness.durability import Durability
from harness.interruptions import parse
from harness.lab import Lab
from harness.scenario import FORMS, Scenario
from scenarios import emails, orders, reports

ROUNDS, ALL_ROUNDS = 3, 5
"""Number of rounds by default, and with --full."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Yield a stack that is unwound after the test."""
    with ExitStack() as stack:
        yield stack


Case = tuple[Scenario, str, Durability | None]

CASES: list[Case] = [
    (each, form, None) for each in (orders.scenario, reports.scenario, emails.scenario) for form in FORMS
]
CASES += [
    (orders.scenario, form, durability)
    for durability in (on_stop(), every(items=5), with_transaction())
    for form in FORMS[1:]
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_cost(request: pytest.FixtureRequest, benchmark: Any, lab: Lab, stack: ExitStack, case: Case) -> None:
    """An uninterrupted run, from the queue to its end, does every item once; its time is the form's cost."""
    scenario, form, durability = case
    records = []

    def setup() -> tuple[tuple[Any], dict[str, Any]]:
        stack.close()
        return (stack.enter_context(lab.prepared(scenario, form, durability)),), {}

    rounds = ALL_ROUNDS if request.config.getoption("--full", default=False) else ROUNDS
    benchmark.pedantic(lambda trial: records.append(trial.run(parse("none"))), setup=setup, rounds=rounds)
    assert {record["verdict"] for record in records} == {"exactly once"}
    benchmark.extra_info.update(
        scenario=scenario.name,
        pattern=form,
        items=records[0]["items"],
        durability=records[0]["durability"],
    )
