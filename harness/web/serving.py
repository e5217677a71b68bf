"""Server of ``harness web``: uvicorn on a socket that is opened first, so that a port in use is a one-line error."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn

from harness.errors import UsageError
from harness.web.access import is_loopback

if TYPE_CHECKING:
    from starlette.applications import Starlette

GRACE_SECONDS = 5
"""Time limit of open requests at the end, in seconds; streams end immediately."""

BACKLOG = 128


class _Server(uvicorn.Server):
    """Server that ends the streams before it waits for open requests."""

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then shut down the server."""
        self._end_streams()
        await super().shutdown(sockets)


def listen(host: str, port: int, *, protected: bool) -> socket.socket:
    """Return a listening socket.

    :param port: 0 for any free port. :param protected: whether the page requires a login. :raises UsageError:
        if others could reach a page without a login, or the port cannot be used.
    """
    if not protected and not is_loopback(host):
        raise UsageError(
            f"{host} can be reached from other machines; give --token-file or HARNESS_WEB_TOKEN, or listen on 127.0.0.1"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise UsageError(
            f"port {port} of {host} cannot be used: {error}; use another --port, or 0 for a free one"
        ) from None
    listening.listen(BACKLOG)
    return listening


def server_of(app: Starlette) -> uvicorn.Server:
    """Return a server for the page; ``run(sockets=[…])`` serves it until SIGINT or SIGTERM."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, proxy_headers=False, lifespan="off",
        ws="none", timeout_graceful_shutdown=GRACE_SECONDS,
    )  # fmt: skip
    return _Server(config, app.state.feed.close)


def serve(app: Starlette, listening: socket.socket) -> None:
    """Serve the page until SIGINT or SIGTERM."""
    with listening:
        server_of(app).run(sockets=[listening])
