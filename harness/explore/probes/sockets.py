"""Sockets that no probe watches: their use is reported, with the library that uses them.

After a watched client has connected a socket, or sent through it, the socket belongs to that client.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any
from weakref import WeakSet

from harness.explore.crash import SimulatedProcess, current, is_accounted
from harness.explore.probes.callers import caller
from harness.explore.probes.patching import patched

SENDING = ("send", "sendall", "sendfile")
_known: WeakSet[Any] = WeakSet()


def probes() -> AbstractContextManager[None]:
    """Hook functions that send through an already connected socket, until the block ends."""
    return patched(
        *((socket.socket, name, _sends) for name in SENDING),
        *((ssl.SSLSocket, name, _sends) for name in (*SENDING, "write")),
    )


def used(simulated: SimulatedProcess, event: str, used_socket: Any) -> None:
    """Report the use of a socket, unless it belongs to a watched client."""
    if is_accounted():
        _known.add(used_socket)
    elif used_socket not in _known and not _stays_here(used_socket, event):
        found = caller(2)
        if found is not None:
            name = found.library or "socket"
            simulated.unseen(name, f"{event} through a socket that no probe watches", found.line)


def _sends(send: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(send)
    def hooked(sending: Any, *args: Any, **kwargs: Any) -> Any:
        simulated = current()
        if simulated is not None and not simulated.dead:
            used(simulated, "socket.send", sending)
        return send(sending, *args, **kwargs)

    return hooked


def _stays_here(used_socket: Any, event: str) -> bool:
    """Return whether nothing leaves the process: a socket pair, or a datagram socket that only got an address."""
    if event == "socket.connect":
        return bool(used_socket.type == socket.SOCK_DGRAM)
    try:
        return used_socket.family == socket.AF_UNIX and not used_socket.getpeername()
    except OSError:
        return False
