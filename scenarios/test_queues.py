"""The three jobs on Celery and Dramatiq, with real workers on Redis and RabbitMQ that are signalled and killed."""

from __future__ import annotations

import pytest

from harness import every, with_transaction
from harness.durability import Durability
from harness.errors import NothingInterrupted
from harness.interruptions import Interruption
from harness.pytest_plugin import Trial
from harness.scenario import Scenario
from scenarios import emails, orders, reports
from scenarios.expectations import expect_control, expect_exactly_once, expect_little_repeated

full = pytest.mark.full


def on(*short: str) -> pytest.MarkDecorator:
    """Run a test on each queue and broker; without --full on the ones given."""
    names = ("celery-redis", "celery-rabbitmq", "dramatiq-redis", "dramatiq-rabbitmq")
    return pytest.mark.parametrize(
        "lab",
        [
            pytest.param(
                dict(zip(("queue", "broker"), name.split("-"), strict=True)),
                id=name,
                marks=() if name in short else full,
            )
            for name in names
        ],
        indirect=True,
    )


of_scenarios = pytest.mark.parametrize(
    "scenario",
    [orders.scenario, *(pytest.param(each.scenario, marks=full) for each in (reports, emails))],
    ids=str,
)
in_forms = pytest.mark.parametrize("form", [pytest.param("steps", marks=full), "iteration"])
durabilities = pytest.mark.parametrize(
    "durability",
    [with_transaction(), pytest.param(every(seconds=1), marks=full)],
    ids=str,
)


@on("celery-redis", "dramatiq-rabbitmq")
@pytest.mark.interruptions("signal:TERM@count:20")
@in_forms
@of_scenarios
def test_signalled(trial: Trial, scenario: Scenario, form: str, interruption: Interruption) -> None:
    """SIGTERM to the main process: the job stops at a checkpoint, and everything is done once."""
    expect_exactly_once(scenario, interruption, trial(scenario, form, interruption))


@on("celery-redis", "dramatiq-rabbitmq")
@pytest.mark.interruptions("kill:both@count:33")
@durabilities
@in_forms
@of_scenarios
def test_killed(
    trial: Trial, scenario: Scenario, form: str, durability: Durability, interruption: Interruption
) -> None:
    """SIGKILL in the middle of an item: nothing is lost, and no more repeated than the durability says."""
    record = trial(scenario, form, interruption, durability)
    assert record["stop_latency_s"] is None, "nobody asked it to stop"
    expect_little_repeated(scenario, durability, record)


@full
@on()
@pytest.mark.interruptions("kill:horse@count:20", "kill:worker@count:5")
@of_scenarios
def test_one_process_killed(trial: Trial, scenario: Scenario, interruption: Interruption) -> None:
    """SIGKILL to the process of the pool, or to the main process alone: nothing is lost, and nothing done twice."""
    durability = with_transaction()
    expect_little_repeated(scenario, durability, trial(scenario, "iteration", interruption, durability))


@pytest.mark.parametrize(
    "lab",
    [
        {"queue": "celery", "broker": "redis"},
        pytest.param({"queue": "celery", "broker": "rabbitmq"}, marks=full),
        {"queue": "dramatiq", "broker": "rabbitmq"},
    ],
    ids=["celery-redis", "celery-rabbitmq", "dramatiq-rabbitmq"],
    indirect=True,
)
@pytest.mark.interruptions("kill:horse@count:20")
@of_scenarios
def test_killed_control(trial: Trial, scenario: Scenario, interruption: Interruption) -> None:
    """The plain loop starts at its first item where its queue delivers it again at once."""
    expect_control(interruption, trial(scenario, "plain", interruption))


@full
@pytest.mark.parametrize(
    "lab",
    [{"queue": "celery", "broker": "redis"}, {"queue": "dramatiq", "broker": "redis"}],
    ids=["celery-redis", "dramatiq-redis"],
    indirect=True,
)
@pytest.mark.interruptions("kill:both@count:20", "signal:TERM@count:20")
def test_left_alone_control(trial: Trial, interruption: Interruption) -> None:
    """On Redis the plain loop comes back after a minute or an hour; the test does not wait for that."""
    record = trial(orders.scenario, "plain", interruption)
    assert (record["verdict"], record["lost"]) == ("never finished", record["items"] - 20)


@pytest.mark.parametrize("lab", [{"queue": "celery", "broker": "redis"}], ids=["celery-redis"], indirect=True)
@pytest.mark.interruptions("kill:horse@count:500")
def test_an_interruption_that_never_comes_fails_the_trial(trial: Trial, interruption: Interruption) -> None:
    """A kill behind the last item has shown nothing, and the trial says so."""
    with pytest.raises(NothingInterrupted, match=r"kill:horse@count:500: it did 61 items"):
        trial(orders.scenario, "iteration", interruption)
