"""Jobs that come to external state only in their recovery, or that last, for tests of several processes."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from tests.planted import shop
from tests.planted.shop import Payment


def notes_what_it_finds() -> None:
    """Pays each invoice once, and notes in a file that seven of eight were paid: a recovery from one state does."""
    with shop.session() as session:
        if len(session.scalars(select(Payment)).all()) == shop.INVOICES - 1:
            Path("note.txt").write_text("it was interrupted\n")
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)


def pays_in_two_parts() -> None:
    """Pays each invoice in two commits: longer, and wrong."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            session.add(Payment(invoice_id=invoice.id, cents=invoice.cents))
            session.commit()
            shop.pay_once(session, invoice.id)
