"""Process every pending order: simple and linear, in the three forms side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness import ContinuableJob, Enumerator, IterationJob, Step, records
from harness.scenario import Effects, Scenario
from scenarios import services
from scenarios.database import clear, count, create, fill, ids
from scenarios.models import Order

if TYPE_CHECKING:
    from harness.lab.mailbox import Mailbox


def plain(order_ids: list[int]) -> None:
    """Plain loop over the ids of the orders that were pending when the job was enqueued."""
    with services.session() as session:
        for order_id in order_ids:
            services.process_order(session, session.get_one(Order, order_id))
            session.commit()


class OrdersInSteps(ContinuableJob):
    """Job with one step; its cursor is the id of the last processed order."""

    def perform(self) -> None:
        """Run in every execution."""
        with services.session() as self.session:
            self.step("process")

    def process(self, step: Step) -> None:
        """Process the orders after the cursor."""
        if step.total is None:
            step.total = count(self.session, Order.pending())
        for order, cursor in records(self.session, Order.pending(), cursor=step.cursor):
            with step.transaction() as session:
                services.process_order(session, order)
                step.set(cursor)


class OrdersByIteration(IterationJob):
    """Job with one iteration per order."""

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Hold a session open for an execution."""
        with services.session() as self.session:
            yield

    def build_enumerator(self, *, cursor: Any) -> Enumerator[Order]:
        """Read the pending orders after the cursor."""
        return records(self.session, Order.pending(), cursor=cursor)

    def each_iteration(self, order: Order) -> None:
        """Process one order."""
        with self.transaction() as session:
            services.process_order(session, order)


def judge(_mailbox: Mailbox) -> Effects:
    """Count the orders that are still pending, and those with more than one payment."""
    with services.session() as session:
        return Effects(
            lost=count(session, Order.pending()), duplicated=count(session, Order.paid_more_than_once())
        )


scenario = Scenario(
    name="orders",
    forms={"plain": plain, "steps": OrdersInSteps, "iteration": OrdersByIteration},
    seed=fill,
    clear=clear,
    arguments=lambda: ids(Order.pending()),
    count=lambda: len(ids(Order.pending())),
    judge=judge,
    close=services.dispose,
    create=create,
    statuses=Order.statuses,
)
