"""Mistakes with several rows or statements in one call, each of which is a commit of its own."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from sqlalchemy import Connection, func, insert, select

from tests.planted import shop
from tests.planted.shop import Invoice, Payment

PENDING = "SELECT id, cents FROM invoices WHERE status = 'pending' ORDER BY id"
MARK = "UPDATE invoices SET status = 'paid' WHERE id = {}"
PAY_UNDER_A_KEY = "INSERT OR IGNORE INTO payments (invoice_id, cents, key) VALUES ({0}, {1}, 'no; {0}')"


def _database() -> sqlite3.Connection:
    return sqlite3.connect(str(shop.engine().url.database), isolation_level=None)


def script_marks_first() -> None:
    """Marks and pays in one script."""
    with closing(_database()) as connection:
        for number, cents in connection.execute(PENDING).fetchall():
            script = f"{MARK.format(number)}; {PAY_UNDER_A_KEY.format(number, cents)}"
            connection.executescript(script)  # mistake


def script_in_a_transaction() -> None:
    """Does it in a transaction of the script."""
    with closing(_database()) as connection:
        for number, cents in connection.execute(PENDING).fetchall():
            connection.executescript(
                f"BEGIN; {MARK.format(number)}; {PAY_UNDER_A_KEY.format(number, cents)}; COMMIT"
            )


def rows_unless_there_are_some() -> None:
    """Pays all in one call, unless something is paid."""
    with closing(_database()) as connection:
        rows = connection.execute(PENDING).fetchall()
        if not connection.execute("SELECT count(*) FROM payments").fetchone()[0]:
            connection.executemany("INSERT INTO payments (invoice_id, cents) VALUES (?, ?)", rows)  # mistake


def rows_under_keys() -> None:
    """Pays all in one call, each under a key."""
    with closing(_database()) as connection:
        rows = [(number, cents, f"key {number}") for number, cents in connection.execute(PENDING)]
        connection.executemany(
            "INSERT OR IGNORE INTO payments (invoice_id, cents, key) VALUES (?, ?, ?)", rows
        )


def sqlalchemy_rows_unless_there_are_some() -> None:
    """Pays all in one call of SQLAlchemy that commits each row, unless something is paid."""
    with _each_alone() as connection:
        rows = connection.execute(select(Invoice.id, Invoice.cents).order_by(Invoice.id)).all()
        payments = [{"invoice_id": number, "cents": cents} for number, cents in rows]
        if not connection.scalar(select(func.count()).select_from(Payment)):
            connection.execute(insert(Payment), payments)  # mistake


def sqlalchemy_rows_under_keys() -> None:
    """Pays all in one call, each under a key."""
    with _each_alone() as connection:
        rows = connection.execute(select(Invoice.id, Invoice.cents).order_by(Invoice.id)).all()
        payments = [{"invoice_id": number, "cents": cents, "key": f"key {number}"} for number, cents in rows]
        connection.execute(insert(Payment).prefix_with("OR IGNORE"), payments)


def _each_alone() -> Connection:
    return shop.engine().connect().execution_options(isolation_level="AUTOCOMMIT")
