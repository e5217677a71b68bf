"""Calls in this package for an item of an iteration job on RQ that saves after each item."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from rq import Queue

import harness
from harness import IterationJob, every, items
from harness.lab.servers import redis_server
from harness.queues.rq import SimpleWorker, enqueue

if TYPE_CHECKING:
    from types import FrameType

HOME = str(Path(harness.__file__).parent)
FIRST, LAST = 20, 40
"""Items between which calls are counted."""

CALLS: list[tuple[str, bool]] = []
"""Functions that were called, and whether the caller in this package is in another file."""


def note(frame: FrameType, event: str, _: Any) -> None:
    """Note a call of a function in this package; a comprehension belongs to its function."""
    code = frame.f_code
    if event != "call" or not code.co_filename.startswith(HOME) or code.co_name.startswith("<"):
        return
    caller = frame.f_back
    while caller is not None and not caller.f_code.co_filename.startswith(HOME):
        caller = caller.f_back
    CALLS.append((code.co_name, caller is None or caller.f_code.co_filename != code.co_filename))


class Counted(IterationJob):
    """Counts the calls between two of its items."""

    durability = every(items=1)

    def build_enumerator(self, *, cursor: int | None) -> Any:
        """Go through a range."""
        return items(range(2 * LAST), cursor=cursor)

    def each_iteration(self, item: int) -> None:
        """Begin and end the count."""
        if item in {FIRST, LAST}:
            sys.setprofile(note if item == FIRST else None)


def test_an_item_on_rq(capsys: pytest.CaptureFixture[str]) -> None:
    """An item that is saved makes no more calls, and changes the file no more often, than the limits here."""
    CALLS.clear()
    with redis_server() as server, Redis.from_url(server.url) as redis:
        queue = Queue("calls", connection=redis, serializer="json")
        enqueue(queue, Counted)
        SimpleWorker([queue], connection=redis).work(burst=True, logging_level="CRITICAL")
    number = LAST - FIRST
    calls, changes = len(CALLS) / number, sum(changed for _, changed in CALLS) / number
    with capsys.disabled():
        print(f"\nan item with every(items=1) on RQ: {calls:.1f} calls, {changes:.1f} changes of file")
    assert 0 < calls <= 30
    assert changes <= 16
