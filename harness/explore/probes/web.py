"""Crash points around HTTP requests: ``before-request`` and ``request``.

It hooks ``http.client``, which urllib, requests and urllib3 use. Requests are really sent, so the server must
belong to the test. Requests with safe methods, such as GET, are points, but not effects.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import wraps
from http.client import HTTPConnection, RemoteDisconnected
from typing import Any

from harness.explore.crash import accounted, current
from harness.explore.probes.patching import patched, with_overrides

SAFE = {"GET", "HEAD", "OPTIONS", "TRACE"}


def probes() -> AbstractContextManager[None]:
    """Hook the client, until the block ends."""
    return patched(
        (HTTPConnection, "putrequest", _begin),
        (HTTPConnection, "endheaders", _send),
        (HTTPConnection, "getresponse", _answer),
        *with_overrides(HTTPConnection, "connect", _watched),
        *with_overrides(HTTPConnection, "send", _collected),
    )


def _begin(put: Any) -> Any:
    @wraps(put)
    def hooked(connection: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        connection.harness_request = method, f"{method} http://{connection.host}{url}"
        connection.harness_sent = []
        return put(connection, method, url, *args, **kwargs)

    return hooked


def _send(send: Any) -> Any:
    @wraps(send)
    def hooked(connection: Any, *args: Any, **kwargs: Any) -> Any:
        simulated = current()
        if simulated is not None:
            simulated.reach("before-request", connection.harness_request[1])
        with accounted():
            return send(connection, *args, **kwargs)

    return hooked


def _watched(call: Any) -> Any:
    @wraps(call)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        with accounted():
            return call(*args, **kwargs)

    return hooked


def _collected(send: Any) -> Any:
    """Record the sent bytes. A subclass calls its base class, so only the outer call counts."""

    @wraps(send)
    def hooked(connection: Any, data: Any) -> Any:
        sent, outer = (
            getattr(connection, "harness_sent", None),
            not getattr(connection, "harness_sends", False),
        )
        if sent is not None and outer and isinstance(data, bytes) and current() is not None:
            sent.append(data)
        connection.harness_sends = True
        try:
            with accounted():
                return send(connection, data)
        finally:
            connection.harness_sends = not outer

    return hooked


def _answer(receive: Any) -> Any:
    @wraps(receive)
    def hooked(connection: Any) -> Any:
        simulated = current()
        if simulated is None:
            return receive(connection)
        method, label = connection.harness_request
        if method not in SAFE:
            # The sent bytes: the headers up to the first empty line, and the body.
            body = b"".join(connection.harness_sent).partition(b"\r\n\r\n")[2]
            simulated.observer.sent("request", label, body)
        response = receive(connection)
        simulated.reach(
            "request", label, lambda: RemoteDisconnected("Remote end closed connection without response")
        )
        return response

    return hooked
