"""Real SMTP server on loopback that keeps the accepted mails."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Coroutine
from email.parser import BytesHeaderParser
from typing import TYPE_CHECKING, Any

from aiosmtpd.controller import Controller

if TYPE_CHECKING:
    from asyncio import AbstractServer

    from aiosmtpd.smtp import SMTP, Envelope
    from aiosmtpd.smtp import Session as SMTPSession


HEADERS = BytesHeaderParser()


class Mailbox(Controller):
    """Accepts mail on a private port, from construction until :meth:`stop`.

    :ivar accepted: recipient and Message-ID of each accepted mail, including copies.
    """

    def __init__(self) -> None:
        # Bind here and pass the socket on, so that no other process can take the port in between.
        self._socket = socket.create_server(("127.0.0.1", 0))
        hostname, port = self._socket.getsockname()
        super().__init__(self, hostname, port)
        self.accepted: list[tuple[str, str]] = []
        self.start()

    @property
    def address(self) -> str:
        """Address it listens on, as ``host:port``."""
        return f"{self.hostname}:{self.port}"

    @property
    def at_the_door(self) -> Counter[str]:
        """Number of mails sent to each recipient."""
        return Counter(recipient for recipient, _ in self.accepted)

    @property
    def by_key(self) -> Counter[str]:
        """Number of mails for each recipient after the removal of copies with the same Message-ID."""
        return Counter(recipient for recipient, _ in set(self.accepted))

    def empty(self) -> None:
        """Delete all mail."""
        self.accepted.clear()

    async def handle_DATA(  # noqa: N802 - the name that aiosmtpd looks for
        self, _server: SMTP, _session: SMTPSession, envelope: Envelope
    ) -> str:
        """Store a mail."""
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        message_id = HEADERS.parsebytes(content)["Message-ID"]
        self.accepted += [(recipient, message_id) for recipient in envelope.rcpt_tos]
        return "250 OK"

    def _create_server(self) -> Coroutine[Any, Any, AbstractServer]:
        return self.loop.create_server(self._factory_invoker, sock=self._socket)
