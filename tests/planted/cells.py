"""Mistakes next to noise, and in values that are neither numbers nor texts."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import JSON, Date, Float, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from harness import ContinuableJob, Step, every, with_transaction
from harness.progress import Store
from harness.stores.sql import SqlStore
from tests.planted import shop
from tests.planted.shop import Base, Invoice, Payment


class Metric(Base):
    """Number of any sort, by name."""

    __tablename__ = "metrics"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float] = mapped_column(Float)


class Receipt(Base):
    """Receipt of an invoice, under a random key."""

    __tablename__ = "receipts"

    key: Mapped[str] = mapped_column(primary_key=True)
    invoice_id: Mapped[int]
    due: Mapped[date | None] = mapped_column(Date)
    details: Mapped[Any] = mapped_column(JSON, nullable=True)


def _add(session: Session, name: str, value: float) -> None:
    if not session.execute(
        update(Metric).where(Metric.name == name).values(value=Metric.value + value)
    ).rowcount:  # type: ignore[attr-defined]
        session.add(Metric(name=name, value=value))


def total_next_to_a_time() -> None:
    """Writes when it ran, and adds each amount in a transaction of its own."""
    with shop.session() as session:
        session.merge(Metric(name="last run", value=time.monotonic()))
        session.commit()
        for invoice in shop.pending(session):
            _add(session, "paid", invoice.cents)
            session.commit()  # mistake
            shop.pay_once(session, invoice.id)


def total_next_to_a_time_at_the_end() -> None:
    """Writes the same two rows, from what the database says."""
    with shop.session() as session:
        session.merge(Metric(name="last run", value=time.monotonic()))
        session.commit()
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)
        session.merge(Metric(name="paid", value=sum(session.scalars(select(Payment.cents)))))
        session.commit()


def receipts_under_random_keys() -> None:
    """Writes a receipt under a random key, and marks the invoice a moment later."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            session.add(Receipt(key=str(uuid.uuid4()), invoice_id=invoice.id))
            session.commit()  # mistake
            shop.pay_once(session, invoice.id)


def _receipt(session: Session, invoice: Invoice, **values: Any) -> None:
    """Write a receipt and mark the invoice in one transaction, unless another one did."""
    mine = session.execute(
        update(Invoice).where(Invoice.id == invoice.id, Invoice.status == "pending").values(status="paid")
    )
    if mine.rowcount:  # type: ignore[attr-defined]
        session.add(Receipt(key=str(uuid.uuid4()), invoice_id=invoice.id, **values))
    session.commit()


def receipts_with_the_mark() -> None:
    """Writes both in one transaction."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            _receipt(session, invoice)


def due_dates_from_memory() -> None:
    """Gives each receipt a day of its own, counted in memory."""
    with shop.session() as session:
        for number, invoice in enumerate(shop.pending(session)):
            due = date(2024, 7, 1) + timedelta(days=number)
            _receipt(session, invoice, due=due)  # mistake


def due_dates_of_the_invoices() -> None:
    """Gives each receipt the day that belongs to its invoice."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            _receipt(session, invoice, due=date(2024, 7, 1) + timedelta(days=invoice.id))


def sums_in_json_from_memory() -> None:
    """Writes into each receipt what was paid so far, counted in memory."""
    paid = 0
    with shop.session() as session:
        for invoice in shop.pending(session):
            paid += invoice.cents
            _receipt(session, invoice, details={"so far": paid, "at": time.time()})  # mistake


def sums_in_json_from_the_database() -> None:
    """Writes into each receipt what its invoice says."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            _receipt(session, invoice, details={"so far": invoice.cents, "at": time.time()})


def lines_with_times() -> None:
    """Appends a line that begins with the time, and marks the invoice a moment later."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            with shop.report().open("a") as report:  # mistake
                report.write(f"{datetime.now(UTC).isoformat()} invoice {invoice.id}\n")
            shop.pay_once(session, invoice.id)


def lines_with_times_written_at_once() -> None:
    """Writes all lines when all is paid, to another file that it renames."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)
        unfinished = shop.report().with_suffix(".part")
        now = datetime.now(UTC).isoformat()
        unfinished.write_text("".join(f"{now} invoice {number}\n" for number in shop.all_ids(session)))
        unfinished.replace(shop.report())


class InAnotherSession(ContinuableJob):
    """Promises to commit its work with the cursor, and works in a session of its own."""

    durability = with_transaction()

    @classmethod
    def progress_store(cls) -> Store:
        """Return the shop's database."""
        store = SqlStore(shop.engine())
        store.create()
        return store

    def perform(self) -> None:
        """Run in every execution."""
        with shop.session() as self.session:
            self.step("pay", start=0)

    def pay(self, step: Step) -> None:
        """Pay the invoices after the cursor."""
        for invoice_id in shop.all_ids(self.session):
            if invoice_id > step.cursor:
                self.session.add(Payment(invoice_id=invoice_id, cents=1))
                self.session.commit()  # mistake
                with step.transaction():
                    step.set(invoice_id)


class InItsSession(InAnotherSession):
    """Works in the session that commits the cursor."""

    def pay(self, step: Step) -> None:
        """Pay the invoices after the cursor."""
        for invoice_id in shop.all_ids(self.session):
            if invoice_id > step.cursor:
                self.session.rollback()  # reads end here: SQLite lets one write at a time
                with step.transaction() as session:
                    session.add(Payment(invoice_id=invoice_id, cents=1))
                    step.set(invoice_id)


class WithHelper(ContinuableJob, abstract=True):
    """Leaves cursor and payment to a helper of another module."""

    durability = every(items=1)

    def perform(self) -> None:
        """Run in every execution."""
        with shop.session() as self.session:
            self.step("pay")


class HelperMovesFirst(WithHelper):
    """Uses the helper that moves the cursor before it pays."""

    def pay(self, step: Step) -> None:
        """Pay the invoices after the cursor."""
        from tests.planted import helpers  # noqa: PLC0415 - the helper is no part of this module

        for invoice_id in shop.all_ids(self.session):
            if invoice_id > (step.cursor or 0):
                helpers.set_and_pay(self.session, step, invoice_id)  # mistake


class HelperMovesLast(WithHelper):
    """Uses the helper that pays first."""

    def pay(self, step: Step) -> None:
        """Pay the invoices after the cursor."""
        from tests.planted import helpers  # noqa: PLC0415 - the helper is no part of this module

        for invoice_id in shop.all_ids(self.session):
            if invoice_id > (step.cursor or 0):
                helpers.pay_and_set(self.session, step, invoice_id)
