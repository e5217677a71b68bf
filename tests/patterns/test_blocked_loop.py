"""A job that blocks its event loop is named."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from harness import IterationJob, events, run, subscribe, times


class Blocks(IterationJob):
    """Blocks its loop at one item, by the loop's clock."""

    grace_period = 25
    seconds = 0.0
    turns = False

    def build_enumerator(self, *, cursor: Any) -> Any:
        """Go through three numbers."""
        return times(3, cursor=cursor)

    async def each_iteration(self, number: int) -> None:
        """Put the clock of the loop forward, as a call that blocks would."""
        if number == 1:
            loop: Any = asyncio.get_running_loop()
            time = loop.time
            loop.time = lambda: time() + self.seconds
            if self.turns:
                await asyncio.sleep(0)


@pytest.mark.parametrize("turns", [True, False])
def test_a_blocked_loop_is_reported(caplog: pytest.LogCaptureFixture, turns: bool) -> None:
    """The log names the job, the place and the time, also if the job ends before the loop turns again."""
    caplog.set_level(logging.WARNING, "harness")
    with subscribe((seen := list[Any]()).append, events.LoopBlocked):
        run(type("Job", (Blocks,), {"seconds": 100, "turns": turns}), job_id="7")
    (event,) = seen
    assert (event.job_id, event.job, event.grace_s) == ("7", "Job", 25)
    assert 98 <= event.blocked_s <= 100
    (line,) = (each for each in caplog.messages if "event loop was blocked" in each)
    assert line.startswith("Job (Job ID: 7) The event loop was blocked for")
    assert "longer than the grace period of 25 s" in line


def test_a_shorter_block_is_not_reported() -> None:
    """A loop that stands still for less than the grace period delays no deploy."""
    with subscribe((seen := list[Any]()).append, events.LoopBlocked):
        run(type("Job", (Blocks,), {"seconds": 20, "turns": True}))
    assert seen == []
