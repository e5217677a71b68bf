"""The orders as iteration jobs of this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import Session

from benchmarks.peers import work
from harness import Enumerator, IterationJob, items, with_transaction
from harness.stores.sql import SqlStore


class Orders(IterationJob):
    """Orders with a save every second."""

    def build_enumerator(self, orders: int, seconds: float, *, cursor: Any) -> Enumerator[int]:
        """Go on after the cursor."""
        del seconds
        return items(range(orders), cursor=cursor)

    def each_iteration(self, number: int, orders: int, seconds: float) -> None:
        """Do one order."""
        del orders
        work.process(number, seconds)


class OrdersOnce(Orders):
    """Orders whose cursor is in the commit of each order."""

    durability = with_transaction()

    @classmethod
    def progress_store(cls) -> SqlStore:
        """Keep the progress next to the rows."""
        return SqlStore(work.engine())

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Hold a session open for an execution."""
        with Session(work.engine()) as self.session:
            yield

    def each_iteration(self, number: int, orders: int, seconds: float) -> None:
        """Do one order."""
        del orders
        with self.transaction() as session:
            work.pay(session, number, seconds)
