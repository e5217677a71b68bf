"""Outages at the end of an execution on Celery or Dramatiq: the job is neither lost nor failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from harness import events
from harness.iteration import IterationJob
from harness.lab.queue_jobs import Count
from harness.lab.servers import Server, redis_server
from harness.queues.periodic import SETTING
from harness.sources.enumerators import Enumerator, items
from harness.stores.redis import RedisStore
from tests.queues.backends import backend_named
from tests.queues.fleet import lines

LOST = pytest.mark.parametrize("lost", ["call", "answer"])


@pytest.fixture
def server() -> Iterator[Server]:
    """Yield a Redis of the test's own, which keeps its data over a restart."""
    with redis_server(appendonly=True) as started:
        yield started


@pytest.fixture(autouse=True)
def _short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let leases expire soon."""
    monkeypatch.setenv(SETTING, "1")


@pytest.fixture(params=["celery", "dramatiq"])
def backend(request: pytest.FixtureRequest, real_redis: Redis) -> Iterator[Any]:
    """Yield a queue that reads its results, whether there is a backend for them or not."""
    with backend_named(request.param, real_redis) as made:
        made.queue.stores_results = True  # of Dramatiq
        yield made


class Ends(IterationJob):
    """Calls a function in its second number, the first time."""

    resume_errors_after_advancing = False
    act: Any = ()
    done: list[int] = []  # noqa: RUF012 - of the test

    def build_enumerator(self, *, cursor: Any) -> Enumerator[int]:
        """Go through four numbers."""
        return items(range(4), cursor=cursor)

    def each_iteration(self, item: int) -> None:
        """Do one number."""
        if item == 1 and type(self).act:
            type(self).act.pop()()
        type(self).done.append(item)


def fail() -> None:
    """Fail like a job."""
    raise RuntimeError("not this time")


def over(backend: Any, job_id: str = "job") -> Callable[[], bool]:
    """Return a condition that holds when the ticket of a job is over."""
    return lambda: backend.queue.tickets.read(job_id).get("state") == "over"


def losing(backend: Any, monkeypatch: pytest.MonkeyPatch, name: str, lost: str) -> list[str]:
    """Lose the connection at the first call of a script, with the call or with its answer; return when it was lost."""
    scripts, seen = backend.queue.tickets._scripts, list[str]()
    script = scripts[name]

    def called(*arguments: Any, **named: Any) -> Any:
        first = not seen
        seen.append(name)
        if first and lost == "call":
            raise RedisConnectionError("the connection is lost")
        answer = script(*arguments, **named)
        if first:
            raise RedisConnectionError("the answer is lost")
        return answer

    monkeypatch.setitem(scripts, name, called)
    return seen


def test_a_completed_job_waits_for_its_result(
    backend: Any, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A completed job whose result cannot be read goes back, and is completed with that result; no item is repeated."""
    ended = over(backend, "with-result")
    with Redis.from_url(server.url) as connection:
        backend.queue._store = RedisStore(connection)
        away = list[bool]()

        def stop(event: events.Event) -> None:
            if isinstance(event, events.ProgressSaved) and event.why == "completed" and not away:
                away.append(True)
                server.stop()

        def until() -> bool:
            if away == [True] and "cannot be read now" in caplog.text:
                away.append(False)
                server.start()
            return ended()

        with events.subscribe(stop), caplog.at_level("WARNING", "harness.queues"):
            handle = backend.enqueue(Count, str(tmp_path / "lines"), 3, job_id="with-result")
            backend.work(until)
        assert away == [True, False]
        assert lines(tmp_path / "lines") == ["0", "1", "2"]
        assert backend.queue.tickets.read("with-result")["outcome"] == "completed"
        if backend.queue.kind == "celery":
            assert handle.get(timeout=1)["done"] == 3


@LOST
def test_a_retry_that_redis_does_not_confirm_is_no_failure(
    backend: Any, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job whose retry met a short outage of Redis runs again and completes."""
    monkeypatch.setattr(Ends, "act", [fail])
    monkeypatch.setattr(Ends, "done", [])
    seen = losing(backend, monkeypatch, "requeue", lost)
    backend.enqueue(Ends, job_id="job", retries=1)
    backend.work(lambda: over(backend)() and backend.queue.tickets.read("job")["outcome"] == "completed")
    assert seen
    assert Ends.done == [0, 1, 2, 3]
    assert backend.progress("job").done == 4


@LOST
def test_an_interruption_that_redis_does_not_confirm_loses_no_job(
    backend: Any, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted job whose requeue met a short outage of Redis is not over, and does its remaining items."""
    monkeypatch.setattr(Ends, "act", [lambda: backend.request_stop("job")])
    monkeypatch.setattr(Ends, "done", [])
    seen = losing(backend, monkeypatch, "requeue", lost)
    backend.enqueue(Ends, job_id="job")
    backend.work(over(backend))
    assert seen
    assert Ends.done == [0, 1, 2, 3]
    assert backend.queue.tickets.read("job")["outcome"] == "completed"


@LOST
@pytest.mark.parametrize("asked", ["pause", "cancel"])
def test_a_pause_or_cancellation_that_redis_does_not_confirm_is_no_failure(
    backend: Any, asked: str, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job whose pause or cancellation met a short outage of Redis is paused or cancelled, and has not failed."""
    monkeypatch.setattr(Ends, "act", [lambda: getattr(backend, asked)("job")])
    monkeypatch.setattr(Ends, "done", [])
    seen = losing(backend, monkeypatch, "park" if asked == "pause" else "close", lost)
    backend.enqueue(Ends, job_id="job")
    states, ticket = {"parked", "over"}, dict[str, str]()

    def ended() -> bool:
        ticket.update(backend.queue.tickets.read("job"))
        return ticket["state"] in states

    backend.work(ended)
    assert seen
    assert ticket["state"] == ("parked" if asked == "pause" else "over")
    assert ticket.get("outcome") == (None if asked == "pause" else "cancelled")
    assert Ends.done == [0, 1]


@LOST
@pytest.mark.parametrize("failing", [False, True])
def test_an_end_that_redis_does_not_confirm_is_recorded_in_the_end(
    backend: Any, failing: bool, lost: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A job whose ticket cannot be closed at its end repeats no item, and is over after a sweep at the latest."""
    monkeypatch.setattr(Ends, "act", [fail] if failing else [])
    monkeypatch.setattr(Ends, "done", [])
    seen = losing(backend, monkeypatch, "close", lost)
    with caplog.at_level("WARNING", "harness.queues"):
        backend.enqueue(Ends, job_id="job")
        backend.work(over(backend))
    assert seen
    assert "its ticket was not closed" in caplog.text
    assert Ends.done == ([0] if failing and lost == "answer" else [0, 1, 2, 3])
