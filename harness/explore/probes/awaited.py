"""Connections of async drivers under SQLAlchemy: aiosqlite, asyncpg and psycopg.

The probe of plain drivers (:mod:`.sql`) sees their statements and commits, in the greenlet in which SQLAlchemy runs
them. A crash closes the connections from outside of the event loop, which may be closed by then.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

JOIN_SECONDS = 5.0
"""Seconds to wait for the thread of a connection of aiosqlite, which may be in a statement."""


class Awaited:
    """Connection of an async driver, in the form that the exploration uses.

    :param driver: the driver's connection.
    """

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        # A connection of aiosqlite contains one of sqlite3, in its own thread.
        self.dbapi_connection = self.driver_connection = getattr(driver, "_connection", None) or driver

    def crash(self) -> None:
        """Close it as a crash would: the database rolls back uncommitted work."""
        with suppress(Exception):  # a connection that cannot be closed counts as closed
            _CLOSED[type(self._driver).__module__.partition(".")[0]](self._driver)


def seen(connection: Any) -> Any:
    """Return a pooled connection in the form that the exploration uses."""
    driver = getattr(connection, "driver_connection", None)
    return (
        Awaited(driver)
        if type(driver).__module__.partition(".")[0] in _CLOSED and _waits(driver)
        else connection
    )


def _waits(driver: Any) -> bool:
    return type(driver).__name__ != "Connection" or type(driver).__module__.partition(".")[0] != "psycopg"


def _close_aiosqlite(driver: Any) -> None:
    driver.stop()  # which closes the plain connection in its thread
    driver._thread.join(JOIN_SECONDS)  # noqa: SLF001 - the lock of the file is held until then


def _close_asyncpg(driver: Any) -> None:
    # The transport would close the socket in a turn of the loop.
    driver._transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)  # noqa: SLF001 - there is no public way
    driver.terminate()


def _close_psycopg(driver: Any) -> None:
    driver.pgconn.finish()


_CLOSED: Mapping[str, Callable[[Any], None]] = {
    "aiosqlite": _close_aiosqlite, "asyncpg": _close_asyncpg, "psycopg": _close_psycopg,
}  # fmt: skip
