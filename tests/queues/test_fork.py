"""A fork is a new job that goes on from an earlier place of one that is over, which stays as it is."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job as RQJob
from rq.job import JobStatus

from harness.errors import UsageError
from harness.explore.crash import SimulatedProcess, living
from harness.explore.probes.redis import probes
from harness.progress import Progress, Store
from harness.queues.history import history
from harness.queues.rq import enqueue, fork, pause
from harness.stores.redis import RedisStore
from tests.commands import harness, one_line
from tests.jobs import DONE, CountByIteration, ThreeSteps
from tests.queues.crashes import At
from tests.queues.test_requeue import work
from tests.workers import progress_of


class Keyed(CountByIteration):
    """Notes the idempotency key of each number, and keeps its progress in a store of its own."""

    store: ClassVar[Store | None] = None

    @classmethod
    def progress_store(cls) -> Store | None:
        """Return the store of the test."""
        return cls.store

    def on_start(self) -> None:
        """Record the call."""
        DONE.append("start")

    def each_iteration(self, item: int, numbers: int) -> None:
        """Record the key."""
        DONE.append((item, self.idempotency_key(item)))


@pytest.fixture(params=["rq_meta", "own"])
def store(request: pytest.FixtureRequest, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Store | None:
    """Set the store of the job, and return it if it is not RQ's."""
    own = RedisStore(redis) if request.param == "own" else None
    monkeypatch.setattr(Keyed, "store", own)
    return own


def everything(redis: Redis, job_id: str) -> dict[Any, Any]:
    """Return all that Redis has under the id of a job."""
    return {key: redis.dump(key) for key in redis.keys(f"*{job_id}*")}


@pytest.mark.parametrize(
    ("place", "again"),
    [
        ({"step": "load"}, ["load", 0, 1, 2, 3, "send"]),
        ({"step": "count", "cursor": 2}, [2, 3, "send"]),
        ({"step": "send"}, ["send"]),
    ],
)
def test_a_new_job_does_the_steps_from_the_place(
    queue: Queue, redis: Redis, done: list[Any], place: dict[str, Any], again: list[Any]
) -> None:
    """The new job has the settings of the old one, and does the step and those after it."""
    old = enqueue(queue, ThreeSteps, options={"timeout": 77, "meta": {"tenant": 5}})
    work(queue)
    before = everything(redis, old.id)
    done.clear()
    new = fork(redis, old.id, **place)
    assert queue.get_job_ids() == [new.id]
    work(queue)
    assert done == again
    assert everything(redis, old.id) == before
    found = RQJob.fetch(new.id, connection=redis, serializer="json")
    assert (found.get_status(), found.timeout, found.meta) == (JobStatus.FINISHED, 77, {"tenant": 5})
    progress = progress_of(redis, new.id)
    assert (progress.completed, progress.crashes) == (["load", "count", "send"], 0)


@pytest.mark.usefixtures("store")
def test_an_iteration_goes_on_after_the_cursor_under_other_keys(
    queue: Queue, redis: Redis, done: list[Any]
) -> None:
    """The new job is not started anew, and its effects have keys of their own."""
    old = enqueue(queue, Keyed, 20)
    work(queue)
    first = [each[1] for each in done[1:]]
    before = everything(redis, old.id)
    done.clear()
    new = fork(redis, old.id, cursor=14, new_id="again")
    assert new.id == "again"
    work(queue)
    assert [each[0] for each in done] == list(range(15, 20))
    assert not {each[1] for each in done} & set(first)
    assert everything(redis, old.id) == before


@pytest.mark.usefixtures("store")
def test_a_fork_of_a_fork_and_of_the_same_place_again(queue: Queue, redis: Redis, done: list[Any]) -> None:
    """A fork is a job like any other, and a job can be forked as often as one likes."""
    old = enqueue(queue, Keyed, 6)
    work(queue)
    new = fork(redis, old.id, cursor=2)
    work(queue)
    done.clear()
    fork(redis, new.id, cursor=3)
    fork(redis, old.id, cursor=4)
    work(queue)
    assert [each[0] for each in done] == [4, 5, 5]


def test_an_id_that_is_taken_is_refused(queue: Queue, redis: Redis, store: Store | None) -> None:
    """A job under the id, and progress in the store of a job that RQ has forgotten, are left as they are."""
    old = enqueue(queue, Keyed, 5)
    work(queue)
    other = enqueue(queue, ThreeSteps, options={"job_id": "taken"})
    before = everything(redis, other.id)
    with pytest.raises(UsageError, match="there is a job under the id 'taken'; choose another id"):
        fork(redis, old.id, cursor=2, new_id="taken")
    assert everything(redis, other.id) == before
    assert queue.get_job_ids() == [other.id]
    if store is not None:
        assert store.load("taken") is None
        store.claim("known")
        with pytest.raises(UsageError, match="there is progress under the id 'known'; choose another id"):
            fork(redis, old.id, cursor=2, new_id="known")
        assert store.load("known") == Progress("known", epoch=1)
    with pytest.raises(UsageError, match="got 'a b/c' as the id of a job"):
        fork(redis, old.id, cursor=2, new_id="a b/c")


@pytest.mark.usefixtures("store")
def test_requests_to_an_earlier_job_of_the_id_are_forgotten(
    queue: Queue, redis: Redis, done: list[Any]
) -> None:
    """A pause that was meant for another job does not reach the new one."""
    old = enqueue(queue, Keyed, 5)
    work(queue)
    pause(redis, "later")
    done.clear()
    fork(redis, old.id, cursor=2, new_id="later")
    work(queue)
    assert [each[0] for each in done] == [3, 4]


@pytest.mark.usefixtures("store")
def test_an_id_that_is_taken_in_the_same_moment(queue: Queue, redis: Redis, done: list[Any]) -> None:
    """Another enqueue under the id wins: its job does all of its work, and none of the fork's progress is left."""
    old = enqueue(queue, Keyed, 5)
    work(queue)
    done.clear()
    another = At("EXISTS rq:job:same", lambda: enqueue(queue, Keyed, 5, options={"job_id": "same"}))
    with (
        probes(),
        living(SimulatedProcess(another)),
        pytest.raises(UsageError, match="there is a job under the id 'same'"),
    ):
        fork(redis, old.id, cursor=2, new_id="same")
    work(queue)
    assert another.met == 1
    assert [each[0] for each in done[1:]] == list(range(5))


def test_a_job_that_is_not_over_is_not_forked(queue: Queue, redis: Redis) -> None:
    """Two jobs would be at the same work."""
    job = enqueue(queue, ThreeSteps)
    with pytest.raises(UsageError, match="is not over: queued"):
        fork(redis, job.id, step="load")
    assert queue.get_job_ids() == [job.id]


def test_the_command_forks(jobs_queue: Queue, redis_url: str, done: list[Any]) -> None:
    """The command names both jobs; the history of the old one has it."""
    job = enqueue(jobs_queue, ThreeSteps)
    work(jobs_queue)
    done.clear()
    result = harness("fork", job.id, "--to", "count:3", "--id", "repair", "--redis", redis_url)
    assert result.output == f"job repair is in queue test, forked from {job.id} at count:3\n"
    work(jobs_queue)
    assert done == [3, "send"]
    entries = history(jobs_queue.connection, job.id)[0]
    assert [(each.action, each.reason) for each in entries if each.action] == [("fork", "count:3")]
    refused = harness("fork", job.id, "--to", "send", "--id", "repair", "--redis", redis_url)
    assert "there is a job under the id 'repair'" in one_line(refused)
