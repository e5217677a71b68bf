"""A store that cannot be reached for a while: the job continues, or waits, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue
from rq.job import JobStatus

from harness import InlineRun, events, every, subscribe
from harness.errors import ProgressUnavailable
from harness.progress import Position, Progress
from harness.queues.rq import enqueue
from harness.queues.rq import jobs as rq_jobs
from harness.stops import Every, Flag
from harness.stores.redis import RedisStore
from tests.jobs import DONE, CountByIteration, CountInSteps
from tests.queues.test_rq import work


class SavingOften(CountByIteration):
    """Saves after every item."""

    durability = every(items=1)


@pytest.fixture
def server() -> fakeredis.FakeServer:
    """Return a Redis that can be made unreachable."""
    return fakeredis.FakeServer()


@pytest.fixture
def store(server: fakeredis.FakeServer) -> Iterator[RedisStore]:
    """Yield a store in it."""
    with fakeredis.FakeRedis(server=server, retry=Retry(NoBackoff(), 0)) as connection:
        yield RedisStore(connection)


def cutting(server: fakeredis.FakeServer, at: int, *, back_at: int | None) -> type[SavingOften]:
    """Return a job that cuts the server off at an item, and has it back at another."""

    class Job(SavingOften):
        def each_iteration(self, item: int, numbers: int) -> None:
            if item == at and "cut" not in DONE:
                DONE.append("cut")
                server.connected = False
            if item == back_at:
                server.connected = True
            super().each_iteration(item, numbers)

    return Job


def test_while_saves_fail_the_job_goes_on(
    server: fakeredis.FakeServer, store: RedisStore, done: list[object]
) -> None:
    """Failed saves are events, and the next save that succeeds stores everything."""
    seen = list[Any]()
    with subscribe(seen.append):
        InlineRun(cutting(server, 3, back_at=6), 9, store=store).drain()
    assert [item for item in done if item != "cut"] == list(range(9))
    assert [type(event) for event in seen].count(events.SaveFailed) == 3


def test_without_unsaved_work_a_failed_save_holds_the_job_at_once(
    server: fakeredis.FakeServer, store: RedisStore, done: list[object]
) -> None:
    """With max_unsaved = 0 no item begins while the one before it is not saved."""

    class Holding(cutting(server, 3, back_at=None)):  # type: ignore[misc]  # made here
        max_unsaved = 0

    asked: list[int] = []

    def back(at: Position) -> None:
        """Let the store be back the second time that a job without connection asks."""
        if not server.connected:
            asked.append(at.done)
            server.connected = len(asked) > 1

    InlineRun(Holding, 6, store=store, stops=[back]).drain()
    assert done == [0, 1, 2, "cut", 3, 4, 5]
    assert set(asked) == {4}


def test_a_stop_that_comes_while_progress_is_saved_is_heard_before_the_next_item(
    store: RedisStore, done: list[object]
) -> None:
    """The next item may take longer than there is time."""
    flag = Flag()

    def stop(event: object) -> None:
        if isinstance(event, events.ProgressSaved) and event.why == "checkpoint" and done == [0, 1]:
            flag.set("deploy")

    with subscribe(stop):
        inline = InlineRun(SavingOften, 4, store=store, stops=[flag])
        inline.execute()
    assert done == [0, 1]


def test_an_end_that_cannot_be_saved_is_no_end(
    server: fakeredis.FakeServer, store: RedisStore, done: list[object]
) -> None:
    """The execution raises, the next one treats it as crashed, and the last save holds."""
    job = cutting(server, 3, back_at=None)
    job.grace_period = 0.1
    inline = InlineRun(job, 5, store=store)
    with pytest.raises(ProgressUnavailable, match="cannot be saved now"):
        inline.execute()
    with pytest.raises(ProgressUnavailable, match="cannot be claimed now"):
        inline.execute()
    server.connected = True
    inline.drain()
    progress = inline.progress
    assert isinstance(progress, Progress)
    assert (progress.state, progress.crashes) == ("completed", 1)
    assert done == [0, 1, 2, "cut", 3, 4, 3, 4]


def test_an_error_of_the_job_s_own_is_not_one_of_the_store(done: list[object]) -> None:
    """A job whose Redis is away fails like any other that raises."""

    class Job(CountInSteps):
        def load(self) -> None:
            Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0)).get("key")

    with pytest.raises(ConnectionRefusedError):
        raise_cause(InlineRun(Job))


def raise_cause(inline: InlineRun) -> None:
    """Run it, and raise the reason for what it raised."""
    try:
        inline.execute()
    except ProgressUnavailable as error:
        raise AssertionError("taken for the store's") from error
    except Exception as error:
        raise ConnectionRefusedError from error


@pytest.mark.parametrize("invalidated", [True, False])
def test_a_connection_that_was_cut_is_an_interruption(done: list[object], invalidated: bool) -> None:
    """A cut connection interrupts the job even at the first item, where any other error would fail it."""

    class Cut(Exception):
        connection_invalidated = invalidated

    class Job(CountByIteration):
        def each_iteration(self, item: int, numbers: int) -> None:
            if not DONE:
                DONE.append("cut")
                raise Cut
            super().each_iteration(item, numbers)

    inline = InlineRun(Job, 2)
    if invalidated:
        inline.drain()
        assert done == ["cut", 0, 1]
    else:
        with pytest.raises(Cut):
            inline.drain()


def test_on_rq_a_job_whose_store_is_away_waits(
    queue: Queue, server: fakeredis.FakeServer, monkeypatch: pytest.MonkeyPatch, done: list[object]
) -> None:
    """A job whose store is away returns to its queue, and counts as neither failed nor retried."""
    monkeypatch.setattr(rq_jobs, "UNAVAILABLE_SECONDS", 0)
    Elsewhere.server = server
    server.connected = False
    job = enqueue(queue, Elsewhere, 5)
    work(queue, max_jobs=3)
    assert (job.get_status(), done) == (JobStatus.QUEUED, [])
    server.connected = True
    work(queue, stops=[Every(2)])
    assert (job.get_status(), done) == (JobStatus.FINISHED, list(range(5)))


class Elsewhere(CountByIteration):
    """Keeps its progress in another Redis than the queue's."""

    server: fakeredis.FakeServer

    @classmethod
    def progress_store(cls) -> RedisStore:
        """Return a store there."""
        return RedisStore(fakeredis.FakeRedis(server=cls.server))
