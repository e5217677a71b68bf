"""Mistakes with how an attempt ends."""

from __future__ import annotations

from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from harness import ContinuableJob, Step, every
from tests.planted import shop
from tests.planted.shop import Invoice, Lock, Payment, Total


class SwallowsTheInterrupt(ContinuableJob):
    """Takes every error, an interruption too, for one of the invoice's."""

    durability = every(items=1)

    def perform(self) -> None:
        """Run in every execution."""
        with shop.session() as self.session:
            self.step("pay")

    def pay(self, step: Step) -> None:
        """Pay, or mark as refused."""
        for invoice in shop.pending(self.session):
            try:
                shop.pay_once(self.session, invoice.id)
                step.set(invoice.id)
            except:
                refused = update(Invoice).where(Invoice.id == invoice.id).values(status="refused")
                self.session.execute(refused)  # mistake
                self.session.commit()


class LetsItThrough(SwallowsTheInterrupt):
    """Catches what the payment may raise, and nothing of what comes after it."""

    def pay(self, step: Step) -> None:
        """Pay, or leave it to the next attempt."""
        for invoice in shop.pending(self.session):
            shop.pay_once(self.session, invoice.id)
            step.set(invoice.id)


def finally_done() -> None:
    """Marks the job as done, however it ends."""
    with shop.session() as session:
        if session.get(Total, "done"):
            return
        session.commit()
        try:
            for invoice in shop.pending(session):
                shop.pay_once(session, invoice.id)
        finally:
            session.rollback()
            shop.set_total(session, "done", 1)  # mistake


def done_at_the_end() -> None:
    """Marks it when it is."""
    with shop.session() as session:
        if session.get(Total, "done"):
            return
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)
        shop.set_total(session, "done", 1)


def lock_left_behind() -> None:
    """Refuses to work while another execution does, crashed or not."""
    with shop.session() as session:
        if session.scalar(select(Lock)):
            raise RuntimeError("somebody is at work")
        session.add(Lock(name="pay", owner="somebody"))
        session.commit()  # mistake
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)
        session.delete(session.get_one(Lock, "pay"))
        session.commit()


def lock_taken_over() -> None:
    """Takes the lock over, and relies on each invoice for who pays it."""
    with shop.session() as session:
        session.merge(Lock(name="pay", owner="somebody"))
        session.commit()
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)
        session.execute(delete(Lock))
        session.commit()


def swallows_errors() -> None:
    """Counts an invoice whose answer was lost as refused, although it was paid."""
    with shop.session() as session:
        for number in [invoice.id for invoice in shop.pending(session)]:
            try:
                shop.pay_once(session, number)
            except SQLAlchemyError:
                session.rollback()
                refused = update(Invoice).where(Invoice.id == number).values(status="refused")
                session.execute(refused)  # mistake
                session.commit()


def lets_errors_through() -> None:
    """Leaves it to the next attempt to see what became of it."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)


def retries_by_itself() -> None:
    """Pays again where the answer was lost, without a look at what was paid."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            for _ in range(2):
                try:
                    session.add(Payment(invoice_id=invoice.id, cents=invoice.cents))
                    session.execute(update(Invoice).where(Invoice.id == invoice.id).values(status="paid"))
                    session.commit()  # mistake
                    break
                except SQLAlchemyError:
                    session.rollback()


def retries_what_is_not_paid() -> None:
    """Looks first."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            for _ in range(2):
                try:
                    shop.pay_once(session, invoice.id)
                    break
                except SQLAlchemyError:
                    session.rollback()


def summary_once_more() -> None:
    """Adds a summary when all is paid, and adds it again if it dies right then."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)
        session.add(Payment(invoice_id=0, cents=0))
        session.commit()  # mistake
        shop.set_total(session, "done", 1)


def summary_by_key() -> None:
    """Writes it where there can be only one."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)
        shop.set_total(session, "summary", 1)
        shop.set_total(session, "done", 1)
