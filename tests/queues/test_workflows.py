"""Groups, chords and priorities of Celery, and groups of Dramatiq, with jobs in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from celery import chord, group
from redis import Redis

from harness.lab.queue_jobs import Count, Yields
from harness.queues import celery as harness_celery
from harness.queues.tickets import Sending
from tests.queues.backends import OnCelery
from tests.queues.fleet import PATIENCE, Fleet, lines

RESULTS = [("0", 3), ("1", 4)]


def test_a_group_has_the_results_of_whole_jobs(real_redis: Redis, tmp_path: Path) -> None:
    """A group's result is the list of the jobs' results, however often they were interrupted."""
    backend = OnCelery(real_redis)
    jobs = [
        harness_celery.signature(backend.app, Yields, str(tmp_path / name), number)
        for name, number in RESULTS
    ]
    result = group(jobs).apply_async()
    backend.work(result.ready)
    found = result.get(timeout=PATIENCE)
    assert [each["done"] for each in found] == [3, 4]
    assert all(each["interruptions"] > 0 for each in found)


def test_a_chord_starts_its_body_once_after_the_jobs(real_redis: Redis, tmp_path: Path) -> None:
    """The body of a chord gets the results of the whole jobs, once."""
    backend, bodies = OnCelery(real_redis), list[Any]()

    @backend.app.task(name="body", shared=False)  # type: ignore[untyped-decorator]  # Celery has no types
    def body(results: Any) -> None:
        bodies.append([each["done"] for each in results])

    jobs = [
        harness_celery.signature(backend.app, Yields, str(tmp_path / name), number)
        for name, number in RESULTS
    ]
    result = chord(jobs)(body.s())
    backend.work(result.ready)
    assert bodies == [[3, 4]]


def test_a_message_that_is_sent_again_keeps_its_priority(real_redis: Redis, tmp_path: Path) -> None:
    """The priority of a job is part of the message in its ticket, and of each message that is sent again."""
    backend = OnCelery(real_redis)
    options = {"task_id": "job", "priority": 7}
    harness_celery.enqueue(backend.app, Count, str(tmp_path / "lines"), 2, options=options)
    ticket = backend.queue.tickets.read("job")
    assert json.loads(ticket["message"])["properties"]["priority"] == 7
    with backend.app.connection_for_read() as connection:
        sent = connection.default_channel
        sent.queue_purge(backend.app.main)
        backend.queue.send(Sending("job", 1, ticket["message"]))
        message = connection.SimpleQueue(backend.app.main).get(timeout=PATIENCE)
        assert message.properties["priority"] == 7
        message.ack()


@pytest.mark.full
def test_a_group_of_dramatiq_has_the_results_of_whole_jobs(
    fleets: Callable[..., Fleet], tmp_path: Path
) -> None:
    """A group's results are the jobs' results."""
    fleet = fleets("dramatiq", "redis")
    jobs = [fleet.api.message(fleet.app, Yields, str(tmp_path / name), number) for name, number in RESULTS]
    together: Any = dramatiq.group
    running = together(jobs, broker=fleet.app).run()
    fleet.start()
    found = list(running.get_results(block=True, timeout=PATIENCE * 1000))
    assert [each["done"] for each in found] == [3, 4]
    assert lines(tmp_path / "0") == ["0", "1", "2"]
