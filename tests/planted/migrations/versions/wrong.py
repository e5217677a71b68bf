"""Adds a table of receipts, in which each invoice has one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "wrong"
down_revision = None


def upgrade() -> None:
    """Make the table, fill it, and mark the invoices."""
    op.create_table("receipts", sa.Column("invoice_id", sa.Integer, primary_key=True))  # mistake
    op.execute("INSERT INTO receipts SELECT id FROM invoices")
