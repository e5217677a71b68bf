"""Mistakes with files, processes' own connections, threads, and the end of the job."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import fakeredis
from sqlalchemy import update

from tests.planted import shop
from tests.planted.shop import Invoice, Payment

_local = threading.local()


def _begin() -> None:
    _local.ready = True


_POOL = ThreadPoolExecutor(1, initializer=_begin)
"""A pool of threads that the application opens once."""


def appended_at_the_end() -> None:
    """Marks all invoices, and then writes a line as its last act."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            shop.pay_once(session, invoice_id)
    with shop.report().open("a") as report:  # mistake
        report.write("all is paid\n")


def written_at_the_end() -> None:
    """Writes the whole file as its last act."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            shop.pay_once(session, invoice_id)
    shop.report().write_text("all is paid\n")


def written_unless_there() -> None:
    """Writes a file if there is none: an empty one counts as written."""
    if not shop.report().exists():
        shop.report().write_text("all is paid\n")  # mistake
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            shop.pay_once(session, invoice_id)


def renamed_unless_there() -> None:
    """Gives a file its name when it is complete."""
    part = shop.report().with_suffix(".part")
    if not shop.report().exists():
        part.write_text("all is paid\n")
        part.replace(shop.report())
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            shop.pay_once(session, invoice_id)


def moved_at_the_end() -> None:
    """Moves a file as its last act, and fails where that is done."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            shop.pay_once(session, invoice_id)
    part = shop.report().with_suffix(".part")
    if not shop.report().exists():
        part.write_text("all is paid\n")
    shutil.move(part, shop.report())  # mistake


def moved_if_it_is_there() -> None:
    """Moves a file as its last act, if it is still to be moved."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            shop.pay_once(session, invoice_id)
    part = shop.report().with_suffix(".part")
    part.write_text("all is paid\n")
    shutil.move(part, shop.report())


def counted_at_the_end() -> None:
    """Adds one to a counter in Redis as its last act."""
    with shop.session() as session, shop.redis() as redis:
        for invoice_id in shop.all_ids(session):
            shop.pay_once(session, invoice_id)
        redis.incr("runs")  # mistake


def set_at_the_end() -> None:
    """Sets the counter."""
    with shop.session() as session, shop.redis() as redis:
        for invoice_id in shop.all_ids(session):
            shop.pay_once(session, invoice_id)
        redis.set("runs", 1)


def _database() -> sqlite3.Connection:
    return sqlite3.connect(str(shop.engine().url.database))


def _pending(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    return connection.execute(PENDING).fetchall()


PENDING = "SELECT id, cents FROM invoices WHERE status = 'pending' ORDER BY id"
PAY = "INSERT INTO payments (invoice_id, cents) VALUES (?, ?)"
MARK = "UPDATE invoices SET status = 'paid' WHERE id = ? AND status = 'pending'"


def driver_commits_twice() -> None:
    """Pays and marks in two transactions, through the driver."""
    with closing(_database()) as connection:
        for number, cents in _pending(connection):
            connection.execute(PAY, (number, cents))
            connection.commit()  # mistake
            connection.execute(MARK, (number,))
            connection.commit()


def driver_commits_once() -> None:
    """Marks and pays in one transaction."""
    with closing(_database()) as connection:
        for number, cents in _pending(connection):
            with connection:
                if connection.execute(MARK, (number,)).rowcount:
                    connection.execute(PAY, (number, cents))


def driver_without_transactions() -> None:
    """Pays and marks, each statement for itself."""
    with closing(_database()) as connection:
        connection.isolation_level = None
        for number, cents in _pending(connection):
            connection.execute(PAY, (number, cents))  # mistake
            connection.execute(MARK, (number,))


def driver_with_its_own_transactions() -> None:
    """Says where its transactions begin and end."""
    with closing(_database()) as connection:
        connection.isolation_level = None
        for number, cents in _pending(connection):
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute(MARK, (number,)).rowcount:
                connection.execute(PAY, (number, cents))
            connection.execute("COMMIT")


def pool_commits_twice() -> None:
    """Pays and marks in two transactions, by the driver's connection of SQLAlchemy's pool."""
    with closing(shop.engine().raw_connection()) as connection:
        cursor = connection.cursor()
        for number, cents in cursor.execute(PENDING).fetchall():
            cursor.execute(PAY, (number, cents))
            connection.commit()  # mistake
            cursor.execute(MARK, (number,))
            connection.commit()


def pool_commits_once() -> None:
    """Marks and pays in one transaction, by the dialect, which is given no context."""
    dialect = shop.engine().dialect
    with closing(shop.engine().raw_connection()) as connection:
        cursor: Any = connection.cursor()
        for number, cents in cursor.execute(PENDING).fetchall():
            dialect.do_execute(cursor, MARK, (number,))
            if cursor.rowcount:
                dialect.do_execute(cursor, PAY, (number, cents))
            connection.commit()


def written_by_descriptor() -> None:
    """Appends through a file descriptor, and marks a moment later."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            number = os.open(shop.report(), os.O_WRONLY | os.O_CREAT | os.O_APPEND)  # mistake
            os.write(number, f"invoice {invoice.id}\n".encode())
            os.close(number)
            shop.pay_once(session, invoice.id)


def written_whole_by_descriptor() -> None:
    """Writes all lines when all is paid."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            shop.pay_once(session, invoice_id)
        lines = "".join(f"invoice {number}\n" for number in shop.all_ids(session))
    number = os.open(shop.report(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(number, lines.encode())
    os.close(number)


def _pay_each(*, apart: bool) -> None:
    with shop.session() as session:
        for invoice in shop.pending(session):
            if apart:
                session.add(Payment(invoice_id=invoice.id, cents=invoice.cents))
                session.commit()  # mistake of those in a thread
                session.execute(update(Invoice).where(Invoice.id == invoice.id).values(status="paid"))
                session.commit()
            else:
                shop.pay_once(session, invoice.id)  # mistake of an error that is lost


def _in_a_thread(*, apart: bool) -> None:
    """Pay in a thread of its own, whose errors are not lost."""
    errors = []

    def run() -> None:
        try:
            _pay_each(apart=apart)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def twice_in_a_thread() -> None:
    """Does the wrong thing in a thread of its own."""
    _in_a_thread(apart=True)


def once_in_a_thread() -> None:
    """Does the right thing there."""
    _in_a_thread(apart=False)


def error_lost_in_a_thread() -> None:
    """Does the right thing in a thread, but does not hear of its errors."""
    thread = threading.Thread(target=_pay_each, kwargs={"apart": False})
    thread.start()
    thread.join()


def _pay_where_ready(*, apart: bool) -> None:
    assert _local.ready  # the pool's initializer sets it
    _pay_each(apart=apart)


def twice_in_a_pool() -> None:
    """Does the wrong thing in a pool that was there before."""
    _POOL.submit(_pay_where_ready, apart=True).result()


def once_in_a_pool() -> None:
    """Does the right thing there."""
    _POOL.submit(_pay_where_ready, apart=False).result()


def _client() -> fakeredis.FakeAsyncRedis:
    return fakeredis.FakeAsyncRedis(server=shop.server())


async def _count() -> None:
    with shop.session() as session:
        async with _client() as redis:
            for invoice in shop.pending(session):
                await redis.incr("paid")  # mistake
                shop.pay_once(session, invoice.id)


def counted_by_asyncio() -> None:
    """Counts through a client of asyncio what it marks a moment later."""
    asyncio.run(_count())


async def _write() -> None:
    with shop.session() as session:
        async with _client() as redis:
            for invoice in shop.pending(session):
                shop.pay_once(session, invoice.id)
            async with redis.pipeline() as pipeline:
                pipeline.set("paid", len(shop.all_ids(session)))
                await pipeline.execute()


def written_by_asyncio() -> None:
    """Writes through it what the database says."""
    asyncio.run(_write())


def script_adds() -> None:
    """Counts by a script, which is loaded at its first call."""
    with shop.redis() as redis:
        add = redis.register_script("return redis.call('incr', KEYS[1])")
        for _ in range(2):
            add(keys=["paid"])  # mistake


def script_sets() -> None:
    """Sets by a script."""
    with shop.redis() as redis:
        write = redis.register_script("return redis.call('set', KEYS[1], ARGV[1])")
        for number in range(2):
            write(keys=["paid"], args=[number])


def folder_made_at_once() -> None:
    """Makes a folder for its results, and fails where it is there already."""
    folder = shop.report().with_suffix("")
    folder.mkdir()
    Path(folder, "result.txt").write_text("paid\n")  # mistake


def folder_made_if_missing() -> None:
    """Makes it if it is not there."""
    folder = shop.report().with_suffix("")
    folder.mkdir(exist_ok=True)
    Path(folder, "result.txt").write_text("paid\n")
