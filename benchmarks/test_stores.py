"""Cost of one save in each store: in memory, in SQLite files, on servers with and without a wait for the disk."""

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
COMMITS, COMMIT_ROUNDS = 40, 45


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
    with postgresql_server() as server, postgresql_server(fsync=True) as durable:
        engines = {
            "SQLite file": sqlite(tmp_path / "plain.db", wal=False),
            "SQLite file, WAL, synchronous=NORMAL": sqlite(tmp_path / "wal.db", wal=True),
            "PostgreSQL by socket, fsync=off": sa.create_engine(server.url),
            "PostgreSQL by socket, fsync=on": sa.create_engine(durable.url),
        }
        for engine in engines.values():
            SqlStore(engine).create()
        yield engines
        for engine in engines.values():
            engine.dispose()


def measured(
    save: Callable[[Progress], object], progress: Progress, number: int = ROUNDS, saves: int = SAVES
) -> list[float]:
    """Return what one save takes in each round, in µs."""
    rounds = []
    for _ in range(number):
        start = perf_counter()
        for done in range(saves):
            progress.cursor = progress.done = done
            save(progress)
        rounds.append((perf_counter() - start) / saves * 1e6)
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
        times = within(engines)
        for name, (alone, bare, inside) in times.items():
            show(f"a commit of one row, {name}", alone)
            for label, values in (("SELECT 1 by the driver's cursor", bare), ("save_within", inside)):
                low, ratio, high = statistics.quantiles(map(truediv, values, alone), n=4)
                print(f"  the same with {label}: {ratio:.2f} times, quartiles {low:.2f} to {high:.2f}")


def within(engines: dict[str, sa.Engine]) -> dict[str, list[list[float]]]:
    """Return what a commit of one row takes in each database: alone, with a bare SELECT, with a save; in µs."""
    work = sa.Table("work", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    times: dict[str, list[list[float]]] = {}
    with ExitStack() as stack:
        cases = {}
        for name, engine in engines.items():
            work.create(engine)
            store, session = SqlStore(engine), stack.enter_context(Session(engine))
            progress = store.claim("18")
            progress.step = "price"
            times[name] = [[], [], []]
            cases[name] = (
                progress,
                [committing(session, work, also) for also in (nothing, select, store.save_within)],
            )
        # In turn and in short rounds, so that all meet the same load; each is as often the first one after a pause.
        for number in range(COMMIT_ROUNDS):
            for name, (progress, commits) in cases.items():
                for place in range(len(commits)):
                    which = (number + place) % len(commits)
                    times[name][which].extend(measured(commits[which], progress, 1, COMMITS))
    return times


def committing(
    session: Session, work: sa.Table, also: Callable[[Session, Progress], object]
) -> Callable[[Progress], None]:
    """Return a function that commits one row, and before the commit does something else."""

    def commit(progress: Progress) -> None:
        session.execute(sa.insert(work))
        also(session, progress)
        session.commit()

    return commit


def nothing(_session: Session, _progress: Progress) -> None:
    """Do nothing."""


def select(session: Session, _progress: Progress) -> None:
    """Make one round trip, with as little as possible in the client: no save can cost less."""
    cursor = session.connection().connection.cursor()
    cursor.execute("SELECT 1")
    cursor.close()
