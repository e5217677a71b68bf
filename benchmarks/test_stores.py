"""Cost of one save in each store: in memory, in SQLite files, on servers that do not wait for the disk."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from operator import truediv
from pathlib import Path
from time import perf_counter

import pytest
import sqlalchemy as sa
from redis import Redis
from rq.job import Job as RQJob
from sqlalchemy.orm import Session

from harness.lab.servers import postgresql_server, redis_server
from harness.progress import Progress, Store
from harness.stores.memory import MemoryStore
from harness.stores.redis import RedisStore
from harness.stores.rq_meta import RQMetaStore
from harness.stores.sql import SqlStore

SAVES = 200
ROUNDS = 9


def sqlite(path: Path, *, wal: bool) -> sa.Engine:
    """Return an engine of a file; with a write-ahead log as the scenarios have it."""
    engine = sa.create_engine(f"sqlite:///{path}")

    @sa.event.listens_for(engine, "connect")
    def configure(connection: sa.engine.interfaces.DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL") if wal else ():
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[dict[str, sa.Engine]]:
    """Yield engines with the tables of the store, by name."""
    with postgresql_server() as server:
        engines = {
            "SQLite file": sqlite(tmp_path / "plain.db", wal=False),
            "SQLite file, WAL, synchronous=NORMAL": sqlite(tmp_path / "wal.db", wal=True),
            "PostgreSQL by socket, fsync=off": sa.create_engine(server.url),
        }
        for engine in engines.values():
            SqlStore(engine).create()
        yield engines
        for engine in engines.values():
            engine.dispose()


def measured(save: Callable[[Progress], object], progress: Progress, number: int = ROUNDS) -> list[float]:
    """Return what one save takes in each round, in µs."""
    rounds = []
    for _ in range(number):
        start = perf_counter()
        for done in range(SAVES):
            progress.cursor = progress.done = done
            save(progress)
        rounds.append((perf_counter() - start) / SAVES * 1e6)
    return rounds


def show(label: str, values: list[float]) -> None:
    """Print the median with its spread."""
    low, median, high = statistics.quantiles(values, n=4)
    print(f"{label}: {median:.0f} µs, quartiles {low:.0f} to {high:.0f}, least {min(values):.0f}")


def test_a_save(capsys: pytest.CaptureFixture[str], engines: dict[str, sa.Engine]) -> None:
    """Each store saves a small progress repeatedly; within a transaction too, compared with its bare commit."""
    with capsys.disabled(), ExitStack() as stack:
        print(f"\none save, median of {ROUNDS} rounds of {SAVES}")
        server = stack.enter_context(redis_server())
        redis = stack.enter_context(Redis.from_url(server.url))
        redis.hset(RQJob.key_for("17"), "status", "started")
        stores: dict[str, Store] = {
            "memory": MemoryStore(),
            "rq_meta, Redis by socket": RQMetaStore(redis),
            "redis, Redis by socket": RedisStore(redis),
            **{f"sql, {name}": SqlStore(engine) for name, engine in engines.items()},
        }
        show(
            "one HSET of 600 bytes",
            measured(lambda _: redis.hset("hash", "field", "x" * 600), Progress("17")),
        )
        for name, store in stores.items():
            progress = store.claim("17")
            progress.step = "price"
            show(name, measured(store.save, progress))
            assert store.load("17") == progress
        for name, engine in engines.items():
            inside, beside = within(engine)
            show(f"a commit of one row, {name}", beside)
            show(f"the same with save_within, {name}", inside)
            low, ratio, high = statistics.quantiles(map(truediv, inside, beside), n=4)
            print(f"ratio, {name}: {ratio:.2f}, quartiles {low:.2f} to {high:.2f}")


def within(engine: sa.Engine) -> tuple[list[float], list[float]]:
    """Return what a commit of one row takes with save_within and without, in µs."""
    store = SqlStore(engine)
    progress = store.claim("18")
    progress.step = "price"
    work = sa.Table("work", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    work.create(engine)
    with Session(engine) as session:

        def commit(_: Progress) -> None:
            session.execute(sa.insert(work))
            session.commit()

        def commit_with_progress(progress: Progress) -> None:
            session.execute(sa.insert(work))
            store.save_within(session, progress)
            session.commit()

        # Round by round in turn, so that both meet the same load.
        pairs = [
            (measured(commit_with_progress, progress, 1), measured(commit, progress, 1))
            for _ in range(ROUNDS)
        ]
        return [inside for (inside,), _ in pairs], [beside for _, (beside,) in pairs]
