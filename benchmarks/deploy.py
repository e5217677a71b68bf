"""The orders job without the filter for pending orders, so that repeated work is visible."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from harness import Enumerator, Step, records
from scenarios import services
from scenarios.models import Order
from scenarios.orders import OrdersByIteration, OrdersInSteps


class AllInSteps(OrdersInSteps):
    """One step over all orders, whatever their status."""

    def process(self, step: Step) -> None:
        """Process the orders after the cursor."""
        for order, cursor in records(self.session, select(Order), cursor=step.cursor):
            with step.transaction() as session:
                services.process_order(session, order)
                step.set(cursor)


class AllByIteration(OrdersByIteration):
    """One iteration an order, whatever its status."""

    def build_enumerator(self, *, cursor: Any) -> Enumerator[Order]:
        """Read the orders after the cursor."""
        return records(self.session, select(Order), cursor=cursor)
