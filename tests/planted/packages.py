"""Mistakes with packages that only the environment ``third-party`` has, each with its correct twin."""

from __future__ import annotations

import logging
from pathlib import Path

import dataset
import pandas as pd
import redis_lock
from alembic import command
from alembic.config import Config
from sqlalchemy import select, update

from tests.planted import shop
from tests.planted.shop import Invoice

MIGRATIONS = Path(__file__).with_name("migrations")


def _csv() -> Path:
    return shop.report().with_suffix(".csv")


def _all() -> pd.DataFrame:
    return pd.read_sql("SELECT id, cents FROM invoices ORDER BY id", shop.engine())


def appends_a_frame() -> None:
    """Appends each invoice to a CSV file, and marks it a moment later."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            frame = pd.DataFrame({"id": [invoice.id], "cents": [invoice.cents]})
            frame.to_csv(_csv(), mode="a", header=False, index=False)  # mistake
            shop.pay_once(session, invoice.id)


def writes_a_frame() -> None:
    """Pays all, writes the whole CSV file under another name, and renames it."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            shop.pay_once(session, invoice_id)
    unfinished = _csv().with_suffix(".part")
    _all().to_csv(unfinished, index=False)
    unfinished.replace(_csv())


def inserts_a_frame() -> None:
    """Inserts payments with a transaction of their own, and marks the invoices in another one."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            frame = pd.DataFrame({"invoice_id": [invoice.id], "cents": [invoice.cents]})
            frame.to_sql("payments", shop.engine(), if_exists="append", index=False)  # mistake
            session.execute(update(Invoice).where(Invoice.id == invoice.id).values(status="paid"))
            session.commit()


def inserts_a_frame_with_the_mark() -> None:
    """Inserts payments in the transaction that marks the invoices."""
    with shop.session() as session:
        for number, cents in session.execute(select(Invoice.id, Invoice.cents)).all():
            mark = (
                update(Invoice).where(Invoice.id == number, Invoice.status == "pending").values(status="paid")
            )
            if session.execute(mark).rowcount:  # type: ignore[attr-defined]
                frame = pd.DataFrame({"invoice_id": [number], "cents": [cents]})
                frame.to_sql("payments", session.connection(), if_exists="append", index=False)
            session.commit()


def replaces_a_table() -> None:
    """Writes all invoices to a table that it makes anew."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            shop.pay_once(session, invoice_id)
    _all().to_sql("summary", shop.engine(), if_exists="replace", index=False)  # mistake


def _upgrade(revision: str) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["engine"] = shop.engine()
    command.upgrade(config, revision)


def migrates() -> None:
    """Runs a migration that fails where a part of it is there: SQLite commits a new table by itself."""
    _upgrade("wrong")  # mistake


def migrates_what_is_missing() -> None:
    """Runs a migration whose parts may be there."""
    _upgrade("right")


def gives_way_to_a_lock() -> None:
    """Does nothing if the lock is taken, also if its holder is gone."""
    with shop.redis() as redis, shop.session() as session:
        lock = redis_lock.Lock(redis, "pay")
        if not lock.acquire(blocking=False):
            return
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)  # mistake
        lock.release()


def waits_for_a_lock() -> None:
    """Waits for a lock that expires, and needs it for speed only."""
    with shop.redis() as redis, shop.session() as session:
        lock = redis_lock.Lock(redis, "pay", expire=1)
        lock.acquire(blocking=True, timeout=1)
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)
        if lock.locked() and lock.get_owner_id() == lock.id:
            lock.release()


def inserts_by_dataset() -> None:
    """Inserts a payment and marks its invoice, each statement in its own transaction."""
    database = dataset.connect(str(shop.engine().url))
    for invoice in list(database["invoices"].find(status="pending", order_by="id")):
        database["payments"].insert({"invoice_id": invoice["id"], "cents": invoice["cents"]})  # mistake
        database["invoices"].update({"id": invoice["id"], "status": "paid"}, ["id"])
    database.close()


def inserts_by_dataset_at_once() -> None:
    """Does both in one transaction."""
    database = dataset.connect(str(shop.engine().url))
    for invoice in list(database["invoices"].find(order_by="id")):
        with database as both:
            both["invoices"].update({"id": invoice["id"], "status": "paid"}, ["id"])
            both["payments"].insert_ignore(
                {"invoice_id": invoice["id"], "cents": invoice["cents"]}, ["invoice_id"]
            )
    database.close()
