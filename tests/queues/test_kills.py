"""Workers of Celery and Dramatiq that are killed at random moments: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest
import sqlalchemy as sa

from harness.lab.queue_suite import wait_until
from harness.stores.sql import SqlStore
from tests.queues.fleet import PATIENCE, Fleet
from tests.queues.kill_jobs import DONE, Entries

KILLS = int(os.environ.get("HARNESS_QUEUE_KILLS", "3"))
"""Number of kills of each test."""

JOBS = 2
PER_KILL = 160
"""Items that a job has for each kill: more than it does before the next one."""


FULL = pytest.mark.full


@pytest.mark.parametrize(
    ("kind", "broker"),
    [
        ("celery", "redis"), ("dramatiq", "rabbitmq"), pytest.param("celery", "rabbitmq", marks=FULL),
        pytest.param("dramatiq", "redis", marks=FULL),
    ],
)  # fmt: skip
def test_killed_workers_lose_and_double_nothing(
    kind: str,
    broker: str,
    fleets: Callable[..., Fleet],
    postgresql_url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each item is done once, whichever process is killed at whatever moment, if work and progress commit together."""
    seed = int(os.environ.get("HARNESS_SEED", "0")) or random.SystemRandom().randrange(10**6)
    chosen, database = random.Random(seed), sa.create_engine(postgresql_url)  # noqa: S311 - reproducible
    DONE.drop(database, checkfirst=True)
    DONE.create(database)
    SqlStore(database).create()
    try:
        fleet = fleets(kind, broker, TEST_DATABASE=postgresql_url, HARNESS_RECOVER_SECONDS="6")
        names = [f"{kind}-{broker}-{seed}-{number}" for number in range(JOBS)]
        numbers = max(200, KILLS * PER_KILL // JOBS)
        handles = [fleet.enqueue(Entries, numbers, job_id=name) for name in names]
        fleet.start()
        kinds = _kill_at_random(fleet, database, names, chosen)
        results = [_result_of(fleet, handle) for handle in handles]
        assert [each["done"] for each in results] == [numbers] * JOBS, seed
        with database.connect() as connection:
            counts = Counter(tuple(row) for row in connection.execute(sa.select(DONE.c.job, DONE.c.item)))
        lost = [(name, item) for name in names for item in range(numbers) if not counts[name, item]]
        doubled = [each for each, times in counts.items() if times > 1]
        with capsys.disabled():
            sys.stdout.write(
                f"\n{kind} on {broker}, seed {seed}: kills {dict(kinds)}, lost {len(lost)}, doubled {len(doubled)}\n"
            )
        assert not lost, seed
        assert not doubled, seed
    finally:
        DONE.drop(database)
        database.dispose()


def _kill_at_random(
    fleet: Fleet, database: sa.Engine, names: list[str], chosen: random.Random
) -> Counter[str]:
    """Kill the process of a job, the main process, or all, while there is work; return how often each."""
    kinds: Counter[str] = Counter()
    while sum(kinds.values()) < KILLS:
        _wait_for_rows(fleet, database, names, chosen.randrange(1, 30))
        running = [pid for name in names if (pid := fleet.owner(name)) is not None]
        if all(fleet.state(name) == "over" for name in names):
            break
        if not running:
            continue
        kind = chosen.choice(("job", "job", "main", "all"))
        if kind == "job":
            with suppress(ProcessLookupError):
                os.kill(chosen.choice(running), signal.SIGKILL)
        elif kind == "main":
            fleet.signal(signal.SIGKILL)
        else:
            fleet.kill_all()
        kinds[kind] += 1
        if (
            kind != "job" or fleet.kind == "dramatiq"
        ):  # Dramatiq's main process leaves when a process of it is gone
            fleet.wait()
            fleet.kill_all()  # processes without their main one: a supervisor ends them too
            fleet.start()
    return kinds


def _wait_for_rows(fleet: Fleet, database: sa.Engine, names: list[str], more: int) -> None:
    """Return when the jobs have written so many more rows, or are over."""
    before = _rows(database)

    def written() -> bool:
        assert fleet.running, f"the worker has ended by itself: {fleet.log.read_text()[-2000:]}"
        return _rows(database) >= before + more or all(fleet.state(name) == "over" for name in names)

    try:
        wait_until(written, PATIENCE)
    except AssertionError as error:
        found = {name: fleet.queue.tickets.read(name) for name in names}
        raise AssertionError(f"{error}; tickets: {found}; log: {fleet.log.read_text()[-4000:]}") from error


def _rows(database: sa.Engine) -> int:
    with database.connect() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(DONE)).scalar_one())


def _result_of(fleet: Fleet, handle: object) -> dict[str, int]:
    if not fleet.running:
        fleet.start()
    result: dict[str, int] = fleet.result(handle)
    return result
