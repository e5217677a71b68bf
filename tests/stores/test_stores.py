"""One behaviour suite for every store, in memory, on fakeredis and on the real services."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from threading import Barrier, Event
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from redis import Redis
from rq import Queue
from rq.job import Job as RQJob

from harness.errors import CorruptProgress, ProgressGone, Superseded, UnsupportedProgress
from harness.progress import Progress, Store
from harness.stores.memory import MemoryStore
from harness.stores.redis import RedisStore
from harness.stores.rq_meta import FIELD, RQMetaStore
from harness.stores.sql import ProgressTables, SqlStore, progress_tables
from tests import jobs
from tests.examples import examples
from tests.patterns.test_cursor import cursors, same
from tests.workers import PATIENCE

KINDS = ["rq_meta", "redis", "rq_meta on a server", "redis on a server", "sqlite", "postgresql"]


@dataclass(frozen=True)
class Place:
    """A store, and what is in it where only its maker looks.

    :ivar read: returns the stored text of a job, raw. :ivar write: puts something in its place.
    """

    store: Store
    read: Callable[[str], Any]
    write: Callable[[str, Any], None]


def enqueued(redis: Redis, job_id: str) -> RQJob:
    """Enqueue an RQ job, with something of its author's in its meta."""
    queue = Queue("test", connection=redis, serializer="json")
    return queue.enqueue_call(jobs.plain, args=(3,), job_id=job_id, meta={"tenant": "a"})


def in_meta(redis: Redis) -> Place:
    """Return the store in the hashes of RQ jobs."""
    for job_id in ("17", "18"):
        enqueued(redis, job_id)

    def read(job_id: str) -> Any:
        return bytes(redis.hget(RQJob.key_for(job_id), FIELD) or b"").decode()  # type: ignore[arg-type]

    def write(job_id: str, text: Any) -> None:
        redis.hset(RQJob.key_for(job_id), FIELD, text)

    return Place(RQMetaStore(redis), read, write)


def in_redis(redis: Redis) -> Place:
    """Return the store with separate keys."""

    def read(job_id: str) -> Any:
        return bytes(redis.get(f"harness:progress:{job_id}") or b"").decode()  # type: ignore[arg-type]

    def write(job_id: str, text: Any) -> None:
        redis.set(f"harness:progress:{job_id}", text)

    return Place(RedisStore(redis), read, write)


def patience(url: str) -> dict[str, Any]:
    """Return what makes SQLite wait for a writer that never rests, as some tests here have one."""
    return {"timeout": PATIENCE} if url.startswith("sqlite") else {}


@contextmanager
def database(url: str) -> Iterator[tuple[sa.Engine, ProgressTables]]:
    """Make the tables of a store in an SQL database, and drop them afterwards."""
    engine, metadata = sa.create_engine(url, connect_args=patience(url)), sa.MetaData()
    tables = progress_tables(metadata)
    SqlStore(engine, tables=tables).create()
    try:
        yield engine, tables
    finally:
        metadata.drop_all(engine)
        engine.dispose()


def in_sql(engine: sa.Engine, tables: ProgressTables) -> Place:
    """Return the store in an SQL database."""
    table = tables.progress

    def read(job_id: str) -> Any:
        with engine.connect() as connection:
            return connection.scalar(sa.select(table.c.progress).where(table.c.job_id == job_id))

    def write(job_id: str, text: Any) -> None:
        with engine.begin() as connection:
            connection.execute(sa.update(table).where(table.c.job_id == job_id).values(progress=text))

    return Place(SqlStore(engine, tables=tables), read, write)


@contextmanager
def opened(kind: str, request: pytest.FixtureRequest) -> Iterator[Place]:
    """Make a store of one of the kinds whose data others can reach, with room for jobs 17 and 18."""
    kind, _, server = kind.partition(" on a ")
    if kind in {"rq_meta", "redis"}:
        redis = request.getfixturevalue("real_redis" if server else "redis")
        yield in_meta(redis) if kind == "rq_meta" else in_redis(redis)
        return
    file = request.getfixturevalue("tmp_path") / "stores.db"
    url = request.getfixturevalue("postgresql_url") if kind == "postgresql" else f"sqlite:///{file}"
    with database(url) as (engine, tables):
        yield in_sql(engine, tables)


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Yield each store whose data others can reach, in turn."""
    with opened(request.param, request) as place:
        yield place


@pytest.fixture(params=["memory", *KINDS])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Yield each store in turn."""
    if request.param == "memory":
        yield MemoryStore()
        return
    with opened(request.param, request) as place:
        yield place.store


def test_a_job_not_seen_before_gets_a_new_record(store: Store) -> None:
    """The first claim returns epoch 1 and nothing done."""
    assert store.load("17") is None
    assert store.claim("17") == Progress("17", epoch=1)
    assert store.load("17") == Progress("17", epoch=1)


def test_what_was_saved_is_claimed(store: Store) -> None:
    """A later execution finds what the one before has saved, with the epoch raised."""
    progress = store.claim("17")
    progress.step, progress.cursor, progress.done = "price", (3, "b"), 3
    assert store.save(progress) == len(progress.to_json())
    claimed = store.claim("17")
    assert (claimed.epoch, claimed.step, claimed.cursor, claimed.done) == (2, "price", (3, "b"), 3)
    assert store.load("17") == claimed


def test_a_claim_supersedes_the_one_before(store: Store) -> None:
    """An execution that counts as crashed cannot overwrite its successor."""
    frozen, successor = store.claim("17"), store.claim("17")
    successor.cursor, successor.step = 9, "price"
    store.save(successor)
    frozen.cursor, frozen.step = 1, "price"
    with pytest.raises(Superseded, match="execution 1 of job 17 must not save: execution 2 has claimed it"):
        store.save(frozen)
    assert store.load("17") == successor


def test_claims_at_once_come_one_after_the_other(store: Store) -> None:
    """Executions that begin in the same moment each have a different epoch, also of a job not seen before."""
    claimants = 6
    together = Barrier(claimants)

    def claim() -> int:
        together.wait(PATIENCE)
        return store.claim("17").epoch

    with ThreadPoolExecutor(claimants) as pool:
        epochs = [each.result() for each in [pool.submit(claim) for _ in range(claimants)]]
    assert sorted(epochs) == list(range(1, claimants + 1))


def test_a_claim_has_the_last_save(store: Store) -> None:
    """A claim returns the last save that succeeded before the claim superseded it."""
    progress, under_way, over = store.claim("17"), Event(), Event()
    progress.step = "price"

    def save_until_superseded() -> int:
        for saved in count():
            assert not over.is_set(), "never superseded"
            progress.cursor = saved
            try:
                store.save(progress)
            except Superseded:
                return saved - 1
            if saved == 20:
                under_way.set()
        raise AssertionError  # it counts for ever

    with ThreadPoolExecutor(1) as pool:
        last = pool.submit(save_until_superseded)
        assert under_way.wait(PATIENCE)
        try:
            claimed = store.claim("17")
            assert claimed.cursor == last.result(PATIENCE)
        finally:
            over.set()


@examples(50)
@given(cursor=cursors)
def test_every_cursor_comes_back_through_every_store(store: Store, cursor: Any) -> None:
    """Equal and of the same type, attributes as well."""
    progress = store.claim("17")
    progress.step, progress.cursor, progress.attributes = "price", cursor, {"seen": cursor}
    store.save(progress)
    stored = store.load("17")
    assert stored is not None
    assert same(stored.cursor, cursor)
    assert same(stored.attributes["seen"], cursor)


def test_saved_progress_does_not_change_with_the_object(store: Store) -> None:
    """The store keeps a copy of the value, not a reference."""
    progress = store.claim("17")
    progress.completed = ["load"]
    store.save(progress)
    progress.completed.append("price")
    stored = store.load("17")
    assert stored is not None
    assert stored.completed == ["load"]


def test_delete_forgets(store: Store) -> None:
    """After delete the job is as never seen, its late executions cannot save, and other jobs stay."""
    progress, other = store.claim("17"), store.claim("18")
    store.delete("17")
    store.delete("17")
    assert store.load("17") is None
    with pytest.raises(Superseded, match="was deleted"):
        store.save(progress)
    assert store.load("18") == other
    assert store.claim("17").epoch == 1


def test_what_jobs_share_is_replaced_by_one_of_them(store: Store) -> None:
    """Only a caller that saw the current shared value may replace it (I32)."""
    assert store.read("17") is None
    assert not store.replace("17", "a", "b")
    assert store.replace("17", None, "a")
    assert not store.replace("17", None, "b")
    assert store.replace("17", "a", "ä")
    assert not store.replace("17", "a", "c")
    assert store.read("17") == "ä"
    store.delete("17")
    assert store.read("17") == "ä", "what is shared is not the progress of the job"


def test_nothing_that_jobs_share_is_lost(store: Store) -> None:
    """Of executions that all add one, each successful replace has added exactly one."""
    threads, rounds = 4, 10

    def add() -> None:
        for _ in range(rounds):
            while True:
                before = store.read("count")
                if store.replace("count", before, str(int(before or 0) + 1)):
                    break

    with ThreadPoolExecutor(threads) as pool:
        for each in [pool.submit(add) for _ in range(threads)]:
            each.result()
    assert store.read("count") == str(threads * rounds)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", CorruptProgress),
        ("\x80\x05N.", CorruptProgress),  # a pickle: never loaded
        ('{"version": 1, "epo', CorruptProgress),
        ("[" * 100_000, CorruptProgress),
        ("17", CorruptProgress),
        ('{"version": 99}', UnsupportedProgress),
    ],
)
def test_what_cannot_be_used_is_refused_and_kept(place: Place, text: str, error: type[Exception]) -> None:
    """A record that cannot be used is refused by name, and stays unchanged, with its epoch."""
    place.store.claim("17")
    before = place.read("17")
    place.write("17", text)
    for _ in range(2):
        with pytest.raises(error, match="job 17"):
            place.store.claim("17")
        with pytest.raises(error, match="job 17"):
            place.store.load("17")
    assert place.read("17") == text
    place.write("17", before)
    assert place.store.claim("17").epoch == 2


def test_progress_of_another_job_is_refused_and_kept(place: Place) -> None:
    """Progress of another job is refused, even one of the same class, whose data would look right."""
    for job_id in ("17", "18"):
        place.store.claim(job_id)
    texts = [place.read(job_id) for job_id in ("17", "18")]
    for job_id, other, text in (("17", "18", texts[1]), ("18", "17", texts[0])):
        place.write(job_id, text)
        with pytest.raises(
            CorruptProgress, match=f"the progress of job {job_id} was written for job {other}"
        ):
            place.store.claim(job_id)
        assert place.read(job_id) == text


@pytest.mark.parametrize("write", [RQJob.save, RQJob.save_meta])
def test_what_the_application_writes_and_the_progress_are_apart(
    redis: Redis, write: Callable[[RQJob], None]
) -> None:
    """An old copy of a job, or its meta, is saved without touching the progress, which touches neither."""
    store, job = RQMetaStore(redis), enqueued(redis, "17")
    progress = store.claim("17")
    progress.step, progress.cursor = "price", 17
    store.save(progress)
    job.meta["tenant"] = "b"
    write(job)
    assert store.load("17") == progress
    store.save(progress)
    job.refresh()
    assert job.meta == {"tenant": "b"}
    store.delete("17")
    job.refresh()
    assert (store.load("17"), job.meta) == (None, {"tenant": "b"})


def test_progress_of_an_older_release_is_taken_out_of_the_meta(redis: Redis) -> None:
    """Progress in the meta is resumed and moved by the first write; a copy saved later changes nothing."""
    store, job = RQMetaStore(redis), enqueued(redis, "17")
    old = Progress("17", job="shop:Import", epoch=3, state="interrupted", step="price", cursor=17)
    job.meta[FIELD] = old.to_json()
    job.save_meta()
    assert store.load("17") == old
    claimed = store.claim("17")
    assert (claimed.epoch, claimed.step, claimed.cursor) == (4, "price", 17)
    assert json.loads(redis.hget(job.key, "meta") or "") == {"tenant": "a"}
    claimed.cursor = 18
    store.save(claimed)
    job.save_meta()
    assert store.load("17") == claimed
    store.delete("17")
    assert store.load("17") is None


@pytest.mark.parametrize("claimed_since", [False, True])
def test_a_record_that_is_gone_is_renewed_by_its_execution_only(store: Store, claimed_since: bool) -> None:
    """An execution that still has the job stores its progress again and goes on; after another claim it is refused."""
    progress = store.claim("17")
    progress.step, progress.cursor = "price", 17
    store.save(progress)
    store.delete("17")
    with pytest.raises(ProgressGone, match="its progress was deleted"):
        store.save(progress)
    if claimed_since:
        for _ in range(2):
            store.claim("17")
        with pytest.raises(Superseded, match="has claimed it"):
            store.renew(progress)
        return
    assert store.renew(progress) == len(progress.to_json())
    assert store.load("17") == progress
    progress.cursor = 18
    store.save(progress)
    store.renew(progress)  # its answer was lost, and it is made again
    assert store.claim("17").epoch == 2


@pytest.mark.parametrize("kind", ["rq_meta", "redis"])
def test_a_new_record_belongs_to_whoever_made_it(request: pytest.FixtureRequest, kind: str) -> None:
    """Epochs begin at 1 again once a record was deleted; the execution of before cannot save all the same."""
    with opened(kind, request) as place:
        before = place.store.claim("17")
        place.store.delete("17")
        place.store.claim("17")
        for write in (place.store.save, place.store.renew):
            with pytest.raises(Superseded):
                write(before)
