"""Crash points of connections by ``sqlite3.connect()``, without SQLAlchemy: those of SQL, as in :mod:`.sql`.

A job gets connections of a subclass. Other connections are reported as not seen: those opened before the
exploration, or by a name that the job had imported from ``sqlite3``.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from functools import partial, wraps
from typing import Any

from harness.explore.crash import accounted, current, is_accounted
from harness.explore.probes.patching import patched
from harness.explore.probes.sql import LOST, attaches, commits_alone, each_committed

_ARGUMENTS = ("timeout", "detect_types", "isolation_level", "check_same_thread", "factory")


def probes() -> AbstractContextManager[None]:
    """Hook ``sqlite3.connect``, until the block ends."""
    return patched((sqlite3, "connect", _connect), (sqlite3.dbapi2, "connect", _connect))


def redirect(copies: dict[str, str]) -> None:
    """Make connections lead to copies from now on, except connections by URI or to other files.

    :param copies: the copy by the path of the database.
    """
    _copies.update({os.path.realpath(path): copy for path, copy in copies.items()})


_copies: dict[str, str] = {}


class Direct:
    """Connection of the driver, in the form that the exploration uses."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self.dbapi_connection = self.driver_connection = raw

    def crash(self) -> None:
        """Close it as a crash would: the database rolls back uncommitted work."""
        with suppress(sqlite3.Error):
            sqlite3.Connection.rollback(self.dbapi_connection)
        with suppress(sqlite3.Error):
            sqlite3.Connection.close(self.dbapi_connection)


class _Cursor(sqlite3.Cursor):
    def execute(self, sql: str, *rest: Any) -> Any:
        return _statement(self.connection, sql, lambda: super(_Cursor, self).execute(sql, *rest))

    def executemany(self, sql: str, rows: Any) -> Any:
        simulated = None if is_accounted() else current()
        if simulated is not None and commits_alone(self.connection):
            rows = each_committed(simulated, sql, rows, sqlite3.OperationalError)
        return _statement(self.connection, sql, lambda: super(_Cursor, self).executemany(sql, rows))

    def executescript(self, sql: str) -> Any:
        """Run the statements one by one: each is a commit of its own, unless the script begins a transaction."""
        if is_accounted() or current() is None:
            return super().executescript(sql)
        connection = self.connection
        if connection.in_transaction and getattr(connection, "autocommit", -1) == -1:
            connection.commit()  # like the driver
        for statement in _statements(sql):
            # The driver's executescript() would commit a transaction of the script; its execute() would begin one.
            method = super().execute if connection.in_transaction else super().executescript
            _statement(connection, statement, partial(method, statement), alone=not connection.in_transaction)
        return self


class _Connection(sqlite3.Connection):
    harness_watched = True

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(_Cursor if factory is None else _both(_Cursor, factory))

    # The driver's shortcut methods do not call the cursor's methods.
    def execute(self, sql: str, *rest: Any) -> Any:
        return self.cursor().execute(sql, *rest)

    def executemany(self, sql: str, *rest: Any) -> Any:
        return self.cursor().executemany(sql, *rest)

    def executescript(self, sql: str) -> Any:
        return self.cursor().executescript(sql)

    def commit(self) -> None:
        _reached("commit", "commit", super().commit)

    def rollback(self) -> None:
        simulated = current()
        if simulated is None or not simulated.dead:  # the database has rolled back already
            super().rollback()

    def close(self) -> None:
        simulated = current()
        if simulated is not None:
            simulated.connections.pop(id(self), None)
        super().close()

    def __exit__(self, *error: object) -> Any:
        if error[0] is None:
            self.commit()
        else:
            self.rollback()
        return False


def _statements(script: str) -> Iterator[str]:
    """Split a script into its statements."""
    statement = ""
    for part in re.findall(r"[^;]*;|[^;]+$", script):
        statement += part
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement


def _statement(
    connection: sqlite3.Connection, sql: str, execute: Callable[[], Any], *, alone: bool | None = None
) -> Any:
    simulated = None if is_accounted() else current()
    if simulated is not None:
        simulated.use_raw(connection, Direct)
        attaches(simulated, sql)
    if alone is None:
        alone = commits_alone(connection)
    verb = sql.lstrip()[:8].upper()
    commits = verb.startswith(("COMMIT", "END")) or (
        alone and not verb.startswith(("BEGIN", "SELECT", "PRAGMA"))
    )
    return _reached("commit" if commits else "statement", sql, execute)


def _reached(kind: str, label: str, execute: Callable[[], Any]) -> Any:
    simulated = current()
    if simulated is None or is_accounted():
        return execute()
    simulated.reach(f"before-{kind}", label)
    answer = execute()
    simulated.reach(kind, label, lambda: sqlite3.OperationalError(LOST))
    return answer


def _connect(connect: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(connect)
    def hooked(database: Any, *args: Any, **kwargs: Any) -> Any:
        if _copies and isinstance(database, str | bytes | os.PathLike):
            database = _copies.get(os.path.realpath(os.fsdecode(database)), database)
        simulated = current()
        if simulated is None:
            return connect(database, *args, **kwargs)
        options = {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs}
        if is_accounted():
            # SQLAlchemy's connection. Only direct use by raw_connection() reaches the points below.
            factory = _both(_Connection, options.get("factory"))
            return connect(database, *args[len(_ARGUMENTS) :], **{**options, "factory": factory})
        # Another thread ends a paused worker.
        options |= {"check_same_thread": False, "factory": _both(_Connection, options.get("factory"))}
        connection = _quietly(connect, database, *args[len(_ARGUMENTS) :], **options)
        if _in_memory(connection):
            return connect(database, *args, **kwargs)  # it ends with the process, so it is no external state
        simulated.use(None, Direct(connection))
        return connection

    return hooked


def _quietly(connect: Callable[..., Any], *args: Any, **options: Any) -> Any:
    with accounted():
        return connect(*args, **options)


def _in_memory(connection: Any) -> bool:
    return not sqlite3.Connection.execute(connection, "PRAGMA database_list").fetchone()[2]


def _both(ours: type, theirs: Any) -> type:
    """Return a class with this module's crash points and the driver's methods."""
    if theirs is None or theirs is ours or not isinstance(theirs, type) or issubclass(theirs, ours):
        return theirs if isinstance(theirs, type) and issubclass(theirs, ours) else ours
    base = theirs if issubclass(theirs, ours.__mro__[1]) else ours.__mro__[1]
    return type(theirs.__name__, (ours, base), {})
