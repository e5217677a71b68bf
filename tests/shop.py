"""A job that shares orders among four instances, importable by real workers, and the orders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from redis import Redis
from rq.job import get_current_job

from harness import Enumerator, IterationJob, parallel_records, with_transaction
from harness.stores.sql import SqlStore
from scenarios import services
from scenarios.models import Base, Customer, Order, Payment
from tests.workers import PATIENCE


def place_orders(count: int) -> None:
    """Create the tables in the database of the services, with *count* pending orders."""
    Base.metadata.create_all(services.engine())
    SqlStore(services.engine()).create()
    with services.session() as session:
        session.execute(sa.insert(Customer), [{"name": "A", "email": "a@example.com"}])
        row = {"customer_id": 1, "amount_cents": 100, "placed_at": datetime(2024, 1, 1, tzinfo=UTC)}
        session.execute(sa.insert(Order), [row] * count)
        session.commit()


def payments() -> tuple[int, int]:
    """Return how many payments there are, and for how many orders."""
    counts = sa.select(sa.func.count(), sa.func.count(sa.distinct(Payment.order_id))).select_from(Payment)
    with services.session() as session:
        found, orders = session.execute(counts).one()
    return found, orders


class Pay(IterationJob):
    """Pays the pending orders, each in one commit with the cursor."""

    durability = with_transaction()

    @classmethod
    def progress_store(cls) -> SqlStore:
        """Keep progress where the orders are."""
        return SqlStore(services.engine())

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Hold a session."""
        with services.session() as self.session:
            yield

    def build_enumerator(self, *, cursor: Any) -> Enumerator[Order]:
        """Share the orders."""
        return parallel_records(self.session, Order.pending(), instances=4, cursor=cursor)

    def each_iteration(self, order: Order) -> None:
        """Pay one."""
        services.process_order(self.session, order)


class PayAndTell(Pay):
    """Reports each execution's pid, every tenth order, and the end; the test lets it pass the tenth."""

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Hold a session, and report the pid."""
        self._tell(f"pid:{self.execution.job_id}", os.getpid())
        with super().around_iterate():
            yield

    def each_iteration(self, order: Order) -> None:
        """Pay one."""
        super().each_iteration(order)
        if order.id % 10 == 0:
            self._tell(f"done:{self.execution.job_id}", order.id).xread({"go": 0}, block=PATIENCE * 1000)

    def on_complete(self) -> None:
        """Report the end."""
        self._tell("complete", self.execution.job_id)

    def _tell(self, where: str, what: int | str) -> Redis:
        job = get_current_job()
        assert job is not None
        job.connection.rpush(where, what)
        return job.connection
