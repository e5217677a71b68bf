"""Crash points at the start and end of steps, at checkpoints, and after saves: ``step``, ``checkpoint``, ``saved``.

At a checkpoint an observer may also stop the job: it returns the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness import events
from harness.explore.crash import current

if TYPE_CHECKING:
    from harness.progress import Position


@contextmanager
def probes() -> Iterator[None]:
    """Receive the events of steps until the block ends."""
    with events.subscribe(_edge, events.ProgressSaved, events.StepStarted, events.StepCompleted):
        yield


def at_checkpoint(at: Position) -> str | None:
    """Pass a crash point at every checkpoint; this stop source of the explorer comes before all others."""
    simulated = current()
    if simulated is None:
        return None
    reason = simulated.reach("checkpoint", f"checkpoint at {at.step!r}, cursor {at.cursor!r}")
    return reason if isinstance(reason, str) else None


def _edge(event: events.Event) -> None:
    simulated = current()
    if simulated is None:
        return
    if isinstance(event, events.ProgressSaved):
        simulated.reach("saved", event.why)  # in any store
    elif isinstance(event, events.StepEvent):
        verb = "begins" if isinstance(event, events.StepStarted) else "is done"
        simulated.reach("step", f"step {event.step!r} {verb}")
