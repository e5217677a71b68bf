"""The three jobs with real workers on a real Redis, signalled and killed, on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest

from harness import every, on_stop, with_transaction
from harness.durability import Durability
from harness.interruptions import Interruption
from harness.pytest_plugin import Trial
from harness.scenario import Scenario
from scenarios import emails, orders, reports
from scenarios.expectations import expect_control, expect_exactly_once, expect_little_repeated

on_redis = pytest.mark.parametrize(
    "lab",
    [{"broker": "redis"}, {"broker": "redis", "database": "postgresql"}],
    ids=["redis-sqlite", "redis-postgresql"],
    indirect=True,
)
SCENARIOS = [orders.scenario, reports.scenario, emails.scenario]
DURABILITIES = [every(seconds=1), on_stop(), every(items=5), with_transaction()]
"""The default first; :func:`on_stop` is what both originals do."""


@pytest.mark.pairwise
@on_redis
@pytest.mark.interruptions("signal:TERM@count:20")
@pytest.mark.parametrize("form", ["steps", "iteration"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_signalled(trial: Trial, scenario: Scenario, form: str, interruption: Interruption) -> None:
    """SIGTERM to the worker alone: the job stops at a checkpoint, and everything is done once."""
    expect_exactly_once(scenario, interruption, trial(scenario, form, interruption))


@pytest.mark.pairwise
@on_redis
@pytest.mark.interruptions("kill:horse@count:20", "kill:worker@count:5", "kill:both@count:33")
@pytest.mark.parametrize("durability", DURABILITIES, ids=str)
@pytest.mark.parametrize("form", ["steps", "iteration"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_killed(
    trial: Trial,
    scenario: Scenario,
    form: str,
    durability: Durability,
    interruption: Interruption,
) -> None:
    """SIGKILL in the middle of an item: nothing is lost, and no more repeated than the durability says."""
    record = trial(scenario, form, interruption, durability)
    assert record["stop_latency_s"] is None, "nobody asked it to stop"
    expect_little_repeated(scenario, durability, record)


@on_redis
@pytest.mark.interruptions("kill:horse@count:20")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_killed_control(trial: Trial, scenario: Scenario, interruption: Interruption) -> None:
    """The plain loop starts at its first item after its work horse crashed."""
    expect_control(interruption, trial(scenario, "plain", interruption))


@pytest.mark.parametrize("lab", [{"broker": "redis"}], ids=["redis-sqlite"], indirect=True)
@pytest.mark.interruptions("kill:both@count:20")
def test_left_alone_control(trial: Trial, interruption: Interruption) -> None:
    """If its worker crashes too, only RQ requeues the plain loop, after minutes; the test does not wait for that."""
    record = trial(orders.scenario, "plain", interruption)
    assert (record["verdict"], record["lost"]) == ("never finished", record["items"] - 20)
