"""Adds a table of slips, in which each invoice has one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "wrong"
down_revision = None


def upgrade() -> None:
    """Make the table, fill it, and mark the invoices."""
    op.create_table("slips", sa.Column("invoice_id", sa.Integer, primary_key=True))  # mistake
    op.execute("INSERT INTO slips SELECT id FROM invoices")
