"""Adds a table of slips, in which each invoice has one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "right"
down_revision = None


def upgrade() -> None:
    """Make the table, and fill in what is missing."""
    op.create_table("slips", sa.Column("invoice_id", sa.Integer, primary_key=True), if_not_exists=True)
    op.execute("INSERT INTO slips SELECT id FROM invoices WHERE true ON CONFLICT DO NOTHING")
