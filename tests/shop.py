"""A job that shares 10,000 orders among four instances, importable by real workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rq.job import get_current_job

from harness import Enumerator, IterationJob, parallel_records, with_transaction
from harness.stores.sql import SqlStore
from scenarios import services
from scenarios.models import Order


class PayInParallel(IterationJob):
    """Pays the pending orders, each in one commit with the cursor; every hundredth order is told of."""

    durability = with_transaction()

    @classmethod
    def progress_store(cls) -> SqlStore:
        """Keep progress where the orders are."""
        return SqlStore(services.engine())

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Hold a session, and tell the pid of each execution."""
        self._tell(f"pid:{self.execution.job_id}", os.getpid())
        with services.session() as self.session:
            yield

    def build_enumerator(self, *, cursor: Any) -> Enumerator[Order]:
        """Share the orders."""
        return parallel_records(self.session, Order.pending(), instances=4, cursor=cursor)

    def each_iteration(self, order: Order) -> None:
        """Pay one."""
        services.process_order(self.session, order)
        if order.id % 100 == 0:
            self._tell(f"done:{self.execution.job_id}", order.id)

    def on_complete(self) -> None:
        """Tell."""
        self._tell("complete", self.execution.job_id)

    def _tell(self, where: str, what: int | str) -> None:
        job = get_current_job()
        assert job is not None
        job.connection.rpush(where, what)
