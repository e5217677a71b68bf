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
    # The processes of Dramatiq go on without their main process; all others notice, and the job comes back.
    outlives = record["queue"] == "dramatiq" and "kill:worker" in record["interruption"]
    assert record["executions"] > (not outlives), record
    assert record["lost"] == 0, record
    # What was done twice is in a sum twice; everything else holds.
    assert all(record["checks"].values()) or record["duplicated"], record
    most = most_repeated(scenario, durability, record)
    assert record["duplicated"] <= most, record
    assert not record["duplicated_by_key"]
    assert record["repeated"] <= most + 1, record  # the item in progress is begun again


def most_repeated(scenario: Scenario, durability: Durability, record: dict[str, Any]) -> int:
    """Return the number of items that a killed run may repeat: the items done since the last save."""
    if durability.transactional:
        return 1 if scenario.name == "emails" else 0
    if durability.items is not None:
        return durability.items
    # Pairs of seconds and items begun; the lab keeps a few of them, the last one included.
    points = [[0.0, 0], *record["timeline"]["executions"][0]["items"]]
    window = max(
        count - max(before for moment, before in points if moment <= max(now - durability.seconds, 0.0))
        for now, count in points
    )
    return int(window) + scenario.items_per_checkpoint


def expect_control(interruption: Interruption, record: dict[str, Any]) -> None:
    """The plain loop is fine while nothing happens, and does items twice once something has."""
    if interruption.name == "none":
        assert record["verdict"] == "exactly once", record
    else:
        assert record["executions"] > 1
        assert record["duplicated"] > 0, "a control that cannot fail shows nothing"
        assert record["repeated"] >= record["duplicated"]


def predicted_executions(scenario: Scenario, interruption: Interruption, items: int) -> int:
    """Return the number of executions that a job with checkpoints needs.

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
