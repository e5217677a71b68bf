"""Crash points before and after each SQL statement, commit and rollback of SQLAlchemy.

``before-statement``, ``statement``, ``before-commit`` and ``commit``; a lost answer is a lost connection, as
the database driver reports it. The hooked methods are those of the dialect, the last ones that SQLAlchemy
calls before the driver.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.pool.base import _ConnectionFairy, _ConnectionRecord
from sqlalchemy.util import await_only

from harness.explore.crash import SimulatedProcess, accounted, awaiting, current, in_memory
from harness.explore.probes.awaited import seen
from harness.explore.probes.callers import caller
from harness.explore.probes.patching import patched, with_overrides
from harness.explore.probes.postgres_server import beyond
from harness.explore.turns import other_items, party_here
from harness.stores import prepared

WATCHED = "harness_watched"
"""Attribute of SQLite connections that have their own crash points."""
LOST = "the connection was lost before the answer came"
_IN_NO_TABLE = re.compile(
    r"\s*(?:(?P<attach>ATTACH)\b|(?:CREATE|DROP)\s+(?:VIEW|TRIGGER)\b|PRAGMA\s+(?:\w+\.)?(?:user_version|application_id)\s*[=(])",
    re.IGNORECASE,
)
"""SQLite statements with an effect outside of the tables; for PostgreSQL see :mod:`.postgres_server`."""


def probes() -> AbstractContextManager[None]:
    """Hook the dialects that are loaded, until the block ends."""
    return patched(
        *with_overrides(DefaultDialect, "do_execute", _statement),
        *with_overrides(DefaultDialect, "do_executemany", _statement),
        *with_overrides(DefaultDialect, "do_execute_no_params", _statement),
        *with_overrides(DefaultDialect, "do_commit", _commit),
        *with_overrides(DefaultDialect, "do_rollback", _rollback),
        *with_overrides(DefaultDialect, "do_begin", _quietly),
        *with_overrides(DefaultDialect, "do_ping", _quietly),
        *with_overrides(DefaultDialect, "do_close", _closing),
        *with_overrides(DefaultDialect, "do_terminate", _closing),
        # For every source of a connection: a dialect, or a creator of the application.
        (_ConnectionRecord, "_ConnectionRecord__connect", _quietly),
        (_ConnectionFairy, "_checkout", _checked_out),
        (prepared, "is_watched", _watched),
    )


def _statement(execute: Any) -> Any:
    many = execute.__name__ == "do_executemany"

    @wraps(execute)
    def hooked(dialect: Any, cursor: Any, statement: str, *rest: Any, **named: Any) -> None:
        simulated = current()
        if simulated is None:
            execute(dialect, cursor, statement, *rest, **named)
            return
        # An application that calls the dialect itself may pass no context: then the connection is unknown.
        context = named.get("context", rest[-1] if rest else None)
        connection = getattr(context, "root_connection", None)
        if connection is not None:
            simulated.use(connection.engine, seen(connection.connection))
        elif (pooled := simulated.pooled.get(id(getattr(cursor, "connection", None)))) is not None:
            simulated.use(None, seen(pooled))
        report = beyond if dialect.name == "postgresql" else attaches
        report(simulated, statement)
        if many and connection is not None and commits_alone(connection.connection.driver_connection):
            if dialect.is_async and dialect.name == "sqlite":  # a thread of the driver reads its rows
                what, by = "executemany() commits each row, and no crash is tried between them", caller()
                simulated.unseen("sqlite3", what, by.line if by else "")
            elif not dialect.is_async:
                error = dialect.loaded_dbapi.OperationalError
                rest = (each_committed(simulated, statement, rest[0], error), *rest[1:])
        with _may_await(dialect):
            simulated.reach("before-statement", statement)
        with accounted():
            execute(dialect, cursor, statement, *rest, **named)
        _await_others(dialect)
        simulated.reach("statement", statement, lambda: dialect.loaded_dbapi.OperationalError(LOST))

    return hooked


def commits_alone(raw: Any) -> bool:
    """Return whether a driver's connection now commits after each statement."""
    if isinstance(raw, sqlite3.Connection) or hasattr(raw, "in_transaction"):
        return getattr(raw, "autocommit", False) is True or (
            raw.isolation_level is None and not raw.in_transaction
        )
    return getattr(raw, "autocommit", False) is True


def each_committed(
    simulated: SimulatedProcess, statement: str, rows: Iterable[Any], error: type[Exception]
) -> Iterator[Any]:
    """Yield the rows of ``executemany()`` with a crash point between them, because each row is committed separately.

    A driver requests the next row after it has executed the previous one.
    """
    for number, row in enumerate(rows):
        if number:
            simulated.reach("commit", statement, lambda: error(LOST))
        yield row


def attaches(simulated: SimulatedProcess, statement: str) -> None:
    """Report a statement by which SQLite changes another file, or data outside of the tables."""
    found = _IN_NO_TABLE.match(statement)
    if found is not None:
        by = caller(2)
        what = "ATTACH reaches another database" if found["attach"] else "a definition is not compared"
        simulated.unseen("sqlite3", what, by.line if by else "")


def _commit(commit: Any) -> Any:
    @wraps(commit)
    def hooked(dialect: Any, connection: Any) -> None:
        simulated = current()
        if simulated is None:
            commit(dialect, connection)
            return
        with _may_await(dialect):
            simulated.reach("before-commit", "commit")
        with accounted():
            commit(dialect, connection)
        _await_others(dialect)
        simulated.reach("commit", "commit", lambda: dialect.loaded_dbapi.OperationalError(LOST))

    return hooked


def _may_await(dialect: Any) -> AbstractContextManager[None]:
    return awaiting() if dialect.is_async else nullcontext()


def _await_others(dialect: Any) -> None:
    if dialect.is_async and party_here() is not None:
        await_only(other_items())


def _closing(close: Any) -> Any:
    """Mark the call as watched. After a crash, skip it for an async driver: the crash has closed the connection."""
    quietly = _quietly(close)

    @wraps(close)
    def hooked(dialect: Any, connection: Any) -> None:
        simulated = current()
        if simulated is not None and dialect.is_async:
            simulated.connections.pop(id(seen(connection).dbapi_connection), None)
            if simulated.dead:
                return
        quietly(dialect, connection)

    return hooked


def _rollback(rollback: Any) -> Any:
    @wraps(rollback)
    def hooked(dialect: Any, connection: Any) -> None:
        simulated = current()
        if simulated is not None and simulated.dead:
            return  # the server has rolled back already
        with accounted():
            rollback(dialect, connection)

    return hooked


def _checked_out(checkout: Any) -> Any:
    """Register the connections of pools, which a job may use directly, as watched connections of this process."""

    @wraps(checkout.__func__)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        fairy = checkout.__func__(*args, **kwargs)
        simulated = current()
        if simulated is not None:
            raw = fairy.dbapi_connection
            if isinstance(raw, sqlite3.Connection) and not (hasattr(raw, WATCHED) or in_memory(raw)):
                fairy.invalidate()  # it was in the pool before the exploration, and a new process would not have it
                fairy = checkout.__func__(*args, **kwargs)
            simulated.pooled[id(fairy.dbapi_connection)] = fairy
        return fairy

    return classmethod(hooked)


def _watched(is_watched: Any) -> Any:
    """Make saves use SQLAlchemy's methods, because the driver's cursor does not identify the connection."""

    @wraps(is_watched)
    def hooked(connection: Any) -> bool:
        return current() is not None or bool(is_watched(connection))

    return hooked


def _quietly(call: Any) -> Any:
    """Mark the call that connects as watched; it changes no data."""

    @wraps(call)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        with accounted():
            return call(*args, **kwargs)

    return hooked
