"""Jobs as they were before a deploy; :mod:`tests.planted.versions_2` is what is deployed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from harness import ContinuableJob, IterationJob, Step, cursor_type, records, with_transaction
from harness.stores.sql import SqlStore
from tests.planted import shop
from tests.planted.shop import Invoice, Payment


def store() -> SqlStore:
    """Return a store in the shop's database."""
    return SqlStore(shop.engine())


def pay(session: Any, invoice_id: int, cents: int = 1) -> None:
    """Pay an invoice, whether it was paid or not; the caller commits."""
    session.add(Payment(invoice_id=invoice_id, cents=cents))


class Pay(ContinuableJob):
    """Pays every invoice; the cursor is the id of the last one paid."""

    durability = with_transaction()
    progress_store = staticmethod(store)

    def perform(self) -> None:
        """Run in every execution."""
        with shop.session() as self.session:
            self.step("pay_all", start=0)

    def pay_all(self, step: Step) -> None:
        """Pay the invoices after the cursor."""
        for invoice_id in self.after(step.cursor):
            with step.transaction() as session:
                pay(session, invoice_id)
                step.set(invoice_id)

    def after(self, cursor: int) -> list[int]:
        """Return the ids of the invoices that are left."""
        with self.session.begin():
            return [invoice_id for invoice_id in shop.all_ids(self.session) if invoice_id > cursor]


@cursor_type
@dataclass(frozen=True)
class Place:
    """The last invoice that was paid."""

    invoice: int


class PayFromPlace(IterationJob):
    """Pays every invoice; the cursor is a dataclass."""

    durability = with_transaction()
    progress_store = staticmethod(store)

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Hold a session."""
        with shop.session() as self.session:
            yield

    def build_enumerator(self, *, cursor: Any) -> Any:
        """Go through the invoices."""
        after = cursor.invoice if cursor else 0
        with self.session.begin():
            found = self.session.scalars(
                select(Invoice.id).where(Invoice.id > after).order_by(Invoice.id)
            ).all()
        return [(invoice_id, Place(invoice_id)) for invoice_id in found]

    def each_iteration(self, item: int) -> None:
        """Pay one."""
        with self.transaction() as session:
            pay(session, item)


class PayFromRecords(PayFromPlace):
    """Pays every invoice that is pending, in the order of the ids."""

    def build_enumerator(self, *, cursor: Any) -> Any:
        """Read them in pages."""
        return records(self.session, select(Invoice.id), cursor=cursor)


def charge() -> None:
    """Pay what is pending, each in a transaction that marks it."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)
