"""Sending the mails of a campaign, to a mail server that may refuse them or hang up."""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiosmtpd.controller import Controller
from sqlalchemy.exc import InvalidRequestError

from harness.errors import UsageError
from harness.ledger import marking
from scenarios import services
from scenarios.models import Base, DeliveryStatus, EmailDelivery
from tests.databases import used_by_services

if TYPE_CHECKING:
    from asyncio import AbstractServer

    from aiosmtpd.smtp import SMTP, Envelope
    from aiosmtpd.smtp import Session as SmtpSession
    from sqlalchemy.orm import Session


class Mailbox:
    """Mail server handler that keeps the accepted mails."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []
        self.recipient_answer = "250 OK"
        self.hangs_up = False

    async def handle_RCPT(  # noqa: N802 - the name that the server looks for
        self, server: SMTP, session: SmtpSession, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Accept or refuse a recipient."""
        if self.recipient_answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.recipient_answer

    async def handle_DATA(  # noqa: N802 - the name that the server looks for
        self, server: SMTP, session: SmtpSession, envelope: Envelope
    ) -> str:
        """Keep a mail, and lose the answer if asked to."""
        assert isinstance(envelope.content, bytes)
        self.mails.append(envelope.content)
        if self.hangs_up:
            assert server.transport is not None
            server.transport.close()
        return "250 OK"


class MailServer(Controller):
    """A mail server on a port that was free when it was bound, and is bound from then on."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        hostname, port = self._socket.getsockname()
        super().__init__(mailbox, hostname, port)

    def _create_server(self) -> Coroutine[Any, Any, AbstractServer]:
        return self.loop.create_server(self._factory_invoker, sock=self._socket)


@pytest.fixture
def mailbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    """Yield the mailbox behind ``HARNESS_SMTP``."""
    mailbox = Mailbox()
    server = MailServer(mailbox)
    server.start()
    monkeypatch.setenv("HARNESS_SMTP", f"{server.hostname}:{server.port}")
    yield mailbox
    server.stop()


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """Yield a session of the services on a database with all tables."""
    with used_by_services(monkeypatch, f"sqlite:///{tmp_path}/mail.db") as engine:
        Base.metadata.create_all(engine)
        with services.session() as session:
            yield session


@pytest.fixture
def delivery(session: Session) -> EmailDelivery:
    """Return a mail that is still to be sent."""
    delivery = EmailDelivery(campaign="spring-2024", recipient="hana@example.org")
    session.add(delivery)
    session.commit()
    return delivery


def test_mail_is_sent_and_recorded(mailbox: Mailbox, session: Session, delivery: EmailDelivery) -> None:
    """A mail arrives with its headers, and the delivery says when it was sent."""
    with services.open_smtp() as smtp:
        services.send_mail(smtp, session, delivery, "k1")
    (mail,) = mailbox.mails
    assert mail.splitlines()[:4] == [
        b"From: newsletter@example.com",
        b"To: hana@example.org",
        b"Subject: News from us: spring-2024",
        b"Message-ID: <k1@example.com>",
    ]
    session.refresh(delivery)
    assert delivery.status is DeliveryStatus.SENT
    assert delivery.sent_at is not None


def test_mail_sent_again_is_the_same_to_the_byte(
    mailbox: Mailbox, session: Session, delivery: EmailDelivery
) -> None:
    """A second copy arrives, since no check for a first one is made, and it can be recognised as a copy."""
    marked: list[str] = []
    with services.open_smtp() as smtp, marking(marked.append):
        services.send_mail(smtp, session, delivery, "k1")
        services.send_mail(smtp, session, delivery, "k1")
    first, second = mailbox.mails
    assert first == second
    assert marked == [f"mail {delivery.id}"] * 2


def test_recipient_refused_for_good_is_recorded_and_the_next_mail_goes_out(
    mailbox: Mailbox, session: Session, delivery: EmailDelivery
) -> None:
    """A 5xx answer fails the delivery without an error, and the connection can be used for the next one."""
    following = EmailDelivery(campaign="spring-2024", recipient="ivan@example.org")
    with services.open_smtp() as smtp:
        mailbox.recipient_answer = "550 no such mailbox"
        services.send_mail(smtp, session, delivery, "k1")
        mailbox.recipient_answer = "250 OK"
        services.send_mail(smtp, session, following, "k2")
    session.refresh(delivery)
    assert (delivery.status, delivery.sent_at) == (DeliveryStatus.FAILED, None)
    assert following.status is DeliveryStatus.SENT
    assert len(mailbox.mails) == 1


def test_recipient_refused_for_now_stays_pending(
    mailbox: Mailbox, session: Session, delivery: EmailDelivery
) -> None:
    """A 4xx answer is an error that may pass, and the delivery stays as it was."""
    mailbox.recipient_answer = "450 try again later"
    with services.open_smtp() as smtp, pytest.raises(smtplib.SMTPRecipientsRefused):
        services.send_mail(smtp, session, delivery, "k1")
    session.refresh(delivery)
    assert delivery.status is DeliveryStatus.PENDING


def test_lost_answer_counts_as_unsent_and_the_second_copy_has_the_same_id(
    mailbox: Mailbox, session: Session, delivery: EmailDelivery
) -> None:
    """If the server takes the mail but hangs up, the mail is sent again under the same Message-ID."""
    mailbox.hangs_up = True
    with services.open_smtp() as smtp, pytest.raises(smtplib.SMTPServerDisconnected):
        services.send_mail(smtp, session, delivery, "k1")
    session.refresh(delivery)
    assert delivery.status is DeliveryStatus.PENDING
    mailbox.hangs_up = False
    with services.open_smtp() as smtp:
        services.send_mail(smtp, session, delivery, "k1")
    first, second = mailbox.mails
    assert first == second


def test_delivery_of_another_session_is_not_sent(
    mailbox: Mailbox, session: Session, delivery: EmailDelivery
) -> None:
    """A mail whose sending could not be recorded is refused before it goes out."""
    attached = pytest.raises(InvalidRequestError, match="already attached")
    with services.open_smtp() as smtp, services.session() as other, attached:
        services.send_mail(smtp, other, delivery, "k1")
    assert mailbox.mails == []


def test_unset_mail_server_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for a missing mail server names the variable and an example."""
    monkeypatch.delenv("HARNESS_SMTP", raising=False)
    with pytest.raises(UsageError, match=r"HARNESS_SMTP is not set; .* 127\.0\.0\.1:2525$"):
        services.open_smtp()


@pytest.mark.parametrize("peer", ["localhost", ":25", "localhost:", "localhost:smtp"])
def test_malformed_mail_server_is_refused(monkeypatch: pytest.MonkeyPatch, peer: str) -> None:
    """Anything but host:port is refused, quoting what was found."""
    monkeypatch.setenv("HARNESS_SMTP", peer)
    with pytest.raises(UsageError, match=f"HARNESS_SMTP is '{peer}'; it must be host:port"):
        services.open_smtp()
