"""Crash points of HTTP clients that do not use ``http.client``: httpx and aiohttp.

They are optional, and hooked only if they are loaded when an exploration begins. Clients that a job loads
later are reported by their sockets (:mod:`.sockets`).
"""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

from harness.explore.crash import accounted, awaiting, current
from harness.explore.probes.patching import patched
from harness.explore.probes.web import SAFE
from harness.explore.turns import other_items

CLIENTS = ("aiohttp", "httpx")


def probes() -> AbstractContextManager[None]:
    """Hook the clients that are loaded, until the block ends."""
    patches: list[tuple[Any, str, Any]] = []
    httpx, aiohttp = (sys.modules.get(name) for name in ("httpx", "aiohttp"))
    if httpx is not None:
        patches += [
            (httpx.HTTPTransport, "handle_request", _httpx),
            (httpx.AsyncHTTPTransport, "handle_async_request", _httpx_async),
        ]
    if aiohttp is not None:
        patches += [(aiohttp.ClientSession, "_request", _aiohttp)]
    return patched(*patches)


def _httpx(handle: Any) -> Any:
    @wraps(handle)
    def hooked(transport: Any, request: Any) -> Any:
        if current() is None:
            return handle(transport, request)
        method, label = _of_httpx(request)
        _before(method, label, getattr(request, "_content", b""))  # a stream has none before it is sent
        with accounted():
            response = handle(transport, request)
        _after(label, _httpx_lost)
        return response

    return hooked


def _httpx_async(handle: Any) -> Any:
    @wraps(handle)
    async def hooked(transport: Any, request: Any) -> Any:
        if current() is None:
            return await handle(transport, request)
        method, label = _of_httpx(request)
        with awaiting():
            _before(method, label, getattr(request, "_content", b""))  # a stream has none before it is sent
        with accounted():
            response = await handle(transport, request)
        await other_items()
        _after(label, _httpx_lost)
        return response

    return hooked


def _of_httpx(request: Any) -> tuple[str, str]:
    url = request.url
    return request.method, f"{request.method} {url.scheme}://{url.host}{url.raw_path.decode()}"


def _httpx_lost() -> Exception:
    error: Exception = sys.modules["httpx"].RemoteProtocolError(
        "Server disconnected without sending a response."
    )
    return error


def _aiohttp(request: Any) -> Any:
    @wraps(request)
    async def hooked(session: Any, method: str, url: Any, **kwargs: Any) -> Any:
        if current() is None:
            return await request(session, method, url, **kwargs)
        label = f"{method.upper()} {url}"
        with awaiting():
            _before(method.upper(), label, _given(kwargs))
        with accounted():
            response = await request(session, method, url, **kwargs)
        await other_items()
        _after(label, _aiohttp_lost)
        return response

    return hooked


def _given(options: dict[str, Any]) -> bytes:
    """Return the part of a request's body that is plain data."""
    if options.get("json") is not None:
        return json.dumps(options["json"], default=repr).encode()
    data = options.get("data")
    if isinstance(data, bytes):
        return data
    return repr(data).encode() if isinstance(data, str | dict | list | tuple) else b""


def _aiohttp_lost() -> Exception:
    error: Exception = sys.modules["aiohttp"].ServerDisconnectedError()
    return error


def _before(method: str, label: str, body: bytes = b"") -> None:
    simulated = current()
    assert simulated is not None  # noqa: S101 - the callers have looked
    simulated.reach("before-request", label)
    if method not in SAFE:
        simulated.observer.sent("request", label, body)


def _after(label: str, lost: Any) -> None:
    simulated = current()
    if simulated is not None:
        simulated.reach("request", label, lost)
