"""Report on every customer, order by order: nested, customers and within each their orders.

The totals are added up in the database, one order at a time, so that no total is kept only in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from harness import ContinuableJob, Enumerator, IterationJob, Step, nested, records
from harness.scenario import Effects, Scenario
from scenarios import services
from scenarios.database import clear, count, create, fill, ids
from scenarios.models import Customer, CustomerReport, Order

if TYPE_CHECKING:
    from harness.lab.mailbox import Mailbox


def plain(customer_ids: list[int]) -> None:
    """Plain loop over the customers that existed when the job was enqueued."""
    with services.session() as session:
        for customer_id in customer_ids:
            for order in session.scalars(Order.completed_of(customer_id)).all():
                services.add_to_report(session, order)
                session.commit()


def orders_by_customer(session: Session, cursor: Any) -> Enumerator[Order]:
    """Go through the customers, and within each through their completed orders."""
    return nested(
        [
            lambda cursor: records(session, Customer.with_completed_orders(), cursor=cursor),
            lambda customer, cursor: records(session, Order.completed_of(customer.id), cursor=cursor),
        ],
        cursor=cursor,
    )


class ReportsInSteps(ContinuableJob):
    """Job with one step; its cursor is a pair of the last finished customer and the last counted order."""

    def perform(self) -> None:
        """Run in every execution."""
        with services.session() as self.session:
            self.step("count")

    def count(self, step: Step) -> None:
        """Count the orders after the cursor."""
        if step.total is None:
            step.total = count(self.session, Order.completed())
        for order, cursor in orders_by_customer(self.session, step.cursor):
            with step.transaction() as session:
                services.add_to_report(session, order)
                step.set(cursor)


class ReportsByIteration(IterationJob):
    """Job with one iteration per order."""

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Hold a session open for an execution."""
        with services.session() as self.session:
            yield

    def build_enumerator(self, *, cursor: Any) -> Enumerator[Order]:
        """Go through the orders after the cursor."""
        return orders_by_customer(self.session, cursor)

    def each_iteration(self, order: Order) -> None:
        """Count one order."""
        with self.transaction() as session:
            services.add_to_report(session, order)


def judge(_mailbox: Mailbox) -> Effects:
    """Compare the report, customer by customer, with one SQL aggregate over the same orders."""
    with services.session() as session:
        report, expected = services.report_totals(session), services.expected_totals(session)
    nothing = (0, 0)
    counted = {
        customer: report.get(customer, nothing)[0] - orders for customer, (orders, _) in expected.items()
    }
    return Effects(
        lost=sum(-difference for difference in counted.values() if difference < 0),
        duplicated=sum(difference for difference in counted.values() if difference > 0),
        checks={"totals equal the SQL aggregate": report == expected},
    )


scenario = Scenario(
    name="reports",
    forms={"plain": plain, "steps": ReportsInSteps, "iteration": ReportsByIteration},
    seed=fill,
    clear=clear,
    arguments=lambda: ids(Customer.with_completed_orders()),
    count=lambda: len(ids(Order.completed())),
    judge=judge,
    close=services.dispose,
    create=create,
    statuses=CustomerReport.statuses,
)
