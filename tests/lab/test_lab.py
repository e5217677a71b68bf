"""The lab: what it records, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import ContinuableJob, IterationJob, every, mark, overrides, times
from harness.errors import NothingInterrupted, UsageError
from harness.interruptions import parse_interruption
from harness.lab import Lab, environment
from harness.report import comparison
from harness.scenario import Effects, Scenario
from tests.jobs import DONE, CountInSteps

NUMBERS = 20


def plain(numbers: list[int]) -> None:
    """Do the numbers."""
    for number in numbers:
        mark(number)
        DONE.append(number)


class Iteration(IterationJob):
    """Does twenty numbers, and waits a minute after each interruption."""

    resume_delay = 60

    def build_enumerator(self, *, cursor: Any) -> Any:
        """Go through the numbers."""
        return times(NUMBERS, cursor=cursor)

    def each_iteration(self, item: int) -> None:
        """Do one."""
        mark(item)
        DONE.append(item)


class NotesPolls(Iteration):
    """Notes how often requests are asked for; None is the workers' interval."""

    def each_iteration(self, item: int) -> None:
        """Do one."""
        super().each_iteration(item)
        POLLS.add(overrides.current.poll_seconds)


POLLS: set[float | None] = set()


class OneStep(ContinuableJob):
    """Does twenty numbers in one step without a cursor, after which no checkpoint comes."""

    def perform(self) -> None:
        """Do the step."""
        self.step("all")

    def all(self) -> None:
        """Do the numbers."""
        plain(list(range(NUMBERS)))


class Endless(Iteration):
    """Never moves its cursor on."""

    def build_enumerator(self, *, cursor: Any) -> Any:
        """Begin at the start each time."""
        return super().build_enumerator(cursor=None)


def judge(_: object) -> Effects:
    """Compare what was done with the numbers."""
    did = [item for item in DONE if isinstance(item, int)]
    return Effects(
        lost=len(set(range(NUMBERS)) - set(did)), duplicated=sum(did.count(number) > 1 for number in set(did))
    )


def numbers_scenario(iteration: Any = Iteration) -> Scenario:
    """Return a scenario without a database."""
    return Scenario(
        name="numbers", forms={"plain": plain, "steps": CountInSteps, "iteration": iteration}, seed=lambda size: None,
        clear=lambda: None, arguments=lambda: list(range(NUMBERS)), count=lambda: NUMBERS, judge=judge,
        close=lambda: None,
    )  # fmt: skip


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Yield a lab whose scenarios need no database; on a real Redis, if its parameter says so."""
    broker = request.getfixturevalue(request.param) if hasattr(request, "param") else "fakeredis"
    with Lab(tmp_path, broker=broker) as lab:
        lab._templates["numbers"] = tmp_path / "empty.db"
        (tmp_path / "empty.db").touch()
        yield lab


def test_a_record_is_what_a_comparison_is_made_of(lab: Lab) -> None:
    """A record is JSON, has every field, and has the figures of the trial."""
    record = lab.run(numbers_scenario(), "iteration", parse_interruption("every:7"), every(items=2))
    assert (
        comparison(environment("quick", 0.0, ["rq"]), [json.loads(json.dumps(record))]).runs[0].executions
        == 3
    )
    assert (record["durability"], record["broker"], record["database"]) == (
        "every(items=2)",
        "fakeredis",
        "sqlite",
    )
    assert (record["verdict"], record["items"], record["repeated"]) == ("exactly once", NUMBERS, 0)
    assert record["progress_bytes"] > 100
    assert record["stop_latency_s"] >= 0
    assert record["resume_latency_s"] >= 0
    executions = record["timeline"]["executions"]
    assert [each["ended"] for each in executions] == ["interrupted", "interrupted", "completed"]
    assert [each["items"][-1][1] for each in executions] == [7, 7, 6]


def test_the_plain_form_is_cut_off_and_started_again(lab: Lab) -> None:
    """The plain form, the control, repeats what it had done."""
    record = lab.run(numbers_scenario(), "plain", parse_interruption("count:5"))
    assert (record["verdict"], record["duplicated"], record["repeated"]) == ("duplicated", 5, 5)
    assert [each["ended"] for each in record["timeline"]["executions"]] == ["cut off", "completed"]


def test_the_plain_form_may_never_finish(lab: Lab) -> None:
    """Interrupted in every execution it uses up RQ's retries, and what lies behind is lost."""
    record = lab.run(numbers_scenario(), "plain", parse_interruption("every:5"))
    assert (record["verdict"], record["executions"], record["lost"]) == ("never finished", 4, 15)


@pytest.mark.parametrize("form", ["plain", "steps", "iteration"])
def test_an_interruption_that_never_fired_is_an_error(lab: Lab, form: str) -> None:
    """A trial that met no interruption has shown nothing."""
    with pytest.raises(NothingInterrupted, match=f"numbers as {form} was not interrupted by count:1000"):
        lab.run(numbers_scenario(), form, parse_interruption("count:1000"))


@pytest.mark.parametrize("lab", ["redis_url"], indirect=True)
def test_a_kill_that_the_job_never_met_is_an_error(lab: Lab) -> None:
    """A work horse that finishes the job although its worker was killed was not interrupted."""
    with pytest.raises(NothingInterrupted, match="numbers as iteration was not interrupted by kill:worker"):
        lab.run(numbers_scenario(OneStep), "iteration", parse_interruption("kill:worker@count:5"))


def test_a_job_that_never_ends_is_reported(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the limit of executions the verdict is "never finished"."""
    monkeypatch.setattr("harness.lab.embedded.MAX_EXECUTIONS", 5)
    record = lab.run(numbers_scenario(Endless), "iteration", parse_interruption("every:7"))
    assert (record["verdict"], record["executions"]) == ("never finished", 5)


def test_time_is_counted_where_no_pace_is_given(lab: Lab) -> None:
    """An item counts as a fiftieth of a second, so that time:0.1s stops after five."""
    record = lab.run(numbers_scenario(), "iteration", parse_interruption("time:0.1s"))
    assert record["timeline"]["executions"][0]["items"][-1][1] == 5


def test_what_a_lab_cannot_work_with_is_refused(tmp_path: Path) -> None:
    """A wrong pace, a wrong form and each wrong database get one clear line, without a password."""
    with pytest.raises(UsageError, match="got a pace of -1"):
        Lab(tmp_path, pace=-1)
    with pytest.raises(UsageError, match="cannot be used: it cannot be parsed"):
        Lab(tmp_path, database="nonsense")
    with pytest.raises(UsageError, match=r"the database sqlite:////nowhere/x\.db cannot be reached"):
        Lab(tmp_path, database="sqlite:////nowhere/x.db")
    with (
        Lab(tmp_path) as lab,
        pytest.raises(UsageError, match=r"has no form 'fancy'; use plain, steps"),
    ):
        lab.run(numbers_scenario(), "fancy", parse_interruption("none"))


def test_a_worker_leaves_the_signal_handlers_as_they_were(lab: Lab) -> None:
    """A trial restores the signal handlers that it changed."""
    lab.run(numbers_scenario(), "steps", parse_interruption("signal:INT@count:3"))
    assert DONE.count(3) == 1


@pytest.mark.parametrize(
    ("queue", "broker", "message"),
    [
        ("huey", None, "got the queue 'huey'; use rq, celery, dramatiq"),
        ("rq", "rabbitmq", "RQ has no broker but Redis"),
        ("celery", "fakeredis", "Celery runs processes, which fakeredis cannot serve; use redis or rabbitmq"),
        ("dramatiq", "fakeredis", "Dramatiq runs processes"),
    ],
)
def test_a_queue_without_such_a_broker_is_refused(
    tmp_path: Path, queue: str, broker: str | None, message: str
) -> None:
    """A queue that is unknown, or a broker that it does not have, is refused before a server starts."""
    with pytest.raises(UsageError, match=message):
        Lab(tmp_path, queue=queue, broker=broker)


@pytest.mark.parametrize(("interruption", "polls"), [("none", None), ("count:5", None), ("flag", 0.0)])
def test_requests_are_asked_for_as_often_as_workers_do(
    lab: Lab, interruption: str, polls: float | None
) -> None:
    """Only a flag, which nothing else finds at its item, is asked for after each item."""
    POLLS.clear()
    record = lab.run(numbers_scenario(NotesPolls), "iteration", parse_interruption(interruption))
    assert record["verdict"] == "exactly once"
    assert {polls} == POLLS
