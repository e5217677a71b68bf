"""The three scenarios, crashed everywhere; ``tox run -e explore`` tries all, the normal run a sample."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness import every, on_stop, with_transaction
from harness.durability import Durability
from harness.explore import Verdict
from harness.explore.scenarios import prepared
from harness.scenario import Scenario
from scenarios import emails, orders, reports

SIZE = "tiny"
SAMPLE = 3
by_form = pytest.mark.parametrize("form", ["steps", "iteration"])
by_scenario = pytest.mark.parametrize(
    "scenario", [orders.scenario, reports.scenario, emails.scenario], ids=lambda scenario: scenario.name
)


@pytest.mark.each
@by_scenario
@by_form
@pytest.mark.parametrize("durability", [on_stop(), every(items=5)], ids=str)
def test_nothing_is_lost(
    explore: Callable[..., Verdict], scenario: Scenario, form: str, durability: Durability
) -> None:
    """Nothing is lost, and no more is repeated than what the progress did not hold yet."""
    with prepared(scenario, form, SIZE, durability) as (what, options):
        about = (scenario.name, form, str(durability))
        verdict = explore(*what, **options, about=about, sample=SAMPLE, expect=None)
    assert verdict.verdict.startswith(("exactly once", "at least once")), verdict.text()
    assert not any(finding.trial.startswith("stop:") for finding in verdict.findings), "a stop costs nothing"


@pytest.mark.each
@by_scenario
@by_form
def test_work_and_progress_in_one_transaction_are_done_once(
    explore: Callable[..., Verdict], scenario: Scenario, form: str
) -> None:
    """At every point, a frozen worker's too; only a mail, which no transaction covers, may go out a second time."""
    expect = "at least once" if scenario is emails.scenario else "exactly once"
    with prepared(scenario, form, SIZE, with_transaction()) as (what, options):
        about = (scenario.name, form, str(with_transaction()))
        verdict = explore(*what, **options, about=about, sample=SAMPLE, expect=expect)
    assert all("mails: " in finding.what for finding in verdict.findings)


@pytest.mark.full  # a server for each scenario and form; tests/explore/test_explore_postgres.py explores on one
@by_scenario
@by_form
def test_on_postgresql_work_and_progress_in_one_transaction_are_done_once(
    explore: Callable[..., Verdict], scenario: Scenario, form: str
) -> None:
    """The verdict is that of SQLite: a real server rolls back and locks, and its rows and sequences are restored."""
    expect = "at least once" if scenario is emails.scenario else "exactly once"
    with prepared(scenario, form, SIZE, with_transaction(), database="postgresql") as (what, options):
        about = (scenario.name, form, f"{with_transaction()} on PostgreSQL")
        verdict = explore(*what, **options, about=about, sample=SAMPLE, expect=expect)
    assert all("mails" in finding.what for finding in verdict.findings), verdict.text()


@pytest.mark.parametrize(
    "scenario",
    [
        orders.scenario,
        *(pytest.param(each, marks=pytest.mark.full) for each in (reports.scenario, emails.scenario)),
    ],
    ids=lambda scenario: scenario.name,
)
def test_the_plain_form_fails(explore: Callable[..., Verdict], scenario: Scenario) -> None:
    """A control that cannot fail shows nothing."""
    with prepared(scenario, "plain", SIZE, None) as (what, options):
        about = (scenario.name, "plain", "none")
        verdict = explore(*what, **options, about=about, sample=SAMPLE, expect=None)
    assert verdict.verdict in {"duplicated", "wrong total"}, verdict.text()
