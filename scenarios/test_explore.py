"""The three scenarios, crashed everywhere; ``tox run -e explore`` tries all, the normal run a sample."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import Durability, every, on_stop
from harness.explore import Verdict
from harness.explore.scenarios import seeded
from harness.scenario import Scenario
from scenarios import emails, orders, reports

SIZE = "tiny"
SAMPLE = 5
by_scenario = pytest.mark.parametrize(
    "scenario", [orders.scenario, reports.scenario, emails.scenario], ids=lambda scenario: scenario.name
)


@by_scenario
@pytest.mark.parametrize("form", ["steps", "iteration"])
@pytest.mark.parametrize("durability", [on_stop(), every(items=5)], ids=str)
def test_nothing_is_lost(
    explore: Callable[..., Verdict], scenario: Scenario, form: str, durability: Durability
) -> None:
    """Nothing is lost, and no more is repeated than what the progress did not hold yet."""
    with seeded(scenario, SIZE):
        verdict = explore(
            scenario.forms[form],
            durability=durability,
            sample=SAMPLE,
            expect=None,
            command=command(scenario, form),
        )
    assert verdict.verdict.startswith(("exactly once", "at least once")), verdict.text()
    assert not any(finding.trial.startswith("stop:") for finding in verdict.findings), (
        "a polite stop costs nothing"
    )


@by_scenario
def test_the_plain_form_fails(explore: Callable[..., Verdict], scenario: Scenario) -> None:
    """A control that cannot fail shows nothing."""
    with seeded(scenario, SIZE):
        arguments = scenario.arguments()
        verdict = explore(
            scenario.forms["plain"], arguments, sample=SAMPLE, expect=None, command=command(scenario, "plain")
        )
    assert verdict.verdict in {"duplicated", "wrong total"}, verdict.text()


def command(scenario: Scenario, form: str) -> str:
    """Return what repeats a trial."""
    return f"harness explore scenarios.{scenario.name} --form {form} --size {SIZE} --trial {{trial}}"
