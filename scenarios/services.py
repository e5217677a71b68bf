"""Work that the demonstration jobs do on one order or one mail, in every pattern.

Each function is one unit of work in the caller's transaction. Sending a mail is the exception: no transaction covers
it. If a function raises, roll back its session. No function checks whether it was called for the same item before.
The job chooses the items, and its mistakes must show in the tables and the mailbox.
"""

from __future__ import annotations

import os
import smtplib
from datetime import UTC, datetime
from email.message import EmailMessage
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, event, func, insert, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from harness import mark
from harness.errors import UsageError
from scenarios.models import CustomerReport, DeliveryStatus, EmailDelivery, Order, OrderStatus, Payment

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection

PAYMENT_LIMIT_CENTS = 100_000
"""The largest amount that the payment provider accepts, in cents."""

SENDER = "newsletter@example.com"
"""Sender of the mails of every campaign."""

Totals = dict[int, tuple[int, int]]
"""Customer id -> (number of orders, sum of their amounts in cents)."""

_SMTP_TIMEOUT_S = 30.0

_PAY = insert(Payment)
_INSERT: dict[str, Callable[..., sqlite.Insert | postgresql.Insert]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}

# The timeout comes first, because the others may have to wait for a writer. With a write-ahead log, NORMAL
# keeps every commit when the process dies; only a power cut may take the latest ones back.
_SQLITE_PRAGMAS = ("busy_timeout=30000", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON")

_engines: dict[str, Engine] = {}
"""Engines by URL. Work horses inherit them: harness.runtime.forks gives each process connections of its own."""


def engine() -> Engine:
    """Return the engine for the URL in the environment variable ``HARNESS_DATABASE_URL``.

    :raises UsageError: if the variable is not set, or names neither SQLite nor PostgreSQL.
    """
    url = _setting("HARNESS_DATABASE_URL", "sqlite:///demo.db")
    if url not in _engines:
        _engines[url] = _new_engine(url)
    return _engines[url]


def session() -> Session:
    """Open a session on :func:`engine`; objects stay readable after a commit.

    :raises UsageError: as :func:`engine` does.
    """
    return Session(engine(), expire_on_commit=False)


def dispose() -> None:
    """Close the connections of all engines; the next session makes a new engine.

    Call it in the process that opened them, not in one that was forked from it.
    """
    while _engines:
        _engines.popitem()[1].dispose()


def open_smtp() -> smtplib.SMTP:
    """Connect to the mail server at the ``host:port`` in ``HARNESS_SMTP``; leaving its context says QUIT.

    :raises UsageError: if the variable is not set or not of that form.
    :raises OSError: if no server answers there.
    """
    peer = _setting("HARNESS_SMTP", "127.0.0.1:2525")
    host, _, port = peer.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"HARNESS_SMTP is {peer!r}; it must be host:port, for example 127.0.0.1:2525")
    # Without a name of its own, the client would look one up in the DNS for every connection.
    return smtplib.SMTP(host, int(port), local_hostname="localhost", timeout=_SMTP_TIMEOUT_S)


def refusal(amount_cents: int) -> str | None:
    """Return why the payment provider declines the amount, or None if it accepts.

    The answer depends on nothing else, so that asking again gives the same one.
    """
    if amount_cents > PAYMENT_LIMIT_CENTS:
        return f"declined: {amount_cents} cents is over the limit of {PAYMENT_LIMIT_CENTS}"
    return None


def process_order(session: Session, order: Order) -> None:
    """Have an order paid, and complete or fail it by the provider's answer; the caller commits.

    It does not look whether the order was processed before: which orders to give it is the caller's choice.
    Dying before the commit leaves a pending order and no payment, dying after it both: never one alone. If only the
    answer to the commit is lost, the caller does not know: a position that is not from the same transaction may
    then have the order paid twice.

    :raises InvalidRequestError: if the order belongs to another session; nothing is paid then.
    """
    mark(f"order {order.id}")
    # Before anything changes: an order that another session holds could be paid here, but not completed.
    session.add(order)
    failure = refusal(order.amount_cents)
    # A row that no code reads again needs no object in the session: a statement costs half as much.
    paid = {"order_id": order.id, "amount_cents": order.amount_cents, "accepted": failure is None}
    session.connection().execute(_PAY, paid)
    order.status = OrderStatus.COMPLETED if failure is None else OrderStatus.FAILED
    order.failure = failure
    session.flush()  # the database refuses bad rows here, and not at a later commit


def add_to_report(session: Session, order: Order) -> None:
    """Add one order to the report on its customer; the caller commits.

    Which orders count is the caller's choice; an order that is given twice is counted twice. The sum does not tell
    which orders are in it: a position that was not committed along with it, or a lost answer to that commit, makes
    the order count twice.
    """
    mark(f"order {order.id}")
    adding = _INSERT[session.get_bind().dialect.name](CustomerReport)
    # One statement adds in the database: nothing is read before, so no other worker's sum can be overwritten,
    # and two that are first for a customer do not collide.
    session.execute(
        adding.values(
            customer_id=order.customer_id, orders_counted=1, total_cents=order.amount_cents
        ).on_conflict_do_update(
            index_elements=[CustomerReport.customer_id],
            set_={
                "orders_counted": CustomerReport.orders_counted + 1,
                "total_cents": CustomerReport.total_cents + adding.excluded.total_cents,
            },
        )
    )


def report_totals(session: Session) -> Totals:
    """Return the totals in the report."""
    rows = session.execute(
        select(CustomerReport.customer_id, CustomerReport.orders_counted, CustomerReport.total_cents)
    )
    return {customer: (orders, cents) for customer, orders, cents in rows}


def expected_totals(session: Session) -> Totals:
    """Return what the report must say: completed orders count, and no others, since only they were paid."""
    rows = session.execute(
        select(Order.customer_id, func.count(), func.sum(Order.amount_cents))
        .where(Order.status == OrderStatus.COMPLETED)
        .group_by(Order.customer_id)
    )
    return {customer: (orders, cents) for customer, orders, cents in rows}


def send_mail(smtp: smtplib.SMTP, session: Session, delivery: EmailDelivery, key: str) -> None:
    """Send one mail of a campaign and commit that it was sent, or that its recipient was refused for good.

    It does not look whether it was sent before: which mails to give it is the caller's choice.

    :param key: the mail's Message-ID is made of it. With the same key, a second copy is the same to the byte.

    :raises SMTPException: if the mail was not taken, for a reason that may pass; it then stays as it was.
    :raises InvalidRequestError: if the delivery belongs to another session; nothing is sent then.
    """
    mark(f"mail {delivery.id}")
    # Before sending: a delivery that another session holds could be sent, but not recorded.
    session.add(delivery)
    # No transaction covers a mail. Dying before this line loses nothing. If the server's answer is lost, the
    # mail may have gone out or not: it counts as unsent, and the same Message-ID shows a second copy as one.
    sent = _accepted(smtp, _message(delivery, key))
    delivery.status = DeliveryStatus.SENT if sent else DeliveryStatus.FAILED
    delivery.sent_at = datetime.now(UTC) if sent else None
    # Dying before this commit sends the mail a second time; committing before sending would lose it instead.
    # A second copy can be recognised, a mail that was never sent cannot.
    session.commit()


def _message(delivery: EmailDelivery, key: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = SENDER
    message["To"] = delivery.recipient
    message["Subject"] = f"News from us: {delivery.campaign}"
    message["Message-ID"] = f"<{key}@example.com>"
    message.set_content("Dear reader,\n\nsee what is new this season.\n")
    return message


def _accepted(smtp: smtplib.SMTP, message: EmailMessage) -> bool:
    try:
        smtp.send_message(message)
    except smtplib.SMTPRecipientsRefused as refused:
        if any(code < 500 for code, _ in refused.recipients.values()):
            raise  # by RFC 5321 4xx means "not now", 5xx "never"
        return False
    return True


def _setting(name: str, example: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise UsageError(f"the environment variable {name} is not set; set it, for example to {example}")
    return value


def _new_engine(url: str) -> Engine:
    backend = make_url(url).get_backend_name()
    if backend not in _INSERT:
        raise UsageError(
            f"HARNESS_DATABASE_URL names a {backend} database; "
            f"use one of {', '.join(_INSERT)}, for example sqlite:///demo.db"
        )
    engine = create_engine(url)
    if backend == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
    return engine


def _configure_sqlite(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in _SQLITE_PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
