"""A parallel run with real workers, two of which are asked to stop and one of which is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue

from harness.lab.processes import kill_both
from harness.queues.rq import enqueue
from harness.stores.sql import SqlStore
from scenarios.models import Base
from tests.databases import used_by_services
from tests.shop import PayAndTell, payments, place_orders
from tests.workers import PATIENCE, Workers, expire_leases, pid_of, wait_for, wait_for_worker

ORDERS = 400


@pytest.fixture
def orders(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Place the orders in PostgreSQL, where four instances can write at the same time."""
    with used_by_services(monkeypatch, postgresql_url) as engine:
        place_orders(ORDERS)
        yield
        Base.metadata.drop_all(engine)
        SqlStore(engine).drop()


def parent(pid: int) -> int | None:
    """Return the parent of a process, None if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return None


@pytest.mark.usefixtures("orders")
def test_every_order_is_paid_once(broker: Redis, jobs_queue: Queue, rq_workers: Workers) -> None:
    """The run ends once, although two instances are interrupted, and one is killed and recovered."""
    enqueue(jobs_queue, PayAndTell, options={"job_id": "7"})
    rq_workers.finish("harness.queues.rq.Worker", "--max-jobs", "1")
    assert jobs_queue.get_job_ids() == ["7-0", "7-1", "7-2", "7-3"]
    workers = [rq_workers.start() for _ in range(4)]
    for number in range(4):
        wait_for(broker, f"7-{number}", 1)
    pids = {pid_of(broker, f"7-{number}"): f"7-{number}" for number in range(4)}
    # All four are at work, and stay at one order until they may go on.
    (horse,) = [pid for pid in pids if parent(pid) == workers[2].pid]
    kill_both(workers[2].pid, horse)
    workers[2].wait(PATIENCE)
    for worker in workers[:2]:
        worker.terminate()
    wait_for_worker(broker, "shutdown_requested_date", workers=2)
    broker.xadd("go", {"on": 1})
    for worker in workers[:2]:
        assert worker.wait(PATIENCE) == 0
    expire_leases(broker, pids[horse])
    for _ in range(2):
        rq_workers.start()
    assert broker.blpop(["complete"], PATIENCE) is not None
    assert payments() == (ORDERS, ORDERS)
    assert broker.llen("complete") == 0
    store = PayAndTell.progress_store()
    ended = [progress for number in range(4) if (progress := store.load(f"7-{number}"))]
    assert (sum(each.interruptions for each in ended), sum(each.crashes for each in ended)) == (2, 1)
