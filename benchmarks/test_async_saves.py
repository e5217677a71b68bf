"""Time for which a save of an async job keeps the event loop from its other tasks, by store."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter

import pytest
import sqlalchemy as sa
from redis import Redis

from benchmarks.test_stores import show, sqlite
from harness import ContinuableJob, Durability, Step, every, on_stop, run
from harness.lab.servers import postgresql_server, redis_server
from harness.progress import Store
from harness.stores.memory import MemoryStore
from harness.stores.redis import RedisStore
from harness.stores.sql import SqlStore

SAVES = 300


class Waits(ContinuableJob):
    """Measures each save of an async step; another task of the loop would wait that long."""

    took: list[float]

    async def perform(self) -> None:
        """Run the step."""
        await self.step("count")

    async def count(self, step: Step) -> None:
        """Move the cursor, and keep the time of each move in µs."""
        for number in range(SAVES):
            began = perf_counter()
            step.set(number)
            type(self).took.append((perf_counter() - began) * 1e6)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[dict[str, Store]]:
    """Yield stores by name: a Redis, a PostgreSQL, and a file of SQLite."""
    with ExitStack() as stack:
        redis = stack.enter_context(Redis.from_url(stack.enter_context(redis_server()).url))
        engines = {
            "PostgreSQL by socket, fsync=off": sa.create_engine(stack.enter_context(postgresql_server()).url),
            "SQLite file": sqlite(tmp_path / "plain.db", wal=False),
            "SQLite file, WAL, synchronous=NORMAL": sqlite(tmp_path / "wal.db", wal=True),
        }
        found: dict[str, Store] = {"Redis by socket": RedisStore(redis)}
        for name, engine in engines.items():
            stack.callback(engine.dispose)
            found[name] = SqlStore(engine)
            SqlStore(engine).create()
        yield found


def measured(durability: Durability, store: Store) -> list[float]:
    """Return what each ``step.set()`` takes, in µs."""
    Waits.took = []
    run(type("Chosen", (Waits,), {"durability": durability, "took": Waits.took}), store=store)
    return Waits.took


def test_an_async_save(capsys: pytest.CaptureFixture[str], stores: dict[str, Store]) -> None:
    """A save is a plain call: the loop waits for it as long as the store needs."""
    with capsys.disabled():
        print(f"\none step.set() in an async step of {SAVES}")
        show("no save, on_stop()", without := measured(on_stop(), MemoryStore()))
        assert len(without) == SAVES
        for name, store in stores.items():
            took = measured(every(items=1), store)
            show(name, took)
            print(f"  95 % within {statistics.quantiles(took, n=20)[-1]:.0f} µs")
            assert len(took) == SAVES
