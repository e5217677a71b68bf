"""A real SMTP server on loopback that keeps what it accepts."""

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
    """Accepts mail on a port of its own, from construction until :meth:`stop`.

    :ivar accepted: how many times each Message-ID was accepted: at the door, before anybody removes duplicates.
    """

    def __init__(self) -> None:
        # Bound here and handed over, so that no other process can take the port in between.
        self._socket = socket.create_server(("127.0.0.1", 0))
        hostname, port = self._socket.getsockname()
        super().__init__(self, hostname, port)
        self.accepted: Counter[str] = Counter()
        self.start()

    @property
    def address(self) -> str:
        """Where it listens, as ``host:port``."""
        return f"{self.hostname}:{self.port}"

    def empty(self) -> None:
        """Throw all mail away."""
        self.accepted.clear()

    async def handle_DATA(  # noqa: N802 - the name that aiosmtpd looks for
        self, _server: SMTP, _session: SMTPSession, envelope: Envelope
    ) -> str:
        """Keep a mail."""
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        self.accepted[HEADERS.parsebytes(content)["Message-ID"]] += 1
        return "250 OK"

    def _create_server(self) -> Coroutine[Any, Any, AbstractServer]:
        return self.loop.create_server(self._factory_invoker, sock=self._socket)
