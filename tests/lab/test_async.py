"""Async jobs in the lab, one and several items at a time: stopped, signalled and killed."""

from __future__ import annotations

import pytest

from harness import every, with_transaction
from harness.interruptions import Interruption
from harness.pytest_plugin import Trial
from harness.scenario import Scenario
from tests.lab.async_jobs import FIVE, ONE

of_both = pytest.mark.parametrize("scenario", [ONE, FIVE], ids=str)
on_rq = pytest.mark.parametrize("lab", [{"broker": "redis"}], ids=["rq"], indirect=True)
on_others = pytest.mark.parametrize(
    "lab",
    [
        pytest.param({"queue": "celery", "broker": "redis"}, id="celery"),
        pytest.param({"queue": "dramatiq", "broker": "redis"}, id="dramatiq", marks=pytest.mark.full),
    ],
    indirect=True,
)


@of_both
@pytest.mark.interruptions("count:10", "every:7", "flag", "signal:TERM@count:20")
def test_a_stop_repeats_nothing(trial: Trial, scenario: Scenario, interruption: Interruption) -> None:
    """In the test's process, a stop finishes the items in progress, and each is done once."""
    record = trial(scenario, "iteration", interruption, every(items=5))
    assert (record["verdict"], record["repeated"]) == ("exactly once", 0)


@on_rq
@of_both
@pytest.mark.interruptions("signal:TERM@count:20", "kill:horse@count:20", "kill:both@count:20")
def test_real_workers_lose_and_double_nothing(
    trial: Trial, scenario: Scenario, interruption: Interruption
) -> None:
    """With RQ's worker, work and completion in one commit survive SIGTERM and SIGKILL."""
    record = trial(scenario, "iteration", interruption, with_transaction())
    assert record["verdict"] == "exactly once"
    assert record["executions"] > 1
    assert record["repeated"] <= (1 if scenario is ONE else 5)


@on_others
@pytest.mark.interruptions("kill:both@count:20")
def test_other_queues_lose_and_double_nothing(trial: Trial, interruption: Interruption) -> None:
    """The same holds on other queues."""
    record = trial(FIVE, "iteration", interruption, with_transaction())
    assert record["verdict"] == "exactly once"
    assert record["repeated"] <= 5
