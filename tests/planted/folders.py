"""Mistakes with files and directories, and in what mails, requests and messages say."""

from __future__ import annotations

import shutil
import smtplib
from email.message import EmailMessage
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Any
from uuid import UUID

from harness import ContinuableJob, Step, attribute, every
from tests.planted import shop

log: IO[str] | None = None
"""Log that is open since before the job."""
temporary: Path = Path()
"""Directory with a random name that was there before the job."""


def _folder() -> Path:
    return shop.report().with_name("reports")


def makes_its_directory() -> None:
    """Makes a directory that must not be there."""
    with shop.session() as session:
        _folder().mkdir()  # mistake
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)


def makes_it_if_need_be() -> None:
    """Makes it unless it is there."""
    with shop.session() as session:
        _folder().mkdir(exist_ok=True)
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)


def moves_its_directory() -> None:
    """Fills a directory, and moves it to a place in which another one is filled."""
    unfinished = _folder().with_name("unfinished")
    with shop.session() as session:
        ids = shop.all_ids(session)
    unfinished.mkdir(exist_ok=True)
    (unfinished / "invoices.txt").write_text(f"{ids}\n")
    shutil.move(unfinished, _folder())  # mistake


def moves_it_once() -> None:
    """Fills the directory with everything, and moves it unless that was done."""
    unfinished = _folder().with_name("unfinished")
    with shop.session() as session:
        ids = shop.all_ids(session)
    if not _folder().exists():
        unfinished.mkdir(exist_ok=True)
        (unfinished / "invoices.txt").write_text(f"{ids}\n")
        unfinished.rename(_folder())


def logs_before_it_pays() -> None:
    """Writes to a log that is open already, and pays a moment later."""
    assert log is not None
    with shop.session() as session:
        for invoice in shop.pending(session):
            log.write(f"invoice {invoice.id}\n")
            log.flush()
            shop.pay_once(session, invoice.id)  # mistake


def writes_its_log_at_the_end() -> None:
    """Pays all, and writes the whole log from its beginning."""
    assert log is not None
    with shop.session() as session:
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)
        lines = "".join(f"invoice {number}\n" for number in shop.all_ids(session))
        log.seek(0)
        log.truncate()
        log.write(lines)
        log.flush()


def appends_under_the_temporary_folder() -> None:
    """Appends to a file in a directory that was there before, below the system's temporary directory."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            with (temporary / "report.txt").open("a") as report:  # mistake
                report.write(f"invoice {invoice.id}\n")
            shop.pay_once(session, invoice.id)


def renames_under_the_temporary_folder() -> None:
    """Writes all of it to another file there, and renames that."""
    with shop.session() as session:
        for invoice in shop.pending(session):
            shop.pay_once(session, invoice.id)
        unfinished = temporary / "report.part"
        unfinished.write_text("".join(f"invoice {number}\n" for number in shop.all_ids(session)))
        unfinished.replace(temporary / "report.txt")


class MailsASumFromMemory(ContinuableJob):
    """Mails the sum so far, and forgets it when it is interrupted."""

    durability = every(items=1)
    so_far: Any = 0

    def perform(self) -> None:
        """Run in every execution."""
        with shop.session() as self.session:
            self.step("mail")

    def mail(self, step: Step) -> None:
        """Mail each invoice after the cursor."""
        with smtplib.SMTP("mail.shop.example") as smtp:
            for invoice_id in shop.all_ids(self.session):
                if invoice_id > (step.cursor or 0):
                    self.so_far += invoice_id
                    message = EmailMessage()
                    message["To"], message["From"] = "boss@shop.example", "shop@shop.example"
                    message["Subject"] = f"Invoice {invoice_id}"
                    message.set_content(f"So far: {self.so_far}")
                    smtp.send_message(message)
                    self.session.commit()
                    step.set(invoice_id)  # mistake


class MailsASumFromItsAttribute(MailsASumFromMemory):
    """Keeps the sum with the cursor."""

    kept = attribute(default=0)

    @property
    def so_far(self) -> int:
        """The sum so far."""
        return self.kept

    @so_far.setter
    def so_far(self, value: int) -> None:
        """Keep it."""
        self.kept = value


def posts_numbers_from_memory(address: str) -> None:
    """Posts how many invoices were paid so far, counted in memory."""
    with shop.session() as session:
        for number, invoice in enumerate(shop.pending(session)):
            shop.pay_once(session, invoice.id)
            connection = HTTPConnection(address)
            connection.request("PUT", f"/invoices/{invoice.id}", body=f"number {number}".encode())
            connection.getresponse().read()
            connection.close()


def posts_ids_from_memory(address: str) -> None:
    """Posts the id of a customer, by the number of invoices that were paid so far."""
    with shop.session() as session:
        for number, invoice in enumerate(shop.pending(session)):
            shop.pay_once(session, invoice.id)
            connection = HTTPConnection(address)
            connection.request("PUT", f"/invoices/{invoice.id}", body=str(UUID(int=number)).encode())
            connection.getresponse().read()
            connection.close()


def publishes_before_it_pays() -> None:
    """Publishes each invoice, and marks it a moment later."""
    with shop.session() as session, shop.redis() as redis:
        for invoice in shop.pending(session):
            redis.publish("paid", f"invoice {invoice.id}")  # mistake
            shop.pay_once(session, invoice.id)
