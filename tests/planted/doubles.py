"""Mistakes that show only where two executions are at work at once: one transaction a row, and no guard."""

from __future__ import annotations

from redis import WatchError
from sqlalchemy import func, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import Session

from tests.planted import shop
from tests.planted.shop import Invoice, Payment, Total


def paid_after_a_look() -> None:
    """Reads the status of an invoice, and pays and marks it in one transaction, whatever happened in between."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            invoice = session.get_one(Invoice, invoice_id, populate_existing=True)
            if invoice.status == "pending":
                session.add(Payment(invoice_id=invoice_id, cents=invoice.cents))
                invoice.status = "paid"
            session.commit()  # mistake


def paid_where_pending() -> None:
    """Marks it where it is still pending, and pays only then."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            shop.pay_once(session, invoice_id)


def added_to_what_it_read() -> None:
    """Adds to a total in the program, in the transaction that marks the invoice."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            invoice = session.get_one(Invoice, invoice_id, populate_existing=True)
            total = session.get_one(Total, "sum", populate_existing=True)
            if invoice.status == "pending":
                invoice.status = "paid"
                total.value = total.value + invoice.cents
            session.commit()  # mistake


def added_in_the_database() -> None:
    """Has the database add, where it has marked the invoice."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            mine = session.execute(
                update(Invoice)
                .where(Invoice.id == invoice_id, Invoice.status == "pending")
                .values(status="paid")
            )
            if mine.rowcount:  # type: ignore[attr-defined]
                cents = session.scalar(select(Invoice.cents).where(Invoice.id == invoice_id))
                session.execute(update(Total).where(Total.name == "sum").values(value=Total.value + cents))
            session.commit()


def numbered_after_the_last() -> None:
    """Numbers payments by the highest number so far, one transaction a payment."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            paid = session.scalar(select(Payment.id).where(Payment.invoice_id == invoice_id))
            last = session.scalar(select(func.max(Payment.cents))) or 0
            if paid is None:
                session.add(Payment(invoice_id=invoice_id, cents=last + 1))
            session.commit()  # mistake


def numbered_by_the_invoice() -> None:
    """Numbers a payment as its invoice, under a key that there can be once."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            _pay_under_its_key(session, invoice_id)
            session.commit()


def paid_from_a_list() -> None:
    """Reads once what is pending, and pays all of that, each in one transaction."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            session.add(Payment(invoice_id=invoice.id, cents=invoice.cents))
            invoice.status = "paid"
            session.commit()  # mistake


def paid_from_a_list_under_a_key() -> None:
    """Pays all of that under the key of the invoice."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            _pay_under_its_key(session, invoice.id)
            session.execute(update(Invoice).where(Invoice.id == invoice.id).values(status="paid"))
            session.commit()


def counted_up_in_redis() -> None:
    """Reads from Redis which invoices were counted, and writes that and the count in one transaction."""
    with shop.session() as session, shop.redis() as redis:
        for invoice_id in shop.all_ids(session):
            count = int(redis.get("count") or 0)
            if not redis.sismember("counted", invoice_id):
                with redis.pipeline() as pipeline:
                    pipeline.sadd("counted", invoice_id)
                    pipeline.set("count", count + 1)
                    pipeline.execute()  # mistake


def counted_with_watch() -> None:
    """Watches what it has read, and reads it again if another execution has written."""
    with shop.session() as session, shop.redis() as redis:
        for invoice_id in shop.all_ids(session):
            with redis.pipeline() as pipeline:
                while True:
                    pipeline.watch("count", "counted")
                    count = int(pipeline.get("count") or 0)
                    if pipeline.sismember("counted", invoice_id):
                        break
                    pipeline.multi()
                    pipeline.sadd("counted", invoice_id)
                    pipeline.set("count", count + 1)
                    try:
                        pipeline.execute()
                        break
                    except WatchError:
                        continue


def _pay_under_its_key(session: Session, invoice_id: int) -> None:
    """Pay an invoice unless a payment under its key is there."""
    payment = insert(Payment).values(invoice_id=invoice_id, cents=invoice_id, key=f"invoice-{invoice_id}")
    session.execute(payment.on_conflict_do_nothing(index_elements=[Payment.key]))
