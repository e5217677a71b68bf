"""Mistakes with code of the standard library and of clients, each with its correct twin."""

from __future__ import annotations

import mailbox
import shutil
from email.message import EmailMessage
from pathlib import Path

import requests
from redis.client import Pipeline
from sqlalchemy import select

from tests.planted import shop
from tests.planted.shop import Invoice

address = ""
"""Address of a server that takes requests."""
RECEIVED: list[str] = []
"""Paths of the requests that the server took, and that it keeps."""


def _folder(name: str) -> Path:
    return shop.report().with_name(name)


def fill_inbox() -> None:
    """Write a file for each invoice, unless a file is there."""
    folder = _folder("inbox")
    with shop.session() as session:
        ids = shop.all_ids(session)
    folder.mkdir(exist_ok=True)
    for number in ids:
        path = folder / f"{number}.txt"
        if not path.exists():
            path.write_text(f"invoice {number}\n")


def moved_before_it_was_paid() -> None:
    """Moves each invoice's file to the folder of those done, and pays it a moment later."""
    inbox, done = _folder("inbox"), _folder("done")
    done.mkdir(exist_ok=True)
    with shop.session() as session:
        for path in sorted(inbox.iterdir()):
            shutil.move(path, done)  # mistake
            shop.pay_once(session, int(path.stem))


def moved_after_it_was_paid() -> None:
    """Pays each invoice, and moves its file if that is still there."""
    inbox, done = _folder("inbox"), _folder("done")
    done.mkdir(exist_ok=True)
    with shop.session() as session:
        for path in sorted(inbox.iterdir()):
            shop.pay_once(session, int(path.stem))
            try:
                shutil.move(path, done / path.name)
            except FileNotFoundError:
                continue  # another execution has moved it


def copies_a_tree() -> None:
    """Copies the folder as its last act, and fails where a part of it is there."""
    fill_inbox()
    shutil.copytree(_folder("inbox"), _folder("copy"))  # mistake


def copies_a_tree_again() -> None:
    """Copies over what is there."""
    fill_inbox()
    shutil.copytree(_folder("inbox"), _folder("copy"), dirs_exist_ok=True)


def _message(number: int) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"] = "shop@shop.example", "boss@shop.example"
    message["Subject"], message["Message-ID"] = f"Invoice {number}", f"<{number}@shop.example>"
    message.set_content("Paid.")
    return message


def adds_to_a_mailbox() -> None:
    """Adds a message to a mailbox, and marks its invoice a moment later."""
    box = mailbox.mbox(_folder("sent.mbox"))
    with shop.session() as session:
        for invoice in shop.pending(session):
            box.add(_message(invoice.id))
            box.flush()
            shop.pay_once(session, invoice.id)  # mistake
    box.close()


def locks_a_mailbox() -> None:
    """Holds the lock of the mailbox, which is a file, while it adds all messages."""
    box = mailbox.mbox(_folder("sent.mbox"))
    box.lock()  # mistake
    with shop.session() as session:
        for invoice in shop.pending(session):
            box.add(_message(invoice.id))
            shop.pay_once(session, invoice.id)
    box.close()


def writes_a_mailbox() -> None:
    """Pays all, and writes a new mailbox, which it renames."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            shop.pay_once(session, invoice_id)
        ids = shop.all_ids(session)
    unfinished = _folder("sent.part")
    unfinished.write_bytes(b"".join(b"From shop\n" + bytes(_message(number)) + b"\n" for number in ids))
    unfinished.replace(_folder("sent.mbox"))


def gives_way_to_a_lock() -> None:
    """Does nothing if the lock is taken, also if its holder is gone."""
    with shop.redis() as redis, shop.session() as session:
        lock = redis.lock("pay", blocking=False)
        if not lock.acquire():
            return
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)  # mistake
        lock.release()


def waits_for_a_lock() -> None:
    """Waits for a lock that expires, and needs it for speed only."""
    with shop.redis() as redis, shop.session() as session:
        lock = redis.lock("pay", timeout=0.02, sleep=0.005, blocking_timeout=5, raise_on_release_error=False)
        with lock:
            for invoice in shop.pending(session):
                shop.pay_once(session, invoice.id)


def counts_under_a_lock() -> None:
    """Counts under a lock, which orders two executions and does not make one of two halves."""
    with shop.redis() as redis, shop.session() as session:
        for invoice in shop.pending(session):
            with redis.lock(
                "count", timeout=0.02, sleep=0.005, blocking_timeout=5, raise_on_release_error=False
            ):
                redis.incrby("cents", invoice.cents)  # mistake
            shop.pay_once(session, invoice.id)


def counts_in_a_pipeline() -> None:
    """Counts each invoice once: in one transaction with its name, which is looked at before."""
    with shop.redis() as redis, shop.session() as session:
        for invoice in session.scalars(select(Invoice).order_by(Invoice.id)).all():

            def count(pipeline: Pipeline, invoice: Invoice = invoice) -> None:
                known = pipeline.sismember("counted", str(invoice.id))
                pipeline.multi()
                if not known:
                    pipeline.sadd("counted", str(invoice.id))
                    pipeline.incrby("cents", invoice.cents)

            redis.transaction(count, "counted")
            shop.pay_once(session, invoice.id)


def posts_in_a_session() -> None:
    """Posts each invoice through one session, and marks it a moment later."""
    with shop.session() as session, requests.Session() as client:
        for invoice in shop.pending(session):
            answer = client.post(f"{address}/invoices/{invoice.id}", json={}, timeout=60)  # mistake
            answer.raise_for_status()
            shop.pay_once(session, invoice.id)


def puts_in_a_session() -> None:
    """Puts each invoice under an address of its own, where it is the same a second time."""
    with shop.session() as session, requests.Session() as client:
        for invoice in shop.pending(session):
            client.put(f"{address}/invoices/{invoice.id}", json={}, timeout=60).raise_for_status()
            shop.pay_once(session, invoice.id)
