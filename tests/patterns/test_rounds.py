"""A job id that is used again: each enqueue does its work, joins the job that is there, or is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from redis import Redis
from rq import Queue, Repeat, Retry
from rq.job import Job as RQJob
from rq.job import JobStatus

from harness import (
    ContinuableJob,
    Enumerator,
    IterationJob,
    Portion,
    Store,
    UsageError,
    every,
    items,
    parallel_items,
)
from harness.overrides import Overrides, overriding
from harness.queues.rq import SimpleWorker, enqueue
from harness.queues.rq.keys import OPEN
from harness.queues.rq.requests import PERFORM
from harness.stores.redis import RedisStore
from harness.stores.sql import SqlStore
from tests.jobs import DONE

KEPT: dict[str, Store | None] = {}
"""The store of the jobs here, for the test that runs."""


class Kept(IterationJob, abstract=True):
    """Keeps its progress where the test says."""

    durability = every(items=1)

    @classmethod
    def progress_store(cls) -> Store | None:
        """Return the store of the test."""
        return KEPT["store"]


class Sync(Kept):
    """Does some numbers, each under a name."""

    broken: ClassVar[bool] = False

    def build_enumerator(self, name: str, numbers: Any = 20, *, cursor: Any) -> Enumerator[int]:
        """Go through the numbers."""
        return items(range(numbers), cursor=cursor)

    def each_iteration(self, item: int, name: str, numbers: Any = 20) -> None:
        """Do one number."""
        if item == 8 and self.broken:
            raise RuntimeError("cannot do 8")
        DONE.append((name, item))
        KEYS.append(self.idempotency_key(item))


class Shared(Kept):
    """Does some numbers in two instances."""

    def build_enumerator(self, name: str, *, cursor: Any) -> Enumerator[int]:
        """Share the numbers."""
        return parallel_items(range(20), instances=2, cursor=cursor)

    def each_iteration(self, item: int, name: str) -> None:
        """Do one number."""
        DONE.append((name, item))

    def on_complete(self) -> None:
        """Record the end."""
        DONE.append("complete")


KEYS: list[str] = []
NUMBERS = {("a", number) for number in range(20)}


@pytest.fixture(params=["rq_meta", "redis", "sqlite"], autouse=True)
def kept(request: pytest.FixtureRequest, redis: Redis, tmp_path: Path) -> Iterator[None]:
    """Keep the progress of jobs in each store in turn."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/progress.db")
    stores: dict[str, Callable[[], Store | None]] = {
        "rq_meta": lambda: None, "redis": lambda: RedisStore(redis), "sqlite": lambda: SqlStore(engine),
    }  # fmt: skip
    SqlStore(engine).create()
    KEPT["store"] = stores[request.param]()
    Sync.broken = False
    KEYS.clear()
    yield
    KEPT.clear()
    Sync.broken = False
    engine.dispose()


def work(queue: Queue, jobs: int | None = None) -> None:
    """Work until the queue is empty, or for *jobs* executions."""
    SimpleWorker([queue], connection=queue.connection, commands=False).work(
        burst=True, max_jobs=jobs, logging_level="CRITICAL"
    )


def sync(queue: Queue, name: str, job_class: type[Kept] = Sync, **more: Any) -> RQJob:
    """Enqueue the job under its id."""
    return enqueue(queue, job_class, name, options={"job_id": "sync", **more})


@pytest.mark.parametrize("forgotten", [True, False], ids=["RQ has forgotten it", "RQ still knows it"])
def test_a_nightly_job_works_each_night(queue: Queue, done: list[Any], forgotten: bool) -> None:
    """With the same arguments and id, each round does all of the work, with new idempotency keys."""
    for night in range(1, 4):
        job = sync(queue, "a")
        work(queue)
        assert done == [("a", number) for number in range(20)] * night
        assert job.get_status() == JobStatus.FINISHED
        if forgotten:
            job.delete()
    assert len(set(KEYS)) == len(KEYS) == 60


@pytest.mark.parametrize("forgotten", [True, False], ids=["RQ has forgotten it", "RQ still knows it"])
def test_once_a_job_is_done_its_id_takes_other_arguments(
    queue: Queue, done: list[Any], forgotten: bool
) -> None:
    """All of the second one is done, and nothing of the first again."""
    first = sync(queue, "a")
    work(queue)
    if forgotten:
        first.delete()
    sync(queue, "b")
    work(queue)
    assert done == [(name, number) for name in "ab" for number in range(20)]


def test_a_job_that_waits_again_does_not_expire_with_its_last_result(queue: Queue, redis: Redis) -> None:
    """RQ leaves the TTL of the result on the job that is enqueued again."""
    job = sync(queue, "a", result_ttl=60)
    work(queue)
    assert redis.ttl(job.key) > 0
    sync(queue, "b")
    assert redis.ttl(job.key) == -1
    assert not queue.finished_job_registry.get_job_ids()


def at_work(queue: Queue) -> None:
    """Have the job at work, as far as Redis says."""
    queue.connection.lpop(queue.key)
    job = RQJob.fetch("sync", connection=queue.connection, serializer="json")
    SimpleWorker([queue], connection=queue.connection, commands=False).prepare_execution(job)
    job.set_status(JobStatus.STARTED)


def failed(queue: Queue) -> None:
    """Have the job fail in the middle."""
    Sync.broken = True
    with overriding(Overrides(delay_seconds=0.0)):
        work(queue)
    Sync.broken = False


@pytest.mark.parametrize("state", [lambda _: None, at_work, failed], ids=["waiting", "at work", "failed"])
@pytest.mark.parametrize(
    ("other", "found"),
    [
        (lambda queue: sync(queue, "b"), "has other arguments|with other arguments"),
        (lambda queue: sync(queue, "a", job_class=Shared), "belongs to tests.patterns.test_rounds:Sync"),
        (
            lambda queue: enqueue(queue, Sync, "a", portion=Portion(limit=3), options={"job_id": "sync"}),
            "has other arguments|with other arguments",
        ),
    ],
    ids=["arguments", "class", "portion"],
)
def test_an_unfinished_job_is_kept_from_others(
    queue: Queue, done: list[Any], state: Callable[[Queue], None], other: Callable[[Queue], Any], found: str
) -> None:
    """The error names what differs and what to do; the job is not touched."""
    job = sync(queue, "a")
    state(queue)
    before = queue.connection.hgetall(job.key)
    with pytest.raises(UsageError, match=f"({found}).*another id"):
        other(queue)
    assert queue.connection.hgetall(job.key) == before


@pytest.mark.parametrize("state", [lambda _: None, at_work], ids=["waiting", "at work"])
def test_the_same_job_is_joined(queue: Queue, state: Callable[[Queue], None]) -> None:
    """Enqueued again while it is under way it is there once, as it was."""
    job = sync(queue, "a")
    state(queue)
    before = queue.connection.hgetall(job.key), queue.job_ids
    assert sync(queue, "a").created_at == job.created_at
    assert (queue.connection.hgetall(job.key), queue.job_ids) == before


def test_a_failed_job_goes_on_when_the_same_is_enqueued(queue: Queue, done: list[Any]) -> None:
    """Nothing is done twice, and the effect in progress keeps its key."""
    sync(queue, "a")
    failed(queue)
    assert len(done) == 8
    job = sync(queue, "a")
    assert not queue.failed_job_registry.get_job_ids()
    work(queue)
    assert done == [("a", number) for number in range(20)]
    assert job.get_status() == JobStatus.FINISHED
    work(queue)
    sync(queue, "a")
    work(queue)
    assert len(done) == 40


def test_a_requeue_goes_on(queue: Queue, done: list[Any]) -> None:
    """A requeue and RQ's Retry both continue the same enqueue."""
    job = sync(queue, "a", retry=Retry(max=1))
    failed(queue)
    job.refresh()
    if job.get_status() == JobStatus.FAILED:
        job.requeue()
    work(queue)
    assert done == [("a", number) for number in range(20)]


def test_each_repeat_is_a_round(queue: Queue, done: list[Any]) -> None:
    """RQ repeats a job under its id; all of it is done each time."""
    sync(queue, "a", repeat=Repeat(times=2))
    work(queue)
    assert done == [("a", number) for number in range(20)] * 3


def test_a_completed_job_whose_worker_died_does_nothing_more(queue: Queue, done: list[Any]) -> None:
    """The same enqueue finds its progress completed."""
    job = sync(queue, "a")
    work(queue)
    queue._enqueue_job(RQJob.fetch(job.id, connection=queue.connection, serializer="json"))
    work(queue)
    assert len(done) == 20


def test_what_goes_past_enqueue_fails_by_name(queue: Queue, done: list[Any]) -> None:
    """A worker refuses what RQ was given directly under the id of an unfinished job with other arguments."""
    job = sync(queue, "a")
    failed(queue)
    queue.enqueue_call(PERFORM, args=("tests.patterns.test_rounds:Sync", ["b"], {}), job_id="sync")
    work(queue)
    result = job.latest_result()
    assert result is not None
    assert "belongs to tests.patterns.test_rounds:Sync with other arguments; it is unfinished" in str(
        result.exc_string
    )
    assert ("b", 0) not in done
    queue.enqueue_call(PERFORM, args=("tests.patterns.test_rounds:Sync", ["a"], {}), job_id="sync")
    work(queue)
    assert set(done) == NUMBERS
    assert len(done) == 20


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("forgotten", [True, False], ids=["RQ has forgotten it", "RQ still knows it"])
def test_a_parallel_run_works_each_night(
    queue: Queue, redis: Redis, done: list[Any], name: str, forgotten: bool
) -> None:
    """Its instances and their shared data start again with each round."""
    sync(queue, "a", Shared)
    work(queue)
    assert (set(done), len(done)) == (NUMBERS | {"complete"}, 21)
    if forgotten:
        for key in redis.keys("rq:job:*"):
            redis.delete(key)
    sync(queue, name, Shared)
    work(queue)
    assert set(done[21:]) == {(name, number) for number in range(20)} | {"complete"}
    assert len(done) == 42


def test_a_parallel_run_whose_instances_are_at_work_is_not_over(queue: Queue, done: list[Any]) -> None:
    """The starting job finishes early; an equal enqueue under its id joins the run, and others are refused."""
    job = sync(queue, "a", Shared)
    work(queue, 1)
    assert job.get_status() == JobStatus.FINISHED
    with pytest.raises(UsageError, match="has instances at work \\(sync-0, sync-1\\)"):
        sync(queue, "b", Shared)
    assert sync(queue, "a", Shared).created_at == job.created_at
    work(queue)
    assert (set(done), len(done)) == (NUMBERS | {"complete"}, 21)
    assert not queue.connection.exists(OPEN)


def test_a_portion_done_first_does_not_end_the_job(queue: Queue, done: list[Any]) -> None:
    """A trial on a few items under the id of the job is a round of its own."""
    enqueue(queue, Sync, "a", portion=Portion(limit=3), options={"job_id": "sync"})
    work(queue)
    assert len(done) == 3
    sync(queue, "a")
    work(queue)
    assert len(done) == 23


def test_what_was_asked_of_a_round_is_over_with_it(queue: Queue, redis: Redis, done: list[Any]) -> None:
    """A cancellation that came too late does not cancel the next round."""
    sync(queue, "a")
    work(queue)
    redis.set("harness:control:sync", "cancel")
    sync(queue, "a")
    work(queue)
    assert len(done) == 40


class Steps(ContinuableJob):
    """Takes one step."""

    def perform(self) -> None:
        """Take it."""
        self.step("load")

    def load(self) -> None:
        """Do nothing."""


def test_a_class_that_no_worker_finds_is_refused(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of a function, or of the program that enqueues it."""

    class Local(Steps):
        pass

    with pytest.raises(
        UsageError, match=r"<locals>\.Local is defined in a function, where no worker finds it"
    ):
        enqueue(queue, Local)
    monkeypatch.setattr(Steps, "__module__", "__main__")
    with pytest.raises(UsageError, match="Steps is defined in __main__, where no worker finds it"):
        enqueue(queue, Steps)
    assert queue.is_empty()


def test_a_large_argument_makes_a_short_description(queue: Queue) -> None:
    """The argument itself arrives whole."""
    large = "x" * 5_000_000
    for value in (large, [large] * 3, {large: large}, large.encode(), 10**4000, [[[[[[large]]]]]]):
        job = enqueue(queue, Sync, "a", numbers=value)
        assert job.description is not None
        assert len(job.description) <= 200
    assert enqueue(queue, Sync, "a", 3).description == "Sync('a', 3)"
