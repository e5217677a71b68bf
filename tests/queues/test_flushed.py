"""Redis loses all tickets and all progress, while the broker keeps its messages: jobs run, and run once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from harness.iteration import IterationJob
from harness.lab.queue_jobs import Count
from harness.queues import celery
from harness.queues.celery.queue import STAMP
from harness.queues.tickets import Sending
from harness.sources.enumerators import Enumerator, items
from tests.queues.backends import OnCelery, OnDramatiq
from tests.queues.fleet import Fleet, lines, wait_for_lines

QUEUES = pytest.mark.parametrize("kind", [OnCelery, OnDramatiq])


class Flushed(IterationJob):
    """Has Redis lose everything in the middle of its work."""

    flush: Any = staticmethod(lambda: None)
    done: list[int] = []  # noqa: RUF012 - of the test

    def build_enumerator(self, *, cursor: Any) -> Enumerator[int]:
        """Go through four numbers."""
        return items(range(4), cursor=cursor)

    def each_iteration(self, item: int) -> None:
        """Do one number."""
        type(self).done.append(item)
        if item == 1:
            type(self).flush()


class FailsAfterStop(IterationJob):
    """Is asked to stop in its first number, and fails once in its third."""

    resume_errors_after_advancing = False
    left: Any = ()
    stop: Any = staticmethod(lambda: None)

    def build_enumerator(self, *, cursor: Any) -> Enumerator[int]:
        """Go through four numbers."""
        return items(range(4), cursor=cursor)

    def each_iteration(self, item: int) -> None:
        """Do one number, or fail."""
        if item == 0:
            type(self).stop()
        if item == 2 and type(self).left:
            raise RuntimeError(type(self).left.pop())


def over(backend: Any, job_id: str = "job") -> Callable[[], bool]:
    """Return a condition that holds when the ticket of a job is over."""
    return lambda: backend.queue.tickets.read(job_id).get("state") == "over"


@QUEUES
def test_a_job_that_runs_makes_its_ticket_again(
    kind: Any, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job whose ticket and progress are lost while it runs goes on to its end, and is over then."""
    backend = kind(real_redis)
    monkeypatch.setattr(Flushed, "flush", real_redis.flushdb)
    monkeypatch.setattr(Flushed, "done", [])
    backend.enqueue(Flushed, job_id="job")
    backend.work(over(backend))
    assert Flushed.done == [0, 1, 2, 3]
    assert backend.queue.tickets.read("job")["outcome"] == "completed"
    progress = backend.progress("job")
    assert (progress.state, progress.done, progress.crashes) == ("completed", 4, 0)


@QUEUES
def test_another_job_under_the_id_of_a_lost_ticket_is_not_mixed_up(
    kind: Any, real_redis: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A message without a ticket whose id another job has by now is dropped with a warning; the other job runs."""
    backend = kind(real_redis)
    backend.enqueue(Count, str(tmp_path / "lost"), 2, job_id="job")
    message = backend.queue.tickets.read("job")["message"]
    real_redis.flushdb()
    backend.enqueue(Count, str(tmp_path / "found"), 3, job_id="job")
    dropped, over_now = "another job has its id now; its message is dropped", over(backend)
    with caplog.at_level("WARNING", "harness.queues"):
        backend.work(lambda: over_now() and dropped in caplog.text)
        for number in (1, 3):  # when the other job is over; the lost ticket may have had a higher number
            caplog.clear()
            backend.queue.send(Sending("job", number, message))
            backend.work(lambda: dropped in caplog.text)
    assert lines(tmp_path / "found") == ["0", "1", "2"]
    assert not (tmp_path / "lost").exists()


@QUEUES
def test_a_ticket_that_is_made_again_has_the_retries_of_its_job(kind: Any, real_redis: Redis) -> None:
    """A job whose ticket was lost, and which is interrupted and fails then, has the retries it was enqueued with."""
    backend, left = kind(real_redis), [1]
    backend.enqueue(FailsAfterStop, job_id="job", retries=1)
    real_redis.flushdb()
    FailsAfterStop.left, FailsAfterStop.stop = left, lambda: backend.request_stop("job")
    backend.work(over(backend))
    assert left == []
    assert backend.queue.tickets.read("job")["outcome"] == "completed"


def test_a_ticket_of_celery_that_is_made_again_has_the_headers_of_its_sender(
    real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job whose ticket was lost, and which is interrupted then, keeps the headers that its sender has set."""
    backend, headers = OnCelery(real_redis), {"tenant": "acme", "traceparent": "00-1-2-01"}
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(FailsAfterStop, "left", [])
    monkeypatch.setattr(FailsAfterStop, "stop", lambda: backend.request_stop("job"))
    options = {"task_id": "job", "headers": headers}
    celery.enqueue(backend.app, FailsAfterStop, options=options)
    before = json.loads(backend.queue.tickets.read("job")["message"])["headers"]
    real_redis.flushdb()

    def until() -> bool:
        ticket = backend.queue.tickets.read("job")
        if ticket:
            seen.append(json.loads(ticket["message"])["headers"])
        return ticket.get("state") == "over"

    backend.work(until)
    assert {name: seen[-1][name] for name in headers} == headers
    assert STAMP not in seen[-1]
    assert set(seen[-1]) <= set(before)


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", ["celery", "dramatiq"])
def test_messages_in_rabbitmq_outlive_their_tickets(
    kind: str, fleets: Callable[..., Fleet], tmp_path: Path
) -> None:
    """Jobs that wait in RabbitMQ and one that runs do each item once after Redis has lost all that is known of them."""
    fleet, running = fleets(kind, "rabbitmq"), tmp_path / "running"
    names = [f"waiting{number}" for number in range(3)]
    handles = [fleet.enqueue(Count, str(tmp_path / name), 3, job_id=name) for name in names]
    copy = Sending(names[0], 1, fleet.queue.tickets.read(names[0])["message"])
    fleet.queue.connection.flushdb()
    fleet.queue.send(copy)
    fleet.start()
    handles.append(fleet.enqueue(Count, str(running), 60, 0.05, job_id="running"))
    wait_for_lines(running, 3)
    fleet.queue.connection.flushdb()
    for handle in handles:
        fleet.result(handle)
    fleet.result(fleet.enqueue(Count, str(tmp_path / "after"), 1, job_id="after"))
    assert lines(running) == [str(number) for number in range(60)]
    for name in names:
        assert lines(tmp_path / name) == ["0", "1", "2"], name
