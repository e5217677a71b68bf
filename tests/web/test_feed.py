"""One look for all viewers, and the stream of changes that each of them reads."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Queue

from harness.monitor.snapshot import Monitor
from harness.queues.rq import enqueue
from harness.queues.rq.overview import Watcher
from harness.web import feed as feeds
from harness.web.access import Refused
from harness.web.feed import LOOK_SECONDS, Feed, Look, Parts, Topic
from tests.web.jobs import NoArguments, Typed
from tests.web.site import Client, Site, until
from tests.workers import finish_here


class Counted(Monitor):
    """Monitor that notes when it looks, and can be cut off from Redis."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(Watcher(redis))
        self.looks: list[float] = []
        self.whole: list[set[str]] = []
        self.lost = False

    def look(self, whole: Any = ()) -> Any:
        """Look, or fail."""
        self.looks.append(time.monotonic())
        self.whole.append(set(whole))
        if self.lost:
            raise RedisConnectionError("gone")
        return super().look(whole)


def render(look: Look, topic: str) -> Parts:
    """Render the ids of a look."""
    ids = tuple(row.id for row in look.snapshot.jobs) if look.snapshot else ()
    return Parts(ids, {"topic": topic, "error": look.error or "", "at": str(look.at)})


async def read(feed: Feed, topic: str, number: int) -> list[bytes]:
    """Read some events of a stream, and leave it."""
    found, stream = [], feed.stream(topic, {})
    async for each in stream:
        found.append(each)
        if len(found) == number:
            break
    await stream.aclose()  # type: ignore[attr-defined]  # a generator
    return found


def test_twenty_viewers_cost_one_look_each_half_second(redis: Redis) -> None:
    """All viewers share a look; two looks are half a second apart or more; nobody looks when the last has left."""
    monitor = Counted(redis)

    async def view() -> list[list[bytes]]:
        feed = Feed(monitor, render)
        pages = [feed.parts("") for _ in range(5)]
        streams = [read(feed, "" if number % 2 else "some job", 5) for number in range(20)]
        found = await asyncio.gather(*streams, *pages)
        assert feed.viewers == 0
        assert feed._task is not None
        await feed._task
        return found[:20]  # type: ignore[return-value]

    found = asyncio.run(view())
    assert all(len(each) == 5 for each in found)
    gaps = [after - before for before, after in zip(monitor.looks, monitor.looks[1:], strict=False)]
    assert min(gaps) >= LOOK_SECONDS
    assert len(monitor.looks) < 20, "as many as one viewer needs, not twenty"
    assert {"some job"} in monitor.whole
    assert all(each <= {"some job"} for each in monitor.whole)


def test_a_look_is_one_round_trip(redis: Redis, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look with jobs in detail asks Redis once, whatever the number of jobs."""
    ids = [enqueue(queue, Typed, 3).id for _ in range(20)]
    monitor = Monitor(Watcher(redis))
    monitor.look(ids)
    sent = 0
    execute = type(redis.pipeline()).execute

    def counted(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal sent
        sent += 1
        return execute(pipeline, *args, **kwargs)

    monkeypatch.setattr(type(redis.pipeline()), "execute", counted)
    monkeypatch.setattr(redis, "execute_command", None)
    _, details = monitor.look(ids)
    assert set(details) == set(ids)
    assert sent == 1


def test_a_lost_redis_keeps_the_figures_and_says_so(redis: Redis, queue: Queue) -> None:
    """While Redis is away the jobs of the latest look are shown with the error, and afterwards the new ones."""
    job, monitor = enqueue(queue, NoArguments), Counted(redis)

    async def view() -> list[Look]:
        feed = Feed(monitor, render)
        looks = [await feed.look()]
        for lost in (True, False):
            monitor.lost = lost
            looks.append(
                await feed.look(f"asked {lost}")
            )  # a job that the latest look does not have: look again
        return looks

    first, lost, again = asyncio.run(view())
    assert (first.error, lost.error, again.error) == (None, "ConnectionError", None)
    assert lost.snapshot is first.snapshot
    assert [row.id for row in again.snapshot.jobs] == [job.id] if again.snapshot else False


def test_a_redis_that_is_away_from_the_start_is_said_too(redis: Redis) -> None:
    """The page is shown without jobs, and names the error."""
    monitor = Counted(redis)
    monitor.lost = True
    look = asyncio.run(Feed(monitor, render).look())
    assert (look.snapshot, look.error) == (None, "ConnectionError")


def test_a_viewer_gets_what_changed_and_a_slow_one_gets_all() -> None:
    """A change has only what is different; nothing is sent if nothing is."""

    async def publish() -> None:
        topic = Topic()
        topic.publish(Parts(("a", "b"), {"a": "1", "b": "1"}))
        topic.publish(Parts(("a", "b"), {"a": "1", "b": "2"}))
        assert topic.change == b'event: change\ndata: {"parts":{"b":"2"}}\n\n'
        topic.publish(Parts(("a", "b"), {"a": "1", "b": "2"}))
        assert topic.version == 2
        topic.publish(Parts(("b",), {"b": "2"}))
        assert topic.change == b'event: change\ndata: {"parts":{},"order":["b"]}\n\n'
        assert b'"parts":{"b":"2"},"order":["b"]' in topic.whole()

    asyncio.run(publish())


def test_a_change_that_comes_while_a_viewer_reads_is_not_lost(redis: Redis) -> None:
    """Changes between two reads of a viewer are all in what it reads next, be they one or several."""

    async def view(number: int) -> bytes:
        feed = Feed(Counted(redis), render)
        stream = feed.stream("", {})
        await anext(stream)
        await anext(stream)
        topic = feed._topics[""]
        for each in range(number):
            topic.publish(Parts((), {**topic.parts.parts, f"new {each}": "1"}))
        following = await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]  # a generator
        return following

    for number in (1, 3):
        following = asyncio.run(view(number))
        assert all(f'"new {each}":"1"'.encode() in following for each in range(number))


def test_a_fault_of_one_page_does_not_end_the_streams(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """An error while a page is rendered is logged, and the next look is shown."""
    faults = iter([ZeroDivisionError, None])

    def faulty(look: Look, topic: str) -> Parts:
        fault = next(faults, None)
        if fault:
            raise fault
        return render(look, topic)

    found = asyncio.run(read(Feed(Counted(redis), faulty), "", 2))
    assert found[1].startswith(b"event: change")
    assert "cannot be rendered" in caplog.text


def test_viewers_are_limited(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a stream is refused in words, and those that are open go on."""
    monkeypatch.setattr(feeds, "VIEWERS", 2)
    with Site(redis) as site, ExitStack() as stack:
        client = site.client()
        streams = [stack.enter_context(client.events()) for _ in range(2)]
        for each in streams:
            assert next(each)[0] == "hello"
        answer = client.get("/events")
        assert (answer.status, "close some" in answer.text) == (503, True)
        until(streams[0], lambda parts: "clock" in parts)


def test_jobs_in_detail_are_limited(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of pages about different jobs is refused beyond the limit, and Redis is asked for no more of them."""
    monkeypatch.setattr(feeds, "WATCHED", 3)
    monitor = Counted(redis)

    async def ask() -> list[Any]:
        feed = Feed(monitor, render)
        return await asyncio.gather(*(feed.look(str(number)) for number in range(20)), return_exceptions=True)

    found = asyncio.run(ask())
    assert sum(isinstance(each, Refused) for each in found) > 0
    assert max(map(len, monitor.whole)) <= 3


def test_the_page_counts_the_jobs_that_it_does_not_list(client: Client, queue: Queue, redis: Redis) -> None:
    """Of 30 waiting jobs the page lists 8 and says that 22 others wait; a page that lists all jobs says nothing."""
    ids = [enqueue(queue, NoArguments).id for _ in range(30)]
    page = client.get("/").text
    assert sum(job_id in page for job_id in ids) == 8
    assert "22 more jobs are not listed: 22 queued. The filter does not search them." in page
    with client.events() as events:
        redis.lrem(queue.key, 1, ids[29])
        until(events, lambda parts: "21 more jobs are not listed: 21 queued." in parts.get("rest", ""))
        redis.ltrim(queue.key, 0, 8)
        until(events, lambda parts: "1 more job is not listed: 1 queued." in parts.get("rest", ""))
        redis.ltrim(queue.key, 0, 7)
        until(events, lambda parts: parts.get("rest") == "")


def test_the_stream_of_the_list_and_of_a_job(client: Client, queue: Queue) -> None:
    """The list has a row for each job and follows it; the page of a job has its executions and who steered it."""
    job = enqueue(queue, Typed, 3)
    with client.events() as events:
        parts = until(events, lambda parts: any("queued" in each for each in parts.values()))
        assert any(job.id in each for key, each in parts.items() if key.startswith("j-"))
        finish_here(queue)
        until(
            events,
            lambda parts: any("finished" in each for key, each in parts.items() if key.startswith("j-")),
        )
    client.act("requeue", job.id)
    with client.events(f"/events?job={job.id}") as events:
        parts = until(events, lambda parts: "log" in parts)
    assert "completed: 3 items in 1 execution" in parts["timeline"]
    assert "<b>requeue</b> by local" in parts["log"]
    assert "refused: " in parts["log"]
