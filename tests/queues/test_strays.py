"""Jobs that are queued or started by their status and nowhere in fact are found, and others are let be."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq import Callback, Queue
from rq.job import Job as RQJob
from rq.job import JobStatus

from harness import Superseded, every
from harness.queues.rq import SimpleWorker, enqueue, leases, recover
from harness.queues.rq import strays as module
from harness.queues.rq.keys import ENDED, OPEN, STRAYS
from harness.queues.rq.places import PERFORM, places_of, queue_of
from harness.queues.rq.recovery import put_back
from harness.stores.redis import RedisStore
from harness.stores.rq_meta import FIELD, RQMetaStore
from tests import jobs
from tests.jobs import DONE, CountByIteration
from tests.meddling import recover_at_once
from tests.queues.test_rq import work
from tests.workers import progress_of


def lose_from_queue(queue: Queue, job: RQJob) -> None:
    """Lose it between its queue and the started registry, as a killed worker of several queues does."""
    assert queue.connection.lpop(queue.key) == job.id.encode()


def lose_started(queue: Queue, job: RQJob) -> None:
    """Lose the entry of a job that is at work."""
    lose_from_queue(queue, job)
    job.set_status(JobStatus.STARTED)


def lose_scheduled(queue: Queue, job: RQJob) -> None:
    """Lose the place of a job that waits for its time."""
    lose_from_queue(queue, job)
    job.set_status(JobStatus.SCHEDULED)


LOSSES = [lose_from_queue, lose_started, lose_scheduled]


@pytest.mark.parametrize("lose", LOSSES)
def test_a_job_that_is_nowhere_is_put_back_at_the_second_sight(
    queue: Queue, redis: Redis, done: list[Any], lose: Callable[[Queue, RQJob], None]
) -> None:
    """The second sight requeues the job, and a worker then finishes it."""
    job = enqueue(queue, CountByIteration, 3)
    lose(queue, job)
    assert recover_at_once(redis) == []
    assert recover_at_once(redis) == [job.id]
    assert recover_at_once(redis) == []
    assert queue.job_ids == [job.id]
    work(queue)
    assert (done, job.get_status()) == ([0, 1, 2], JobStatus.FINISHED)
    assert not redis.exists(OPEN, STRAYS)


def test_a_job_on_its_way_is_let_be(queue: Queue, redis: Redis) -> None:
    """A job that was nowhere for a moment is not requeued once it is seen elsewhere."""
    job = enqueue(queue, CountByIteration, 3)
    lose_from_queue(queue, job)
    recover_at_once(redis)
    SimpleWorker([queue], connection=redis, commands=False).prepare_execution(job)
    recover_at_once(redis)
    assert not redis.exists(STRAYS)


def test_two_sights_are_some_seconds_apart(queue: Queue, redis: Redis) -> None:
    """Two sights of a lost job are some seconds apart, however often a sweep runs."""
    job = enqueue(queue, CountByIteration, 3)
    lose_from_queue(queue, job)
    assert [recover(redis) for _ in range(5)] == [[]] * 5
    assert (redis.zscore(OPEN, job.id) or 0) > time.time() + 5


def test_jobs_that_wait_in_order_are_not_looked_for_one_by_one(
    queue: Queue, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long queue is looked through only for a job that was enqueued before the one at its front."""
    waiting = [enqueue(queue, CountByIteration, 3) for _ in range(20)]
    lost = waiting[7]
    redis.lrem(queue.key, 1, lost.id)
    looked_for: list[str] = []

    def look(job: RQJob) -> set[str]:
        looked_for.append(job.id)
        return places_of(job)

    monkeypatch.setattr(module, "places_of", look)
    assert [recover_at_once(redis) for _ in range(3)] == [[]] * 3
    assert looked_for == []
    redis.ltrim(queue.key, 7, -1)
    for job in waiting[:7]:
        job.delete()
    assert [job_id for _ in range(3) for job_id in recover_at_once(redis)] == [lost.id]
    assert set(looked_for) == {lost.id}


def test_a_sweep_looks_at_so_many(queue: Queue, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work of one is bounded, and in the end all are found."""
    monkeypatch.setattr(module, "BATCH", 10)
    monkeypatch.setattr(module, "CLOSE_LOOKS", 3)
    lost = {enqueue(queue, CountByIteration, 3).id for _ in range(25)}
    redis.delete(queue.key)
    back: list[str] = []
    for _ in range(60):
        found = recover_at_once(redis)
        assert len(found) <= 3
        back += found
    assert sorted(back) == sorted(lost)
    assert sorted(queue.job_ids) == sorted(lost)


def test_a_long_queue_is_looked_through_for_one_job_a_sweep(
    queue: Queue, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep looks at a limited number of elements of the queue, but checks one job at least."""
    monkeypatch.setattr(module, "ELEMENTS", 5)
    lost = [enqueue(queue, CountByIteration, 3) for _ in range(4)]
    redis.delete(queue.key)
    first = queue.enqueue_call(jobs.plain, args=(1,))
    redis.rpush(queue.key, *[first.id] * 10)
    back = [recover_at_once(redis) for _ in range(20)]
    assert max(map(len, back)) == 1
    assert sorted(job_id for found in back for job_id in found) == sorted(job.id for job in lost)


@pytest.mark.parametrize("gone", ["deleted", "expired", "plain"])
def test_what_is_not_to_run_is_not_put_back(queue: Queue, redis: Redis, gone: str) -> None:
    """A deleted job, even if an old copy is saved later, and a plain function under its id are not requeued."""
    job = enqueue(queue, CountByIteration, 3)
    if gone == "deleted":
        job.delete()
    elif gone == "expired":
        redis.expire(job.key, 0)
        redis.delete(queue.key)
    else:
        redis.delete(queue.key)
        queue.enqueue_call(jobs.plain, args=(1,), job_id=job.id)
        redis.delete(queue.key)
    assert [recover_at_once(redis) for _ in range(3)] == [[]] * 3
    job.save()
    assert [recover_at_once(redis) for _ in range(3)] == [[]] * 3
    assert queue.is_empty()


def test_an_old_copy_that_is_saved_does_not_make_a_job_run_again(
    queue: Queue, redis: Redis, done: list[Any]
) -> None:
    """An old copy saved after the end gets its finished status back, so no caller waits for the job."""
    job = enqueue(queue, CountByIteration, 3)
    work(queue)
    assert redis.zrange(ENDED, 0, -1) == [job.id.encode()]
    job.save()
    assert job.get_status() == JobStatus.QUEUED
    recover_at_once(redis)
    work(queue)
    assert (done, job.get_status()) == ([0, 1, 2], JobStatus.FINISHED)
    job.delete()
    recover_at_once(redis)
    assert not redis.exists(ENDED)


@pytest.mark.parametrize("status", [each.value for each in JobStatus if each != JobStatus.RATE_LIMITED])
def test_a_job_whose_status_is_that_of_an_old_copy_is_recovered_all_the_same(
    queue: Queue, redis: Redis, status: str
) -> None:
    """A crashed worker's job is requeued because of its registries, not because of its status."""
    job = enqueue(queue, CountByIteration, 3)
    redis.lpop(queue.key)
    SimpleWorker([queue], connection=redis, commands=False).prepare_execution(job)
    redis.hset(job.key, "status", status)
    assert recover_at_once(redis) == [job.id]
    assert queue.job_ids == [job.id]


class Meddled(CountByIteration):
    """Has something done to it while it is at its third item."""

    durability = every(items=1)
    act: Any = None

    def each_iteration(self, item: int, numbers: int) -> None:
        """Do one."""
        super().each_iteration(item, numbers)
        if item == 2 and DONE.count(2) == 1:
            type(self).act()


class MeddledInRedis(Meddled):
    """Keeps its progress in a separate key."""

    connection: Any = None

    @classmethod
    def progress_store(cls) -> RedisStore:
        """Return the store."""
        return RedisStore(cls.connection)


@pytest.fixture(params=[Meddled, MeddledInRedis])
def meddled(request: pytest.FixtureRequest, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return each job in turn."""
    monkeypatch.setattr(MeddledInRedis, "connection", redis)
    monkeypatch.setattr(request.param, "act", None)
    return request.param


def test_progress_that_is_gone_is_stored_again(
    queue: Queue, redis: Redis, done: list[Any], meddled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An execution that still has the job continues, whatever of it was evicted; nothing is done twice."""
    job = enqueue(queue, meddled, 5)

    def evict() -> None:
        redis.delete(f"harness:progress:{job.id}", job.key)

    monkeypatch.setattr(meddled, "act", staticmethod(evict))
    work(queue)
    assert (done, job.get_status()) == ([0, 1, 2, 3, 4], JobStatus.FINISHED)
    assert job.args[0] == meddled.path()


@pytest.mark.parametrize("again", [False, True])
def test_a_job_that_was_deleted_while_it_was_at_work_is_left_alone(
    queue: Queue, redis: Redis, meddled: Any, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """The execution ends at its next save and leaves nothing; a new job under the id is done as a whole."""
    job = enqueue(queue, meddled, 5, options={"job_id": "j"})

    def delete() -> None:
        job.delete()
        RedisStore(redis).delete("j")
        if again:
            enqueue(queue, meddled, 5, options={"job_id": "j"})

    monkeypatch.setattr(meddled, "act", staticmethod(delete))
    work(queue)
    if again:
        assert DONE == [0, 1, 2, 0, 1, 2, 3, 4]
        assert job.get_status() == JobStatus.FINISHED
    else:
        assert DONE == [0, 1, 2]
        assert not redis.exists(job.key)
    assert not queue.started_job_registry.get_job_and_execution_ids(cleanup=False)


def test_a_job_that_was_taken_over_and_left_goes_on(
    queue: Queue, redis: Redis, done: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another execution claimed its progress, and neither RQ's registries nor its queue have an entry for the job."""
    job = enqueue(queue, Meddled, 5)
    monkeypatch.setattr(Meddled, "act", staticmethod(lambda: RQMetaStore(redis).claim(job.id)))
    work(queue)
    assert (done[:3], set(done), job.get_status()) == ([0, 1, 2], set(range(5)), JobStatus.FINISHED)
    assert progress_of(redis, job.id).epoch == 3


def test_a_job_that_is_taken_over_again_and_again_fails_by_name(
    queue: Queue, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is superseded again and again fails by name."""
    job = enqueue(queue, Robbed, 5)
    monkeypatch.setattr(Robbed, "rob", staticmethod(lambda: RQMetaStore(redis).claim(job.id)))
    work(queue)
    result = job.latest_result()
    assert result is not None
    assert job.get_status() == JobStatus.FAILED
    assert "was taken over 11 times in a row by executions that its queue does not know" in str(
        result.exc_string
    )


class Robbed(CountByIteration):
    """Job that is claimed by another execution in each of its own."""

    durability = every(items=1)
    rob: Any = None

    def each_iteration(self, item: int, numbers: int) -> None:
        """Do one."""
        type(self).rob()


def test_what_the_application_saved_meanwhile_is_kept(
    queue: Queue, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interruption puts the job back as it is in Redis, not as its worker remembers it."""
    job = enqueue(queue, Meddled, 5, options={"meta": {"user": 1}})

    def write() -> None:
        copy = RQJob.fetch(job.id, connection=redis, serializer="json")
        copy.meta["user"], copy.description = 17, "of Ann"
        copy.save()
        redis.set(f"harness:stop:{job.id}", "maintenance")

    monkeypatch.setattr(Meddled, "act", staticmethod(write))
    work(queue, max_jobs=1, poll_seconds=0.0)
    job.refresh()
    assert (job.meta, job.description, job.get_status()) == ({"user": 17}, "of Ann", JobStatus.QUEUED)
    work(queue)
    job.refresh()
    assert (job.meta, job.description, job.get_status()) == ({"user": 17}, "of Ann", JobStatus.FINISHED)


@pytest.mark.parametrize("kept_in", [Meddled, MeddledInRedis])
def test_progress_without_a_queue_is_not_stored_again(redis: Redis, kept_in: Any) -> None:
    """An execution that cannot find out who owns a job does not store its progress."""
    store = RQMetaStore(redis) if kept_in is Meddled else RedisStore(redis)
    progress = store.claim("7")
    store.delete("7")
    with pytest.raises(Superseded):
        store.save(progress)
    assert not redis.hexists("rq:job:7", FIELD)


def take_over(job: RQJob, connection: Redis, *_: object) -> None:
    """Requeue the job, like a sweep that treats its worker as crashed: RQ's callback, called before the report."""
    lease = leases.current
    if lease is not None and connection.incr("called") == 1:
        put_back(connection, queue_of(job), lease.entry, died=True)


def replace(job: RQJob, connection: Redis, *_: object) -> None:
    """Have another job under the id, past this package."""
    if connection.incr("called") == 1:
        call: tuple[Any, ...] = ("tests.jobs:CountByIteration", [4], {})
        Queue("test", connection=connection, serializer="json").enqueue_call(
            PERFORM, args=call, job_id=job.id
        )


@pytest.mark.parametrize("meddle", [take_over, replace])
def test_a_success_is_reported_once(
    queue: Queue, redis: Redis, done: list[Any], meddle: Callable[..., None]
) -> None:
    """A job that is taken away between its end and the report is its successor's to report."""
    callback = Callback(f"tests.queues.test_strays.{meddle.__name__}")
    job = enqueue(queue, CountByIteration, 3, options={"on_success": callback})
    worker = work(queue)
    worker.refresh()
    assert job.get_status() == JobStatus.FINISHED
    assert done == [0, 1, 2] if meddle is take_over else [0, 1, 2, 0, 1, 2, 3]
    assert worker.successful_job_count == 1
    assert [result.type.name for result in job.results()] == ["SUCCESSFUL"]
