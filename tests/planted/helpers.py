"""Helpers that a job calls, which pay an invoice and move the cursor."""

from __future__ import annotations

from sqlalchemy.orm import Session

from harness import Step
from tests.planted import shop


def set_and_pay(session: Session, step: Step, invoice_id: int) -> None:
    """Move the cursor, and pay afterwards."""
    session.commit()
    step.set(invoice_id)
    shop.pay_once(session, invoice_id)


def pay_and_set(session: Session, step: Step, invoice_id: int) -> None:
    """Pay, and move the cursor afterwards."""
    shop.pay_once(session, invoice_id)
    step.set(invoice_id)
