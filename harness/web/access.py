"""Access to the page: allowed hosts, users, and protection against requests of other sites."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import inspect
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from harness.boundary.texts import printable
from harness.errors import UsageError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
"""Host names of the page for a browser on this machine."""

LOOK = "look"
"""Name of the action of a user who only views."""

SHORTEST_TOKEN = 16
"""Minimum number of characters of a token."""

COOKIE, FIELD = "harness-csrf", "token"
"""Names of the cookie and of the form field that must match."""

FORM_BYTES, FORM_FIELDS = 64 * 1024, 60
"""Size limits of a form."""

HEALTH = "/healthz"
"""Address for any host: it only reports that the process runs."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every response."""

Answer = str | Response | None
Access = Callable[[Request, str], Answer | Awaitable[Answer]]
"""Hook that decides about a request: ``access(request, action)``; *action* is ``"look"`` or the name of an action.

It returns the name of the user for the history of the job; None or an empty name refuses the request. It may return a
response of its own, such as a redirection to a login, and may be a coroutine function."""


class Refused(Exception):
    """Refusal of a request.

    :ivar status: status code. :ivar text: reason, for the user.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Guard:
    """ASGI middleware that checks the Host header and sets the headers of every response.

    The name of another site can resolve to 127.0.0.1 (DNS rebinding); it would then share this page's origin.
    Its requests have its own name in the Host header. :param hosts: allowed names; None allows all.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        self._app = app
        self._hosts = None if hosts is None else {each.lower() for each in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    if name.lower() not in headers or name != "Cache-Control":
                        headers[name] = value
            await send(message)

        request = Request(scope)
        name = host_name(request.headers.get("host", ""))
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if self._hosts is not None and name not in self._hosts and path != HEALTH:
            text = f"the page does not accept the host name {printable(name)!r}; allow it with --allow-host\n"
            await PlainTextResponse(text, 400)(scope, receive, sending)
            return
        await self._app(scope, receive, sending)


def host_name(netloc: str) -> str:
    """Return the name in ``name:port``, in lower case; empty if it has none."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").lower()
    except ValueError:
        return ""


def loopback_only(request: Request, action: str) -> str | None:
    """Allow only requests from this machine that did not come through a proxy."""
    del action
    forwarded = any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-real-ip"))
    # A client without an address came through a Unix socket.
    return "local" if not forwarded and (request.client is None or is_loopback(request.client.host)) else None


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in {"localhost", ""}


def token_access(token: str) -> Access:
    """Return a hook that requires a token: as the password of a browser's login window, or as a bearer token.

    The user name of the login window is written to the history.

    :raises UsageError: if the token is too short.
    """
    if len(token) < SHORTEST_TOKEN:
        raise UsageError(
            f"the token has {len(token)} characters; use {SHORTEST_TOKEN} or more, for example from "
            "`openssl rand -hex 16`"
        )

    def access(request: Request, action: str) -> Answer:
        del action
        user, given = _credentials(request.headers.get("authorization", ""))
        if given is not None and hmac.compare_digest(given.encode(), token.encode()):
            return user or "token"
        return PlainTextResponse(
            "the page needs a token: enter it as the password, and your name as the user\n", 401,
            {"WWW-Authenticate": 'Basic realm="harness", charset="UTF-8"'},
        )  # fmt: skip

    return access


def _credentials(header: str) -> tuple[str, str | None]:
    """Return the user and the token in an Authorization header."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return "token", value.strip()
    if scheme.lower() != "basic":
        return "", None
    try:
        user, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", None
    return user, password


async def user_of(access: Access, request: Request, action: str) -> str | Response:
    """Return the name of a request's user, or the response that refuses it."""
    answer = access(request, action)
    if inspect.isawaitable(answer):
        answer = await answer
    if answer is None or answer == "":  # the hook read the name from an empty header: there is no user
        return PlainTextResponse(f"you may not {printable(action)} here\n", 403)
    return answer


class Tokens:
    """Tokens that tie a form to its browser.

    The browser keeps a random cookie, and the form contains a keyed hash of it. Another site can neither read
    nor create one. A restart of the server changes the key, and the open page gets its new token with the
    next event.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def cookie(self, request: Request) -> str:
        """Return the value of the cookie, a new one if the browser has none."""
        return request.cookies.get(COOKIE) or secrets.token_urlsafe(24)

    def token(self, cookie: str) -> str:
        """Return the token for a cookie."""
        return hmac.new(self._key, cookie.encode(), hashlib.sha256).hexdigest()

    def keep(self, response: Response, request: Request, cookie: str) -> None:
        """Set the cookie in the browser."""
        path = request.scope.get("root_path") or "/"
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, cookie, path=path, httponly=True, samesite="strict", secure=secure)

    def check(self, request: Request, form: dict[str, str]) -> None:
        """Refuse a form that was not sent by a page of this server.

        A bearer token needs no further check, because browsers do not add one automatically. :raises Refused:
        with the reason.
        """
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
            raise Refused(403, "the request comes from another site; nothing was done")
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise Refused(403, "the request comes from another site; nothing was done")
        if request.headers.get("authorization", "").lower().startswith("bearer "):
            return
        cookie = request.cookies.get(COOKIE)
        if cookie is None:
            raise Refused(403, "the browser sent no cookie; allow cookies and reload the page")
        if not hmac.compare_digest(form.get(FIELD, "").encode(), self.token(cookie).encode()):
            raise Refused(403, "the page is older than the server; reload it and try again")


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form.

    :raises Refused: if it is too large or not a form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/x-www-form-urlencoded":
        raise Refused(
            415, f"got the content type {printable(kind)!r}; send application/x-www-form-urlencoded"
        )
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES:
            raise Refused(413, f"the form has more than {FORM_BYTES:,} bytes")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=FORM_FIELDS, errors="strict")
    except ValueError as error:
        raise Refused(400, "the form cannot be read") from error
    return {name: values[-1] for name, values in fields.items()}
