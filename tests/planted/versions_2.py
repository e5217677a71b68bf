"""New versions of :mod:`tests.planted.versions`: some resume work of the old ones, some cannot, some must not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from harness import Step, cursor_type, records
from tests.planted import shop, versions
from tests.planted.shop import Invoice
from tests.planted.versions import pay


class Pay(versions.Pay):
    """Pays a second cent, and reports the total in a new step: a deploy that is right."""

    def perform(self) -> None:
        """Run in every execution."""
        with shop.session() as self.session:
            self.step("pay_all", start=0)
            self.step("tell")

    def pay_all(self, step: Step) -> None:
        """Pay the invoices after the cursor."""
        for invoice_id in self.after(step.cursor):
            with step.transaction() as session:
                pay(session, invoice_id, cents=2)
                step.set(invoice_id)

    def tell(self) -> None:
        """Write down that all is paid."""
        shop.set_total(self.session, "told", 1)


class Renamed(versions.Pay):
    """Gives the step another name."""

    def perform(self) -> None:
        """Run in every execution."""
        with shop.session() as self.session:
            self.step("pay_everybody", start=0)  # mistake

    def pay_everybody(self, step: Step) -> None:
        """Pay the invoices after the cursor."""
        self.pay_all(step)


class RenamedTooLate(Renamed):
    """Pays an invoice before any step, in each execution."""

    def perform(self) -> None:
        """Run in every execution."""
        with shop.session() as self.session:
            pay(self.session, 1)  # mistake
            self.session.commit()
        super().perform()


class Includes(versions.Pay):
    """Begins with the invoice at the cursor: the cursor is the next to pay."""

    def after(self, cursor: int) -> list[int]:
        """Return the ids of the invoices that are left."""
        return super().after(cursor - 1)  # mistake

    def pay_all(self, step: Step) -> None:
        """Pay the invoices from the cursor on."""
        for invoice_id in self.after(step.cursor):
            with step.transaction() as session:
                pay(session, invoice_id)
                step.set(invoice_id + 1)


class Counts(versions.Pay):
    """Takes the cursor for an index that begins at 0."""

    def pay_all(self, step: Step) -> None:
        """Pay the invoices after an index."""
        ids = self.after(0)
        for index in range(step.cursor + 1 if step.resumed else 0, len(ids)):  # mistake
            with step.transaction() as session:
                pay(session, ids[index])
                step.set(index)


@cursor_type
@dataclass(frozen=True)
class Place:
    """The last invoice that was paid, under another name."""

    invoice_id: int


class PayFromPlace(versions.PayFromPlace):
    """Has a cursor of the same name with another field."""

    def build_enumerator(self, *, cursor: Any) -> Any:
        """Go through the invoices."""
        old = None if cursor is None else versions.Place(cursor.invoice_id)
        found = super().build_enumerator(cursor=old)
        return [(invoice_id, Place(invoice_id)) for invoice_id, _ in found]


class Restricted(versions.PayFromRecords):
    """Reads by a join that it did not need before: the same cursor, and the same rows."""

    def build_enumerator(self, *, cursor: Any) -> Any:
        """Read them in pages of another size."""
        return records(self.session, select(Invoice.id).where(Invoice.id > 0), cursor=cursor, batch_size=3)


class Doubled(versions.Pay):
    """Pays each invoice in two parts."""

    def pay_all(self, step: Step) -> None:
        """Pay the invoices after the cursor."""
        for invoice_id in self.after(step.cursor):
            with step.transaction() as session:
                pay(session, invoice_id, cents=2)
                pay(session, invoice_id, cents=3)
                step.set(invoice_id)


class Unfinished(versions.Pay):
    """Fails by itself."""

    def perform(self) -> None:
        """Fail."""
        raise LookupError("no such shop")


def charge() -> None:
    """Pay everybody, paid or not."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            pay(session, invoice_id, 100 * invoice_id)  # mistake
            shop.set_total(session, "sum", 0)


def charge_again() -> None:
    """Pay what is pending, in another order."""
    with shop.session() as session:
        for invoice in reversed(shop.pending(session)):
            shop.pay_once(session, invoice.id)


class Backwards(versions.PayFromRecords):
    """Reads from the end: a key that was the last one done is now the first one left."""

    def build_enumerator(self, *, cursor: Any) -> Any:
        """Read them in pages."""
        return records(self.session, select(Invoice.id), cursor=cursor, columns=Invoice.id.desc())  # mistake


class ByIteration(versions.PayFromRecords):
    """Is a job of items, where there was a job of steps with a cursor that looks alike."""
