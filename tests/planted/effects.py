"""Mistakes with effects: too early, too late, or with nothing to know them by."""

from __future__ import annotations

import os
import smtplib
import uuid
from datetime import UTC, datetime
from email.message import EmailMessage
from functools import cache

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.sqlite import insert

from harness import ContinuableJob, Step, attribute, every
from tests.planted import shop
from tests.planted.shop import Archived, Invoice, Payment

_seen: set[int] = set()


def effect_before_commit() -> None:
    """Pays in one transaction and marks in the next."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            session.add(Payment(invoice_id=invoice.id, cents=invoice.cents))
            session.commit()  # mistake
            session.execute(update(Invoice).where(Invoice.id == invoice.id).values(status="paid"))
            session.commit()


def effect_with_commit() -> None:
    """Does both in one."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)


def commit_before_effect() -> None:
    """Marks first, and pays in the next transaction."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            session.execute(update(Invoice).where(Invoice.id == invoice.id).values(status="paid"))
            session.commit()  # mistake
            session.add(Payment(invoice_id=invoice.id, cents=invoice.cents))
            session.commit()


def commit_before_effect_with_key() -> None:
    """Pays everything that is marked by any execution, under a key that can be paid once."""
    with shop.session() as session:
        session.execute(update(Invoice).values(status="paid"))
        session.commit()
        for invoice in session.scalars(select(Invoice).order_by(Invoice.id)).all():
            _pay(session, invoice, f"invoice-{invoice.id}")
            session.commit()


def random_key() -> None:
    """Pays under a key that is another in each attempt."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            _pay(session, invoice, str(uuid.uuid4()))
            session.commit()  # mistake
            session.execute(update(Invoice).where(Invoice.id == invoice.id).values(status="paid"))
            session.commit()


def key_of_the_invoice() -> None:
    """Pays under a key that is the same in each attempt."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            _pay(session, invoice, f"invoice-{invoice.id}")
            session.commit()
            session.execute(update(Invoice).where(Invoice.id == invoice.id).values(status="paid"))
            session.commit()


def deleted_before_copied() -> None:
    """Deletes an invoice, and copies it to the archive in the next transaction."""
    with shop.session() as session:
        for invoice in session.scalars(select(Invoice).order_by(Invoice.id)).all():
            session.execute(delete(Invoice).where(Invoice.id == invoice.id))
            session.commit()  # mistake
            session.add(Archived(invoice_id=invoice.id, cents=invoice.cents))
            session.commit()


def copied_and_deleted() -> None:
    """Does both in one, and copies what it deleted."""
    with shop.session() as session:
        for invoice in session.scalars(select(Invoice).order_by(Invoice.id)).all():
            if session.execute(delete(Invoice).where(Invoice.id == invoice.id)).rowcount:  # type: ignore[attr-defined]
                session.add(Archived(invoice_id=invoice.id, cents=invoice.cents))
            session.commit()


def remembered_in_the_module() -> None:
    """Knows what was paid by a set in the module, which a new process does not have."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            if invoice_id not in _seen:
                _seen.add(invoice_id)
                session.add(Payment(invoice_id=invoice_id, cents=1))
                session.commit()  # mistake


@cache
def _pay_for_the_first_time(invoice_id: int) -> None:
    with shop.session() as session:
        session.add(Payment(invoice_id=invoice_id, cents=1))
        session.commit()


def remembered_in_a_cache() -> None:
    """Knows what was paid by a cache, which is empty in a new process."""
    with shop.session() as session:
        found = shop.all_ids(session)
    for invoice_id in found:
        _pay_for_the_first_time(invoice_id)  # mistake


def remembered_in_the_environment() -> None:
    """Knows what was paid by the environment, which a new process has from its parent."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            if f"PAID_{invoice_id}" not in os.environ:
                os.environ[f"PAID_{invoice_id}"] = "1"
                session.add(Payment(invoice_id=invoice_id, cents=1))
                session.commit()  # mistake


def remembered_in_the_database() -> None:
    """Knows it by the invoice."""
    effect_with_commit()


def looked_before_it_paid() -> None:
    """Looks whether an invoice is pending, and pays it a moment later."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            status = session.scalar(select(Invoice.status).where(Invoice.id == invoice_id))
            if status == "pending":
                paid = update(Invoice).where(Invoice.id == invoice_id).values(status="paid")
                session.execute(paid)  # mistake
                session.add(Payment(invoice_id=invoice_id, cents=1))
            session.commit()


def paid_if_it_was_pending() -> None:
    """Looks and marks in one statement."""
    effect_with_commit()


class TouchedBeforeNow(ContinuableJob):
    """Takes what was not touched since it began, and starts over when it resumes."""

    durability = every(items=1)

    def perform(self) -> None:
        """Run in every execution."""
        with shop.session() as self.session:
            self.step("touch")

    def started(self) -> datetime:
        """Return when the job began."""
        return datetime.now(UTC).replace(tzinfo=None)

    def touch(self, step: Step) -> None:
        """Add a payment to each, and touch it."""
        started = self.started()
        query = select(Invoice).where(Invoice.touched_at < started).order_by(Invoice.id)
        for invoice in self.session.scalars(query).all():
            now = datetime.now(UTC).replace(tzinfo=None)
            mine = self.session.execute(
                update(Invoice)
                .where(Invoice.id == invoice.id, Invoice.touched_at < started)
                .values(touched_at=now)
            )
            if mine.rowcount:  # type: ignore[attr-defined]
                self.session.add(Payment(invoice_id=invoice.id, cents=invoice.cents))
            self.session.commit()
            step.set(invoice.id)  # mistake


class TouchedBeforeTheFirstExecution(TouchedBeforeNow):
    """Keeps the time of its first execution."""

    since: attribute[str | None] = attribute(default=None)

    def perform(self) -> None:
        """Run in every execution."""
        with shop.session() as self.session:
            self.step("begin")
            self.step("touch")

    def begin(self, step: Step) -> None:
        """Keep the time."""
        self.since = self.since or datetime.now(UTC).replace(tzinfo=None).isoformat()
        step.set(1)

    def started(self) -> datetime:
        """Return when the job began."""
        assert self.since
        return datetime.fromisoformat(self.since)


def counted_in_redis() -> None:
    """Counts in Redis what it marks in the database a moment later."""
    with shop.session() as session, shop.redis() as redis:
        for invoice in shop.pending(session):
            redis.incr("paid")  # mistake
            shop.pay_once(session, invoice.id)


def written_to_redis() -> None:
    """Writes there what the database says."""
    with shop.session() as session, shop.redis() as redis:
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)
        redis.set("paid", len(shop.all_ids(session)))


def appended_to_a_file() -> None:
    """Writes a line for each invoice, and marks it a moment later."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            with shop.report().open("a") as report:  # mistake
                report.write(f"invoice {invoice.id}\n")
            shop.pay_once(session, invoice.id)


def written_and_renamed() -> None:
    """Writes the file under another name when all is paid, and renames it when it is complete."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)
        unfinished = shop.report().with_suffix(".part")
        unfinished.write_text("".join(f"invoice {number}\n" for number in shop.all_ids(session)))
        unfinished.replace(shop.report())


def mailed_under_a_new_id() -> None:
    """Sends each invoice under a Message-ID that is another in each attempt."""
    _mail_all(lambda _: f"<{uuid.uuid4()}@shop.example>")  # mistake


def mailed_under_its_id() -> None:
    """Sends each invoice under a Message-ID that is the same in each attempt."""
    _mail_all(lambda invoice_id: f"<invoice-{invoice_id}@shop.example>")


def _mail_all(message_id: object) -> None:
    with shop.session() as session, smtplib.SMTP("mail.shop.example") as smtp:
        for invoice in shop.pending(session):
            message = EmailMessage()
            message["From"], message["To"] = "shop@shop.example", f"customer-{invoice.customer}@shop.example"
            message["Subject"], message["Message-ID"] = f"Invoice {invoice.id}", message_id(invoice.id)  # type: ignore[operator]
            smtp.send_message(message)  # mistake
            session.execute(update(Invoice).where(Invoice.id == invoice.id).values(status="mailed"))
            session.commit()


def _pay(session: object, invoice: Invoice, key: str) -> None:
    values = {"invoice_id": invoice.id, "cents": invoice.cents, "key": key}
    session.execute(insert(Payment).values(**values).on_conflict_do_nothing())  # type: ignore[attr-defined]
