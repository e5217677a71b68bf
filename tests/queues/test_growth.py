"""A job's data in Redis and in a database is bounded, expires with the job, and can be pruned."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from redis import Redis
from rq import Queue, Retry

from harness import Enumerator, IterationJob, RetryLater, items
from harness.overrides import Overrides, overriding
from harness.progress import Progress
from harness.queues.history import TTL
from harness.queues.rq import SimpleWorker, cancel, enqueue, keys, recover
from harness.queues.rq.pruning import prune_redis, prune_sql
from harness.queues.rq.retention import SETTING
from harness.sources.parallel import SliceTable
from harness.stops import Every
from harness.stores.redis import RedisStore
from harness.stores.sql import TABLES, SqlStore
from tests.commands import harness, one_line
from tests.jobs import CountByIteration
from tests.queues.backends import OnCelery, OnDramatiq


def keys_of(connection: Redis) -> list[bytes]:
    """Return all keys."""
    return list(connection.scan_iter())


def size(connection: Redis, key: str) -> int:
    """Return the bytes that a key takes in Redis."""
    taken = connection.memory_usage(key)
    assert taken is not None
    return taken


class Fails(CountByIteration):
    """Fails at its first item."""

    def each_iteration(self, item: int, numbers: int) -> None:
        """Fail."""
        raise RuntimeError(f"cannot do {item}")


class RetriesOnce(IterationJob):
    """Asks for another execution in an hour, after its second item."""

    def build_enumerator(self, *, cursor: Any) -> Enumerator[int]:
        """Go through four numbers."""
        return items(range(4), cursor=cursor)

    def each_iteration(self, item: int) -> None:
        """Wait after two."""
        if item == 2:
            raise RetryLater(3600)


def work(queue: Queue, **asked: Any) -> None:
    """Do all there is to do."""
    with overriding(Overrides(**asked)):
        SimpleWorker([queue], connection=queue.connection, commands=False).work(
            burst=True, logging_level="CRITICAL"
        )


@pytest.mark.parametrize(
    ("result_ttl", "setting", "kept"),
    [(None, "", 500), (90, "", 90), (-1, "", TTL), (10**9, "", TTL), (90, "3600", 3600), (90, "often", 90)],
)  # fmt: skip
def test_history_of_a_completed_job_expires_with_its_result(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, result_ttl: int | None, setting: str, kept: int
) -> None:
    """RQ's result TTL is that of the history; the setting changes it, and a wrong setting stops no job."""
    monkeypatch.setenv(SETTING, setting)
    job = enqueue(queue, CountByIteration, 3, options={"result_ttl": result_ttl})
    work(queue)
    redis = queue.connection
    assert kept - 60 < redis.ttl(keys.history(job.id)) <= kept
    assert not redis.exists(keys.heartbeat(job.id))


def test_history_of_a_job_without_result_is_gone_at_once(queue: Queue, redis: Redis) -> None:
    """If the result TTL is 0, RQ deletes the job, and none of its data remains."""
    for _ in range(3):
        enqueue(queue, CountByIteration, 3, options={"result_ttl": 0})
    work(queue)
    assert [key for key in keys_of(redis) if b"history" in key or b"pulse" in key or b"rq:job:" in key] == []


def test_history_of_a_failed_job_expires_with_its_failure(queue: Queue, redis: Redis) -> None:
    """A failure that RQ retries does not count; history of the last one has RQ's failure TTL, at most 30 days."""
    once = enqueue(queue, Fails, 5, options={"failure_ttl": 90})
    again = enqueue(queue, Fails, 5, options={"failure_ttl": 90, "retry": Retry(max=1, interval=1000)})
    long = enqueue(queue, Fails, 5)
    work(queue)
    assert 30 < redis.ttl(keys.history(once.id)) <= 90
    for job in (again, long):
        assert TTL - 60 < redis.ttl(keys.history(job.id)) <= TTL


def test_a_request_for_a_job_that_is_over_expires(queue: Queue, redis: Redis) -> None:
    """A request to pause has no TTL; the end of its job gives it one."""
    job = enqueue(queue, CountByIteration, 3)
    cancel(redis, job.id)
    work(queue)
    assert 0 < redis.ttl(keys.control(job.id)) <= TTL


def test_history_of_a_deleted_job_is_removed_by_a_sweep(queue: Queue, redis: Redis) -> None:
    """An application that deletes its job does not know of the history; a worker that looks for the job does."""
    job = enqueue(queue, CountByIteration, 10)
    with overriding(Overrides(stops=(Every(3),))):
        SimpleWorker([queue], connection=redis, commands=False).work(
            burst=True, max_jobs=1, logging_level="CRITICAL"
        )
    assert redis.exists(keys.history(job.id))
    job.delete()
    redis.zadd(keys.OPEN, {job.id: 0}, xx=True)  # as if the time of the next look had come
    recover(redis)
    assert not redis.exists(keys.history(job.id), keys.heartbeat(job.id))


def test_a_hundred_executions_leave_a_bounded_history(jobs_queue: Queue) -> None:
    """Entries are short: a hundred executions take less than 38 kB in Redis, however long names and reasons are."""
    connection = jobs_queue.connection
    job = enqueue(jobs_queue, CountByIteration, 130)
    work(jobs_queue, stops=[Every(1)])
    assert connection.xlen(keys.history(job.id)) == 200
    assert size(connection, keys.history(job.id)) < 38_000
    long = enqueue(jobs_queue, CountByIteration, 130)
    with overriding(Overrides(stops=(lambda at: at.items and "x" * 50_000,))):
        SimpleWorker([jobs_queue], connection=connection, commands=False, name="w" * 5_000).work(
            burst=True, max_jobs=100, logging_level="CRITICAL"
        )
    assert size(connection, keys.history(long.id)) < 120_000


OLD = timedelta(days=40).total_seconds()


@pytest.fixture
def store(tmp_path: Path) -> SqlStore:
    """Return a store in a file."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/work.db")
    made = SqlStore(engine)
    made.create()
    return made


def age(store: SqlStore, job_ids: list[str]) -> None:
    """Make progress old."""
    table = TABLES.progress
    old = sa.update(table).where(table.c.job_id.in_(job_ids)).values(updated_at=store._before(OLD))
    with store._engine.begin() as connection:
        connection.execute(old)


def fill(store: SqlStore, queue: Queue) -> None:
    """Store progress of jobs in all places."""
    for job_id, state in {
        "done": "completed", "lost": "interrupted", "waiting": "interrupted", "finished": "completed",
        "running": "running", "young": "completed",
    }.items():  # fmt: skip
        progress = store.claim(job_id)
        progress.state = state  # type: ignore[assignment]  # a str of the table above
        store.save(progress)
    age(store, ["done", "lost", "waiting", "finished", "running"])
    for job_id, status in {"waiting": "queued", "finished": "finished", "running": "started"}.items():
        queue.connection.hset(f"rq:job:{job_id}", "status", status)


def left(store: SqlStore) -> set[str]:
    """Return the jobs that have progress."""
    with store._engine.connect() as connection:
        return set(connection.scalars(sa.select(TABLES.progress.c.job_id)))


def test_old_rows_of_jobs_that_are_over_are_pruned(store: SqlStore, queue: Queue) -> None:
    """Progress that RQ's job may go on from is kept, whatever its age; a dry run removes nothing."""
    fill(store, queue)
    month = timedelta(days=30).total_seconds()
    dry = prune_sql(store, queue.connection, month, dry_run=True)
    assert (dry.removed, dry.kept, len(left(store))) == ({"progress": 3}, 2, 6)
    pruned = prune_sql(store, queue.connection, month)
    assert (pruned.removed, left(store)) == ({"progress": 3}, {"waiting", "running", "young"})
    prune_sql(store, queue.connection, month, unfinished=True)
    assert left(store) == {"young"}


def test_without_a_queue_only_completed_rows_are_pruned(store: SqlStore, queue: Queue) -> None:
    """Without the queue, prune cannot know whether a job goes on, so it removes only completed rows."""
    fill(store, queue)
    prune_sql(store, None, timedelta(days=30).total_seconds())
    assert left(store) == {"lost", "waiting", "running", "young"}


def test_a_row_that_was_written_since_is_kept(store: SqlStore, queue: Queue) -> None:
    """An execution that claims the job between the look and the deletion keeps its progress."""
    fill(store, queue)
    store.claim("done")
    assert store.prune(["done", "lost"], [], OLD - 60) == 1
    assert "done" in left(store)


def test_many_rows_are_pruned_in_batches(
    store: SqlStore, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every batch goes on after the last, also past rows that are kept."""
    monkeypatch.setattr("harness.queues.rq.pruning.BATCH", 7)
    for number in range(40):
        progress = store.claim(f"j{number}")
        progress.state = "completed" if number % 2 else "interrupted"
        store.save(progress)
        if not number % 2:
            queue.connection.hset(f"rq:job:j{number}", "status", "queued")
        store.replace(f"parallel:j{number}@r", None, "{}")
    with store._engine.begin() as connection:
        for table in TABLES:
            connection.execute(sa.update(table).values(updated_at=store._before(OLD)))
    pruned = prune_sql(store, queue.connection, OLD - 60)
    assert (pruned.removed, pruned.kept) == ({"progress": 20, "shared": 20}, 40)


def test_old_keys_of_jobs_that_redis_no_longer_has_are_pruned(broker: Redis) -> None:
    """Progress, history, requests and shared records go; those of a job that waits stay; a dry run removes nothing."""
    store = RedisStore(broker, ttl=None)
    for job_id in ("gone", "waiting", "finished", "odd[*]?"):
        store.claim(job_id)
        broker.xadd(keys.history(job_id), {"entry": "{}"}, id="1700000000000-0")
        broker.set(keys.control(job_id), "pause")
        division = SliceTable([1], [None], [False], 1, [0], 1)
        store.replace(f"parallel:{job_id}@2024/", None, division.to_json())
    for job_id, status in {"waiting": "scheduled", "finished": "finished"}.items():
        broker.hset(f"rq:job:{job_id}", "status", status)
    broker.xadd(keys.history("young"), {"entry": "{}"})
    before = set(keys_of(broker))
    dry = prune_redis(broker, 0, dry_run=True)
    assert set(keys_of(broker)) == before
    pruned = prune_redis(broker, 0)
    assert dry.removed == pruned.removed == {"progress": 3, "history": 7, "shared": 3}
    assert pruned.kept == dry.kept == 4
    assert all(b"waiting" in key or b"rq:" in key for key in keys_of(broker))


@pytest.mark.parametrize(
    ("ticket", "kept"),
    [
        ({"state": "waiting"}, True), ({"state": "parked"}, True), ({"state": "running"}, True),
        ({"state": "over", "outcome": "failed"}, True), ({"state": "over", "outcome": "completed"}, False),
        ({"state": "over", "outcome": "cancelled"}, False), (None, True),
    ],
)  # fmt: skip
def test_progress_of_a_job_with_a_ticket_is_kept(
    broker: Redis, ticket: dict[str, str] | None, kept: bool
) -> None:
    """An unfinished job of Celery or Dramatiq keeps its progress; so does one whose ticket cannot be read."""
    if ticket is None:
        broker.set("harness:ticket:job", "no hash")
    else:
        broker.hset("harness:ticket:job", mapping=ticket)  # type: ignore[arg-type]  # it is invariant
    store = RedisStore(broker, ttl=None)
    store.claim("job")
    pruned = prune_redis(broker, 0)
    assert (store.load("job") is not None, pruned.kept) == (kept, int(kept))
    prune_redis(broker, 0, unfinished=True)
    assert store.load("job") is None


@pytest.mark.parametrize("kind", [OnCelery, OnDramatiq])
def test_a_job_that_waits_for_its_retry_goes_on_after_pruning(kind: Any, broker: Redis) -> None:
    """Progress that a paused or delayed job needs is not old, whatever its age."""
    backend = kind(broker)
    backend.enqueue(RetriesOnce, job_id="job")
    backend.work(
        lambda: backend.progress("job") is not None and backend.progress("job").state == "interrupted"
    )
    assert prune_redis(broker, 0).removed.get("progress") is None
    assert backend.progress("job").done == 2


def test_the_age_of_a_history_is_that_of_its_last_entry(broker: Redis) -> None:
    """A look at it makes it no younger; a string is as old as Redis says, and so not old yet here."""
    broker.xadd(keys.history("old"), {"entry": "{}"}, id="1700000000000-0")
    broker.xadd(keys.history("young"), {"entry": "{}"})
    broker.set(keys.control("young"), "pause")
    broker.set(keys.history("another type"), "x")
    broker.set(b"harness:history:\xff", "x")
    pruned = prune_redis(broker, 3600)
    assert pruned.removed == {"history": 1}
    assert broker.exists(keys.history("young"), keys.control("young"), keys.history("another type")) == 3


def test_prune_says_what_it_removed(store: SqlStore, broker: Redis, redis_url: str, tmp_path: Path) -> None:
    """The command reports in words and as JSON; with `--dry-run` it reports what it would remove."""
    queue = Queue("test", connection=broker, serializer="json")
    fill(store, queue)
    broker.xadd(keys.history("old"), {"entry": "{}"}, id="1700000000000-0")
    arguments = [
        "prune",
        "--older-than",
        "30d",
        "--redis",
        redis_url,
        "--database",
        f"sqlite:///{tmp_path}/work.db",
    ]
    dry = harness(*arguments, "--dry-run")
    assert dry.output.splitlines() == [
        "would remove from database: 3 progress; 2 kept, because the queue still has their jobs",
        "would remove from redis: 1 history",
    ]
    data = json.loads(harness(*arguments, "--json").output)
    assert data["database"] == {"removed": {"progress": 3}, "kept": 2}
    assert harness(*arguments, "--unfinished").output.startswith("removed from database: 2 progress\n")
    assert harness(*arguments).output == "removed from database: nothing\nremoved from redis: nothing\n"


@pytest.mark.parametrize("age", ["30", "d", "-1d", "1.5d", "30 d", "", "x" * 50, "9" * 20 + "d"])
def test_an_age_that_is_none_is_refused(redis_url: str, age: str) -> None:
    """The error says what an age is."""
    said = one_line(harness("prune", "--older-than", age, "--redis", redis_url))
    assert "use a number and a unit, such as 30d" in said


def test_progress_of_a_job_that_waits_is_kept_from_a_store_without_ttl(broker: Redis) -> None:
    """A waiting job resumes where it was, whatever was pruned."""
    queue = Queue("test", connection=broker, serializer="json")
    job = enqueue(queue, CountByIteration, 9)
    store = RedisStore(broker, ttl=None)
    store.claim(job.id)
    store.save(Progress(job.id, epoch=1, step="each_iteration", cursor=5, claimed=store.load(job.id).claimed))  # type: ignore[union-attr]  # claimed just now
    prune_redis(broker, 0)
    assert store.load(job.id).cursor == 5  # type: ignore[union-attr]  # it is there
