"""Crash points before and after each mail, and a simulated mail server.

``before-mail`` and ``mail`` are before and after SMTP's DATA, which sends the mail. In a trial, a job talks
to :class:`_Peer` for every host, so that the mails of trials stay in the process.
"""

from __future__ import annotations

import smtplib
from contextlib import AbstractContextManager
from email import message_from_bytes
from email.parser import BytesHeaderParser
from functools import lru_cache, wraps
from typing import Any

from harness.explore.crash import SimulatedProcess, current
from harness.explore.probes.patching import patched

_HEADERS = BytesHeaderParser()
_ACCEPTED = 250
MAILS = 256
"""Number of mails whose parts are cached, because each trial sends the same mails."""


def probes() -> AbstractContextManager[None]:
    """Hook ``smtplib``, until the block ends."""
    return patched(
        (smtplib.SMTP, "_get_socket", _socket),
        (smtplib.SMTP_SSL, "_get_socket", _socket),
        (smtplib.SMTP, "starttls", _granted(220)),
        (smtplib.SMTP, "login", _granted(235)),
        (smtplib.SMTP, "data", _data),
    )


class _Peer:
    """Server side of a connection: only the methods that ``smtplib`` uses."""

    def __init__(self, simulated: SimulatedProcess) -> None:
        self._life, self._replies, self._buffer = simulated, [b"220 trial\r\n"], b""
        self._recipients: list[str] = []
        self._in_data = False

    def makefile(self, _mode: str) -> _Peer:
        return self

    def close(self) -> None:
        self._replies.clear()

    def readline(self, _size: int = -1) -> bytes:
        return self._replies.pop(0) if self._replies else b""

    def sendall(self, data: bytes) -> None:
        self._buffer += data
        while True:
            mark = b"\r\n.\r\n" if self._in_data else b"\r\n"
            head, found, rest = self._buffer.partition(mark)
            if not found:
                return
            self._buffer = rest
            self._replies.append(self._content(head) if self._in_data else self._command(head))

    def _command(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"RCPT":
            self._recipients.append(line.partition(b"<")[2].partition(b">")[0].decode(errors="replace"))
        elif verb in {b"MAIL", b"RSET"}:
            self._recipients = []
        self._in_data = verb == b"DATA"
        return {b"DATA": b"354 go ahead\r\n", b"QUIT": b"221 bye\r\n"}.get(verb, b"250 OK\r\n")

    def _content(self, content: bytes) -> bytes:
        self._in_data = False
        self._life.observer.sent("mail", describe(self._recipients, content), body_of(content))
        return b"250 OK\r\n"


def describe(recipients: list[str], content: bytes) -> str:
    """Return the identity of a mail: recipient, subject, and its Message-ID if it has one."""
    subject, identity = _headers(content)
    return f"to {', '.join(recipients)}: {subject}" + (f" {identity}" if identity else "")


@lru_cache(MAILS)
def _headers(content: bytes) -> tuple[str, str]:
    """Return the subject of a mail, and its Message-ID if it has one."""
    headers = _HEADERS.parsebytes(content)
    return f"{headers['Subject']}", f"{headers['Message-ID'] or ''}"


@lru_cache(MAILS)
def body_of(content: bytes) -> bytes:
    """Return the decoded parts of a mail, without headers: these hold its date and random boundaries."""
    parts = [part.get_payload(decode=True) for part in message_from_bytes(content).walk()]
    return b"\n".join(part for part in parts if isinstance(part, bytes))


def _socket(connect: Any) -> Any:
    @wraps(connect)
    def hooked(client: Any, host: str, port: int, timeout: Any) -> Any:
        simulated = current()
        if simulated is None:
            return connect(client, host, port, timeout)
        simulated.reach("before-connect", f"connect to {host}:{port}")
        return _Peer(simulated)

    return hooked


def _granted(code: int) -> Any:
    def wrap(ask: Any) -> Any:
        @wraps(ask)
        def hooked(client: Any, *args: Any, **kwargs: Any) -> Any:
            return ask(client, *args, **kwargs) if current() is None else (code, b"OK")

        return hooked

    return wrap


def _data(send: Any) -> Any:
    @wraps(send)
    def hooked(client: Any, message: Any) -> Any:
        simulated = current()
        if simulated is None:
            return send(client, message)
        content = message.encode("ascii", "replace") if isinstance(message, str) else message
        label = f"mail {_headers(content)[0]}"
        simulated.reach("before-mail", label)
        answer = send(client, message)
        if answer[0] == _ACCEPTED:
            simulated.reach(
                "mail", label, lambda: smtplib.SMTPServerDisconnected("Connection unexpectedly closed")
            )
        return answer

    return hooked
