"""Resources outside of a process: kept, restored, and compared."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from redis import Redis
from sqlalchemy import Engine, StaticPool, create_engine, text

from harness.errors import UsageError
from harness.explore import explore, resources
from harness.explore.outcomes import Reference
from harness.explore.redis import RedisResource
from harness.explore.resources import SqliteResource, Table
from tests.workers import PATIENCE

ENGINES: dict[str, Engine] = {}
SCHEMA = (
    "CREATE TABLE jobs (id INTEGER PRIMARY KEY, done INTEGER NOT NULL)",
    "CREATE TABLE log (token, at TIMESTAMP, job)",
)


@pytest.fixture
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Yield the engine of a database of the kind that the test asks for, with three jobs to do."""
    kinds: dict[str, Any] = {
        "file": lambda: create_engine(f"sqlite:///{tmp_path / 'jobs.db'}"),
        "memory": lambda: create_engine("sqlite://", poolclass=StaticPool),
        "thread's memory": lambda: create_engine("sqlite://"),
    }
    engine = ENGINES["jobs"] = kinds[getattr(request, "param", "file")]()
    with engine.begin() as connection:
        for statement in SCHEMA:
            connection.execute(text(statement))
        connection.execute(text("INSERT INTO jobs VALUES (1, 0), (2, 0), (3, 0)"))
    yield engine
    ENGINES.pop("jobs").dispose()


def test_a_database_without_tables_is_put_back(tmp_path: Path) -> None:
    """A file of SQLite in which nothing was written yet has no pages."""
    path = str(tmp_path / "new.db")
    connection = sqlite3.connect(path)
    place = SqliteResource(path, connection)
    empty = place.keep()
    connection.execute("CREATE TABLE jobs (id)")
    connection.commit()
    assert place.changed()
    place.restore(empty)
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    place.close()
    connection.close()


def log_each(*, together: bool) -> None:
    """Log each job that is not done, under a random token, and mark it, in one transaction or in two."""
    with ENGINES["jobs"].connect() as connection:
        for job in connection.scalars(text("SELECT id FROM jobs WHERE NOT done")).all():
            connection.execute(
                text("INSERT INTO log VALUES (:token, :at, :job)"),
                {"token": str(uuid.uuid4()), "at": datetime.now(UTC).isoformat(), "job": job},
            )
            if not together:
                connection.commit()
            connection.execute(text("UPDATE jobs SET done = 1 WHERE id = :job"), {"job": job})
            connection.commit()


@pytest.mark.parametrize("engine", ["file", "memory", "thread's memory"], indirect=True)
@pytest.mark.parametrize("together", [True, False])
def test_a_database_in_a_file_or_in_memory_is_put_back(engine: Engine, together: bool) -> None:
    """A value that differs between clean runs, such as a token or a time, is no difference; an additional row is."""
    verdict = explore(log_each, kwargs={"together": together}, actions=["crash", "lost-reply"])
    assert verdict.verdict == ("exactly once" if together else "duplicated"), verdict.text()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM log")) == 0, "afterwards all is as it was"
        assert connection.scalar(text("SELECT sum(done) FROM jobs")) == 0


def test_what_is_not_committed_is_not_kept(tmp_path: Path) -> None:
    """The place sees what another process would see."""
    path = str(tmp_path / "jobs.db")
    job = sqlite3.connect(path)
    job.execute("PRAGMA journal_mode=WAL")
    job.execute("CREATE TABLE jobs (id)")
    place = SqliteResource(path, job)
    job.execute("INSERT INTO jobs VALUES (1)")
    assert not place.changed()
    assert place.contents()["jobs"].rows == []
    job.commit()
    assert place.changed()
    assert not place.changed()
    assert place.contents(place.keep())["jobs"].rows == [(1,)]
    place.close()
    job.close()


def test_a_database_that_is_locked_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what to do."""
    monkeypatch.setattr(resources, "MAX_WAITS", 1)
    path = str(tmp_path / "jobs.db")
    job = sqlite3.connect(path, isolation_level=None)
    job.execute("CREATE TABLE jobs (id)")
    place = SqliteResource(path, job)
    kept = place.keep()
    job.execute("BEGIN IMMEDIATE")
    with pytest.raises(
        UsageError, match=r"jobs\.db is locked by another connection.* end the transactions of the test"
    ):
        place.restore(kept)
    job.close()
    place.close()


def test_every_type_of_redis_comes_back() -> None:
    """As it was, and what came later is gone."""
    client = fakeredis.FakeRedis(server=fakeredis.FakeServer())
    client.set("text", "a")
    client.hset("hash", mapping={"a": "1", "b": "2"})
    client.rpush("list", "a", "b", "a")
    client.sadd("set", "a", "b")
    client.zadd("zset", {"a": 1.5, "b": 2})
    client.xadd("stream", {"a": "1"}, id="1-1")
    client.set("rq:queues", "RQ's own")
    place = RedisResource(client)
    kept, contents = place.keep(), place.contents()
    client.flushdb()
    client.set("later", "1")
    place.touched = True
    assert place.changed()
    place.restore(kept)
    assert place.keep() == kept
    assert place.contents() == contents
    assert [key for key, _ in contents["keys"].rows] == ["hash", "list", "set", "stream", "text", "zset"]
    place.close()
    client.close()


def test_a_key_that_is_about_to_expire_expires_after_it_was_put_back() -> None:
    """A key with less than a millisecond left does not live for ever: a trial would wait for it without end."""
    client: Any = fakeredis.FakeRedis()
    place = RedisResource(client)
    for _ in range(30):
        client.set("lock", 1, px=2)
        while kept := place.keep():
            assert kept[b"lock"][2], kept


def test_somebody_elses_redis_is_not_emptied() -> None:
    """Only fakeredis, and a Redis on this machine."""
    with pytest.raises(
        UsageError, match=r"uses Redis on redis\.example\.com, and the explorer would empty it"
    ):
        RedisResource(Redis(host="redis.example.com"))


def rows(*rows: tuple[Any, ...], **options: Any) -> dict[str, Table]:
    """Return contents of one table."""
    return {"t": Table(("id", "name", "sum"), list(rows), key=(0,), **options)}


@pytest.mark.parametrize(
    ("first", "clean", "found", "kinds"),
    [
        (rows((1, "a", 0)), rows((1, "a", 5)), rows((1, "a", 7)), [("wrong total", True)]),
        (rows((1, "a", 0)), rows((1, "a", 5)), rows((1, "a", 3)), [("wrong total", False)]),
        (rows((1, "a", 0)), rows((1, "b", 0)), rows((1, "a", 0)), [("lost", False)]),
        (rows(), rows((1, "a", 0)), rows(), [("lost", False)]),
        (rows(), rows((1, "a", 0)), rows((1, "a", 0), (2, "a", 0)), [("duplicated", False)]),
        (rows(), rows((1, "a", 0), numbered=True), rows((9, "a", 0), numbered=True), []),
        (
            rows(),
            rows((1, "a", 0), numbered=True),
            rows((1, "a", 0), (2, "a", 0), numbered=True),
            [("duplicated", False)],
        ),
        (rows(), rows((1, "a", 4), numbered=True), rows((1, "a", 5), numbered=True), [("wrong total", True)]),
    ],
)
def test_a_difference_has_a_kind(first: Any, clean: Any, found: Any, kinds: list[tuple[str, bool]]) -> None:
    """By what there was before, what should be, and what is."""
    differences = Reference(first, clean, clean).differences(found)
    assert [(difference.kind, difference.more) for difference in differences] == kinds


def test_a_job_that_does_something_else_each_time_is_refused() -> None:
    """Nothing could be compared with it."""
    with pytest.raises(UsageError, match="two clean runs leave different numbers of rows in t"):
        Reference(rows(), rows((1, "a", 0)), rows((1, "a", 0), (2, "a", 0)))
    with pytest.raises(
        UsageError, match=r"two clean runs leave different outcomes .*give outcome= a function"
    ):
        Reference(rows(), rows((1, "a", 0)), rows((2, "a", 0)))


FIRST_FILE = """
from harness import IterationJob, times

class Note(IterationJob):
    def build_enumerator(self, *, cursor):
        return times(2, cursor=cursor)

    def each_iteration(self, number):
        with open("noted.txt", "a") as file:
            file.write(f"{number}\\n")
"""


@pytest.mark.process
def test_the_first_file_of_a_process_may_be_the_jobs(tmp_path: Path) -> None:
    """A job whose file is the first that its process writes is explored, and does not wait for itself."""
    (tmp_path / "notes.py").write_text(FIRST_FILE, encoding="utf-8")
    script = "import notes; from harness.explore import explore; print(explore(notes.Note).verdict)"
    said = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=PATIENCE,
    )  # fmt: skip
    assert said.stdout.startswith("at least once, repeated ≤ "), "an append is what every() may repeat"
