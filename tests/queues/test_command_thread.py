"""The thread that listens to RQ's commands survives errors, and does not keep a core busy with them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from redis.client import PubSub
from rq import Queue
from rq.job import JobStatus

from harness.queues.rq import SimpleWorker, enqueue
from tests.jobs import CountByIteration


def test_an_error_that_lasts_is_met_at_intervals(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two looks a second are enough where each of them fails."""
    looks = []

    def broken(*_: Any, **__: Any) -> None:
        looks.append(time.monotonic())
        raise ValueError("this is no message")

    monkeypatch.setattr(PubSub, "get_message", broken)
    job = enqueue(queue, CountByIteration, 1000)
    began = time.monotonic()
    SimpleWorker([queue], connection=queue.connection).work(burst=True, logging_level="CRITICAL")
    assert job.get_status() == JobStatus.FINISHED
    assert 1 <= len(looks) <= 2 + 2 * (time.monotonic() - began)
