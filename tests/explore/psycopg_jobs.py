"""Jobs that use psycopg without SQLAlchemy: in transactions, with autocommit, and by COPY."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.planted import shop

PENDING = "SELECT id, cents FROM invoices WHERE status = 'pending' ORDER BY id"
PAY = "INSERT INTO payments (invoice_id, cents) VALUES (%s, %s)"
MARK = "UPDATE invoices SET status = 'paid' WHERE id = %s AND status = 'pending'"


def connect(**options: Any) -> psycopg.Connection[Any]:
    """Connect to the shop's database."""
    url = shop.engine().url.set(drivername="postgresql")
    return psycopg.connect(url.render_as_string(hide_password=False), **options)


def commits_twice() -> None:
    """Pays and marks in two transactions."""
    with connect() as connection:
        for number, cents in connection.execute(PENDING).fetchall():
            connection.execute(PAY, (number, cents))
            connection.commit()  # mistake
            connection.execute(MARK, (number,))
            connection.commit()


def commits_once() -> None:
    """Marks and pays in one transaction."""
    with connect() as connection:
        for number, cents in connection.execute(PENDING).fetchall():
            if connection.execute(MARK, (number,)).rowcount:
                connection.execute(PAY, (number, cents))
            connection.commit()


def without_transactions() -> None:
    """Pays and marks, each statement for itself."""
    with connect(autocommit=True) as connection, connection.cursor() as cursor:
        for number, cents in cursor.execute(PENDING).fetchall():
            cursor.execute(PAY, (number, cents))  # mistake
            cursor.execute(MARK, (number,))


def with_blocks_of_transactions() -> None:
    """Says where its transactions begin and end."""
    with connect(autocommit=True) as connection:
        for number, cents in connection.execute(PENDING).fetchall():
            with connection.transaction():
                if connection.execute(MARK, (number,)).rowcount:
                    connection.execute(PAY, (number, cents))


def copies_and_then_marks() -> None:
    """Copies all payments at once, and marks in a transaction of its own."""
    with connect() as connection, connection.cursor() as cursor:
        rows = cursor.execute(PENDING).fetchall()
        with cursor.copy("COPY payments (invoice_id, cents) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        connection.commit()  # mistake
        cursor.executemany(MARK, [(number,) for number, _ in rows])
        connection.commit()


def copies_and_marks() -> None:
    """Locks the rows, and does both in one transaction."""
    with connect() as connection, connection.cursor() as cursor:
        rows = cursor.execute(f"{PENDING} FOR UPDATE").fetchall()
        with cursor.copy("COPY payments (invoice_id, cents) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        cursor.executemany(MARK, [(number,) for number, _ in rows])
        connection.commit()


def in_a_pipeline() -> None:
    """Sends statements in pipeline mode, besides a payment that is watched."""
    commits_once()
    with connect() as connection, connection.pipeline():
        connection.execute("SELECT 1")


_kept: dict[str, Any] = {}


def by_an_older_connection() -> None:
    """Uses a connection that the application has opened before."""
    commits_once()
    _kept["connection"].execute("SELECT 1")


def with_an_older_connection() -> psycopg.Connection[Any]:
    """Open that connection."""
    _kept["connection"] = connect(autocommit=True)
    return _kept["connection"]  # type: ignore[no-any-return]
