"""One behaviour suite for every store."""

from __future__ import annotations

import json
from typing import Any

import fakeredis
import pytest
from hypothesis import given, settings
from redis import Redis
from rq import Queue
from rq.job import Job as RQJob

from harness import CorruptProgress, Progress, Store, Superseded, UnsupportedProgress
from harness.stores.memory import MemoryStore
from harness.stores.rq_meta import FIELD, RQMetaStore
from tests import jobs
from tests.test_cursor import cursors, same


@pytest.fixture
def job(queue: Queue) -> RQJob:
    """Return an RQ job, with something of its author's in its meta."""
    return queue.enqueue_call(jobs.plain, args=(3,), job_id="17", meta={"tenant": "a"})


@pytest.fixture(params=["memory", "rq_meta"])
def store(request: pytest.FixtureRequest, redis: Redis, job: RQJob) -> Store:
    """Return each store in turn, with room for job 17."""
    assert job.id == "17"
    return MemoryStore() if request.param == "memory" else RQMetaStore(redis)


def test_a_job_not_seen_before_gets_a_new_record(store: Store) -> None:
    """The first claim returns epoch 1 and nothing done."""
    assert store.load("17") is None
    assert store.claim("17") == Progress("17", epoch=1)


def test_what_was_saved_is_claimed(store: Store) -> None:
    """A later execution finds what the one before has saved, with the epoch raised."""
    progress = store.claim("17")
    progress.step, progress.cursor, progress.done = "price", (3, "b"), 3
    assert store.save(progress) == len(progress.to_json())
    claimed = store.claim("17")
    assert (claimed.epoch, claimed.step, claimed.cursor, claimed.done) == (2, "price", (3, "b"), 3)


def test_a_claim_supersedes_the_one_before(store: Store) -> None:
    """An execution that was taken for dead cannot overwrite its successor."""
    frozen, successor = store.claim("17"), store.claim("17")
    successor.cursor, successor.step = 9, "price"
    store.save(successor)
    frozen.cursor, frozen.step = 1, "price"
    with pytest.raises(Superseded, match="execution 1 of job 17 must not save: execution 2 has claimed it"):
        store.save(frozen)
    assert store.load("17") == successor


@settings(max_examples=50)
@given(cursor=cursors)
def test_every_cursor_comes_back_through_every_store(cursor: Any) -> None:
    """Equal and of the same type, attributes as well."""
    with fakeredis.FakeRedis(server=fakeredis.FakeServer()) as connection:
        connection.hset(RQJob.key_for("17"), "status", "queued")
        stores: list[Store] = [MemoryStore(), RQMetaStore(connection)]
        for store in stores:
            progress = store.claim("17")
            progress.step, progress.cursor, progress.attributes = "price", cursor, {"seen": cursor}
            store.save(progress)
            stored = store.load("17")
            assert stored is not None
            assert same(stored.cursor, cursor)
            assert same(stored.attributes["seen"], cursor)


def test_saved_progress_does_not_change_with_the_object(store: Store) -> None:
    """What is stored is a value, not a reference."""
    progress = store.claim("17")
    progress.completed = ["load"]
    store.save(progress)
    progress.completed.append("price")
    stored = store.load("17")
    assert stored is not None
    assert stored.completed == ["load"]


def test_delete_forgets(store: Store) -> None:
    """After delete the job is as never seen, and its late executions cannot save."""
    progress = store.claim("17")
    store.delete("17")
    store.delete("17")
    assert store.load("17") is None
    with pytest.raises(Superseded, match="was deleted"):
        store.save(progress)


def test_what_jobs_share_is_replaced_by_one_of_them(store: Store) -> None:
    """Whoever saw what is shared now may replace it, and nobody else (I32)."""
    assert store.read("17") is None
    assert store.replace("17", None, "a")
    assert not store.replace("17", None, "b")
    assert store.replace("17", "a", "ä")
    assert not store.replace("17", "a", "c")
    assert store.read("17") == "ä"
    store.delete("17")
    assert store.read("17") == "ä", "what is shared is not the progress of the job"


def test_the_authors_meta_is_left_alone(redis: Redis, job: RQJob) -> None:
    """rq_meta changes its own field only, also if the author saved another in between."""
    store = RQMetaStore(redis)
    progress = store.claim("17")
    job.refresh()
    job.meta["tenant"] = "b"
    job.save_meta()
    store.save(progress)
    job.refresh()
    assert job.meta["tenant"] == "b"
    assert json.loads(job.meta[FIELD])["epoch"] == 1


@pytest.mark.parametrize(
    ("meta", "error"),
    [
        (b"\x80\x05N.", CorruptProgress),  # a pickle: never loaded
        (b'{"continuation": ', CorruptProgress),
        (b"[]", CorruptProgress),
        (b'{"continuation": 3}', CorruptProgress),
        (b'{"continuation": "{\\"version\\": 1, \\"epo"}', CorruptProgress),
        (b'{"continuation": "{\\"version\\": 99}"}', UnsupportedProgress),
    ],
)
def test_hostile_data_is_refused_and_kept(
    redis: Redis, job: RQJob, meta: bytes, error: type[Exception]
) -> None:
    """What cannot be used is refused by name, and stays in Redis byte for byte."""
    redis.hset(job.key, "meta", meta)
    with pytest.raises(error):
        RQMetaStore(redis).claim("17")
    assert redis.hget(job.key, "meta") == meta
