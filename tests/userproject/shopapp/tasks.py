"""Tasks that the shop enqueues on RQ."""

from __future__ import annotations

import os
import smtplib
import threading
from email.message import EmailMessage

from sqlalchemy import select
from sqlalchemy.dialects.sqlite import insert

from shopapp.models import Fee, FeeOnce, Member, Session


def charge_fees(month: str) -> None:
    """Charge every member: a retry charges again those who were charged before it."""
    with Session() as session:
        for member in session.scalars(select(Member)).all():
            session.add(Fee(member_id=member.id, month=month))
            session.commit()


def charge_fees_once(month: str) -> None:
    """Charge every member once; a key protects them from a retry."""
    with Session() as session:
        for member in session.scalars(select(Member)).all():
            session.execute(insert(FeeOnce).values(member_id=member.id, month=month).on_conflict_do_nothing())
            session.commit()


def welcome() -> None:
    """Send every new member a mail, and mark them when all are sent."""
    with Session() as session, smtplib.SMTP("mail.example.com", 25) as smtp:
        members = session.scalars(select(Member).where(~Member.welcomed)).all()
        for member in members:
            message = EmailMessage()
            message["To"], message["Subject"] = member.email, "Welcome"
            smtp.send_message(message, "shop@example.com")
        for member in members:
            member.welcomed = True
        session.commit()


def waits_for_itself() -> None:
    """Take a lock twice."""
    charge_fees_once("2024-05")
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def never_ends() -> None:
    """Wait for what never comes."""
    while True:
        pass


def leaves() -> None:
    """End the process."""
    charge_fees_once("2024-05")
    os._exit(3)


def forks() -> None:
    """Become two processes."""
    charge_fees_once("2024-05")
    os.fork()


def never_ends_after_a_crash() -> None:
    """Wait until another process finishes the work that this one began."""
    with Session() as session:
        while session.scalar(select(FeeOnce)) is not None:
            session.rollback()
    charge_fees_once("2024-05")
