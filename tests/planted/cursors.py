"""Mistakes with cursors."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from harness import ContinuableJob, Enumerator, IterationJob, Step, every, items
from tests.planted import shop
from tests.planted.shop import Invoice


class InSteps(ContinuableJob, abstract=True):
    """Opens a session for an execution and runs one step."""

    durability = every(items=1)

    def perform(self) -> None:
        """Run in every execution."""
        with shop.session() as self.session:
            self.step("pay")


class CursorBeforeEffect(InSteps):
    """Moves the cursor before the invoice is paid."""

    def pay(self, step: Step) -> None:
        """Pay the invoices after the cursor."""
        for invoice_id in shop.all_ids(self.session):
            if invoice_id > (step.cursor or 0):
                self.session.commit()
                step.set(invoice_id)  # mistake
                shop.pay_once(self.session, invoice_id)


class CursorAfterEffect(InSteps):
    """Moves it after."""

    def pay(self, step: Step) -> None:
        """Pay the invoices after the cursor."""
        for invoice_id in shop.all_ids(self.session):
            if invoice_id > (step.cursor or 0):
                shop.pay_once(self.session, invoice_id)
                step.set(invoice_id)


class OffByOne(InSteps):
    """Stores the number of the next invoice, and begins after it."""

    def pay(self, step: Step) -> None:
        """Pay the invoices from the cursor on."""
        ids = shop.all_ids(self.session)
        start = 0 if step.cursor is None else step.cursor + 1
        for index in range(start, len(ids)):
            shop.pay_once(self.session, ids[index])
            step.set(index + 1)  # mistake


class OnTheDot(InSteps):
    """Stores the number of the next invoice, and begins with it."""

    def pay(self, step: Step) -> None:
        """Pay the invoices from the cursor on."""
        ids = shop.all_ids(self.session)
        for index in range(step.cursor or 0, len(ids)):
            shop.pay_once(self.session, ids[index])
            step.set(index + 1)


class OffsetOverShrinkingFilter(InSteps):
    """Skips as many pending invoices as were paid, although these are pending no more."""

    def pay(self, step: Step) -> None:
        """Pay the pending invoices after an offset."""
        done = step.cursor or 0
        for invoice in shop.pending(self.session)[done:]:
            shop.pay_once(self.session, invoice.id)
            done += 1
            step.set(done)  # mistake


class FilterThatShrinks(InSteps):
    """Takes what is pending."""

    def pay(self, step: Step) -> None:
        """Pay the pending invoices."""
        for invoice in shop.pending(self.session):
            shop.pay_once(self.session, invoice.id)
            step.set(invoice.id)


class SortedByCustomer(InSteps):
    """Resumes after the customer, who has two invoices."""

    def pay(self, step: Step) -> None:
        """Pay by customer."""
        query = (
            select(Invoice)
            .where(Invoice.customer > (step.cursor or 0))
            .order_by(Invoice.customer, Invoice.id)
        )
        for invoice in self.session.scalars(query).all():
            shop.pay_once(self.session, invoice.id)
            step.set(invoice.customer)  # mistake


class SortedByCustomerAndId(InSteps):
    """Resumes after the invoice."""

    def pay(self, step: Step) -> None:
        """Pay by customer."""
        query = select(Invoice).order_by(Invoice.customer, Invoice.id)
        for invoice in self.session.scalars(query).all():
            position = [invoice.customer, invoice.id]
            if position > (step.cursor or [0, 0]):
                shop.pay_once(self.session, invoice.id)
                step.set(position)


class InnerCursorNotReset(InSteps):
    """Goes through the customers backwards, and carries the invoice's place over to the next customer."""

    reset = False

    def pay(self, step: Step) -> None:
        """Pay customer by customer, each from a place in the list of the customer's invoices on."""
        done, place = step.cursor or [0, 0]
        for customer in range(done + 1, shop.INVOICES // 2 + 1):
            query = select(Invoice.id).where(Invoice.customer == customer).order_by(Invoice.id)
            ids = self.session.scalars(query).all()
            for index in range(place, len(ids)):
                shop.pay_once(self.session, ids[index])
                step.set([customer - 1, index + 1])
            place = 0
            self.session.commit()
            step.set([customer, 0 if self.reset else len(ids)])  # mistake


class InnerCursorReset(InnerCursorNotReset):
    """Begins at the first invoice of the next customer."""

    reset = True


class NaiveTime(IterationJob):
    """Stores the time of an invoice as the customer reads it, and takes it for UTC when it resumes."""

    durability = every(items=1)
    zone: Any = shop.SUMMER

    def build_enumerator(self, *, cursor: Any) -> Any:
        """Go through the invoices by time."""
        since = datetime.min if cursor is None else datetime.fromisoformat(cursor)  # noqa: DTZ901 - the mistake's kin
        with shop.session() as session:
            query = select(Invoice).where(Invoice.issued_at > since).order_by(Invoice.issued_at)
            return [(invoice.id, self.position(invoice)) for invoice in session.scalars(query)]

    def position(self, invoice: Invoice) -> str:
        """Return the cursor."""
        local = invoice.issued_at.replace(tzinfo=UTC).astimezone(self.zone)
        return local.replace(tzinfo=None).isoformat()

    def each_iteration(self, item: int) -> None:
        """Pay one invoice."""
        with shop.session() as session:
            shop.pay_once(session, item)  # mistake


class TimeInUtc(NaiveTime):
    """Stores it in UTC."""

    zone = UTC


class StepNamedByData(ContinuableJob):
    """Names its step after what is left to do, which is less when it resumes."""

    durability = every(items=1)

    def name(self) -> str:
        """Return the step's name."""
        return f"pay {len(shop.pending(self.session))} invoices"

    def perform(self) -> None:
        """Run in every execution."""
        with shop.session() as self.session:
            name = self.name()
            self.session.commit()

            @self.step(name)  # mistake
            def pay(step: Step) -> None:
                for invoice in shop.pending(self.session):
                    shop.pay_once(self.session, invoice.id)
                    step.set(invoice.id)


class StepWithOneName(StepNamedByData):
    """Gives it one name."""

    def name(self) -> str:
        """Return the step's name."""
        return "pay"


class BatchHalfDone(IterationJob):
    """Pays the invoices of a batch one by one, without looking which of them a dead worker has paid."""

    durability = every(items=1)

    def build_enumerator(self, *, cursor: Any) -> Enumerator[list[int]]:
        """Go through batches of four."""
        batches = [[1, 2, 3, 4], [5, 6, 7, 8]]
        return items(batches, cursor=cursor)

    def each_iteration(self, item: list[int]) -> None:
        """Pay a batch."""
        with shop.session() as session:
            for invoice_id in item:
                session.add(shop.Payment(invoice_id=invoice_id, cents=1))
                session.commit()  # mistake


class BatchAtOnce(BatchHalfDone):
    """Marks and pays each once."""

    def each_iteration(self, item: list[int]) -> None:
        """Pay a batch."""
        with shop.session() as session:
            for invoice_id in item:
                shop.pay_once(session, invoice_id)
