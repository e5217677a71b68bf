"""Mistakes with numbers that are added up."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update

from harness import ContinuableJob, Step, attribute, every
from tests.planted import shop
from tests.planted.shop import Invoice, Total


class TotalInMemory(ContinuableJob):
    """Adds up in a variable, and resumes with nought."""

    durability = every(items=1)
    summed: Any = 0

    def perform(self) -> None:
        """Run in every execution."""
        with shop.session() as self.session:
            self.step("add")
            self.step("write")

    def add(self, step: Step) -> None:
        """Add the invoices after the cursor."""
        for invoice in self.session.scalars(select(Invoice).order_by(Invoice.id)).all():
            if invoice.id > (step.cursor or 0):
                self.summed += invoice.cents
                self.session.commit()
                step.set(invoice.id)  # mistake

    def write(self) -> None:
        """Write the total."""
        shop.set_total(self.session, "sum", self.summed)


class TotalInAttribute(TotalInMemory):
    """Adds up in an attribute, which is kept with the cursor."""

    kept = attribute(default=0)

    @property
    def summed(self) -> int:
        """The sum so far."""
        return self.kept

    @summed.setter
    def summed(self, value: int) -> None:
        """Keep it."""
        self.kept = value


class CountedInEveryExecution(ContinuableJob):
    """Counts what it found each time that it begins."""

    durability = every(items=1)

    def perform(self) -> None:
        """Run in every execution."""
        with shop.session() as self.session:
            self.session.execute(update(Total).values(value=Total.value + 1))
            self.session.commit()  # mistake
            self.step("pay")

    def pay(self, step: Step) -> None:
        """Pay all."""
        for invoice in shop.pending(self.session):
            shop.pay_once(self.session, invoice.id)
            step.set(invoice.id)


class CountedOnce(CountedInEveryExecution):
    """Writes down what is there."""

    def perform(self) -> None:
        """Run in every execution."""
        with shop.session() as self.session:
            shop.set_total(self.session, "sum", len(shop.all_ids(self.session)))
            self.step("pay")


def added_apart() -> None:
    """Adds the amount in a transaction of its own."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            session.execute(update(Total).values(value=Total.value + invoice.cents))
            session.commit()  # mistake
            session.execute(update(Invoice).where(Invoice.id == invoice.id).values(status="paid"))
            session.commit()


def added_together() -> None:
    """Adds it in the transaction that marks the invoice, if that was not marked before."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            mine = session.execute(
                update(Invoice)
                .where(Invoice.id == invoice.id, Invoice.status == "pending")
                .values(status="paid")
            )
            if mine.rowcount:  # type: ignore[attr-defined]
                session.execute(update(Total).values(value=Total.value + invoice.cents))
            session.commit()


def read_then_written() -> None:
    """Reads the total when it begins, and writes from memory what it should be by then."""
    with shop.session() as session:
        total = session.get_one(Total, "sum").value
        for invoice in shop.pending(session):
            if shop.pay_once(session, invoice.id):
                total += invoice.cents
        shop.set_total(session, "sum", total)  # mistake


def summed_in_the_database() -> None:
    """Adds up what was paid."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)
        paid = session.scalars(select(Invoice.cents).where(Invoice.status == "paid"))
        shop.set_total(session, "sum", sum(paid))
