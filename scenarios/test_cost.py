"""Cost of the three forms of each scenario, and of the patterns themselves, when nothing interrupts them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from harness import ContinuableJob, IterationJob, Step, every, items, on_stop, run, with_transaction
from harness.durability import Durability
from harness.interruptions import parse_interruption
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


@pytest.mark.sample(5)
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_cost(request: pytest.FixtureRequest, benchmark: Any, lab: Lab, stack: ExitStack, case: Case) -> None:
    """An uninterrupted run, from the queue to its end, does every item once; its time is the form's cost."""
    scenario, form, durability = case
    records = []

    def setup() -> tuple[tuple[Any], dict[str, Any]]:
        stack.close()
        return (stack.enter_context(lab.prepared(scenario, form, durability)),), {}

    rounds = ALL_ROUNDS if request.config.getoption("--full", default=False) else ROUNDS
    benchmark.pedantic(
        lambda trial: records.append(trial.run(parse_interruption("none"))), setup=setup, rounds=rounds
    )
    assert {record["verdict"] for record in records} == {"exactly once"}
    benchmark.extra_info.update(
        scenario=scenario.name,
        pattern=form,
        items=records[0]["items"],
        durability=records[0]["durability"],
    )


NUMBERS = 200_000
"""Number of items that do no work."""


class Advance(ContinuableJob):
    """A step that only advances."""

    def perform(self) -> None:
        """Count."""

        @self.step("count", start=0)
        def count(step: Step) -> None:
            for _ in range(NUMBERS):
                step.advance()


class Iterate(IterationJob):
    """Iteration over items that do no work."""

    def build_enumerator(self, *, cursor: Any) -> Any:
        """Return a range."""
        return items(range(NUMBERS), cursor=cursor)

    def each_iteration(self, item: int) -> None:
        """Do nothing."""


def bare() -> None:
    """Loop over the items."""
    for _ in range(NUMBERS):
        pass


PATTERNS: dict[str, Callable[[], object]] = {
    "plain": bare,
    "steps": lambda: run(Advance),
    "iteration": lambda: run(Iterate),
}


# Processor time: another process that takes the processor is no cost of a pattern.
@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("form", FORMS)
def test_cost_of_the_pattern_itself(request: pytest.FixtureRequest, benchmark: Any, form: str) -> None:
    """A pattern costs some nanoseconds an item above a bare loop, without queue, database and work."""
    rounds = 3 * (ALL_ROUNDS if request.config.getoption("--full", default=False) else ROUNDS)
    benchmark.pedantic(PATTERNS[form], rounds=rounds, warmup_rounds=1)
    durability = {"plain": "none", "steps": str(Advance.durability), "iteration": str(Iterate.durability)}[
        form
    ]
    benchmark.extra_info.update(
        scenario="the pattern itself", pattern=form, items=NUMBERS, durability=durability, kind="pattern"
    )
