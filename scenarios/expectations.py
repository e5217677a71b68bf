"""Expectations about the records of trials, in one place for all scenarios."""

from __future__ import annotations

from typing import Any

from harness.durability import Durability
from harness.interruptions import Interruption
from harness.scenario import Scenario

INTERRUPTIONS = (
    "none", "count:20", "every:7", "time:0.05s", "progress:40%", "flag", "signal:TERM@progress:30%",
    "signal:INT@progress:70%",
)  # fmt: skip


def expect_exactly_once(scenario: Scenario, interruption: Interruption, record: dict[str, Any]) -> None:
    """A job with checkpoints completes, loses nothing and does nothing twice, in the executions predicted."""
    assert record["verdict"] == "exactly once", record
    assert (record["completed"], record["lost"], record["duplicated"], record["repeated"]) == (True, 0, 0, 0)
    assert all(record["checks"].values())
    assert record["executions"] == predicted_executions(scenario, interruption, record["items"])


def expect_little_repeated(scenario: Scenario, durability: Durability, record: dict[str, Any]) -> None:
    """A job that was killed completes and loses nothing; what it did again is bounded by its durability.

    In the database that is nothing where work and cursor are committed together. A mail is never in a transaction:
    the one that was on its way may go out twice, and has the same key then.
    """
    assert record["completed"], record
    assert record["executions"] > ("kill:worker" not in record["interruption"])
    assert record["lost"] == 0, record
    # What was done twice is in a sum twice; everything else holds.
    assert all(record["checks"].values()) or record["duplicated"], record
    most = durability.items or 0
    if durability.transactional:
        most = 1 if scenario.name == "emails" else 0
    assert record["duplicated"] <= most, record
    assert not record["duplicated_by_key"]
    assert record["repeated"] <= (durability.items or 0) + 1  # the item in progress is begun again


def expect_control(interruption: Interruption, record: dict[str, Any]) -> None:
    """The plain loop is fine while nothing happens, and does items twice once something has."""
    if interruption.name == "none":
        assert record["verdict"] == "exactly once", record
    else:
        assert record["executions"] > 1
        assert record["duplicated"] > 0, "a control that cannot fail shows nothing"
        assert record["repeated"] >= record["duplicated"]


def predicted_executions(scenario: Scenario, interruption: Interruption, items: int) -> int:
    """Return how many executions a job with checkpoints needs.

    ``every:N`` stops at the first checkpoint at or after N items, the one after the last item included: then
    one more execution finds nothing to do.
    """
    if interruption.name == "none":
        return 1
    if not interruption.name.startswith("every:"):
        return 2
    every = int(interruption.name.removeprefix("every:"))
    chunk = -(-every // scenario.items_per_checkpoint) * scenario.items_per_checkpoint
    return items // chunk + 1
