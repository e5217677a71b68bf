"""Crash points before and after each SQL statement, commit and rollback of SQLAlchemy.

``before-statement``, ``statement``, ``before-commit`` and ``commit``; a lost answer is a lost connection, as
the database driver reports it. The hooked methods are those of the dialect, the last ones that SQLAlchemy
calls before the driver.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.pool.base import _ConnectionRecord

from harness.explore.crash import accounted, awaiting, current
from harness.explore.probes.awaited import seen
from harness.explore.probes.patching import patched, with_overrides
from harness.stores import prepared

LOST = "the connection was lost before the answer came"


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
        # For every origin of a connection: a dialect, or a creator of the application.
        (_ConnectionRecord, "_ConnectionRecord__connect", _quietly),
        (prepared, "is_watched", _watched),
    )


def _statement(execute: Any) -> Any:
    @wraps(execute)
    def hooked(dialect: Any, cursor: Any, statement: str, *rest: Any) -> None:
        life = current()
        if life is None:
            execute(dialect, cursor, statement, *rest)
            return
        context = rest[-1]
        if context is not None:
            life.use(context.root_connection.engine, seen(context.root_connection.connection))
        with _may_await(dialect):
            life.reach("before-statement", statement)
        with accounted():
            execute(dialect, cursor, statement, *rest)
        life.reach("statement", statement, lambda: dialect.loaded_dbapi.OperationalError(LOST))

    return hooked


def _commit(commit: Any) -> Any:
    @wraps(commit)
    def hooked(dialect: Any, connection: Any) -> None:
        life = current()
        if life is None:
            commit(dialect, connection)
            return
        with _may_await(dialect):
            life.reach("before-commit", "commit")
        with accounted():
            commit(dialect, connection)
        life.reach("commit", "commit", lambda: dialect.loaded_dbapi.OperationalError(LOST))

    return hooked


def _may_await(dialect: Any) -> AbstractContextManager[None]:
    return awaiting() if dialect.is_async else nullcontext()


def _closing(close: Any) -> Any:
    """Mark it as watched. Of an async driver nothing is asked after that, and a crash has closed it already."""
    quietly = _quietly(close)

    @wraps(close)
    def hooked(dialect: Any, connection: Any) -> None:
        life = current()
        if life is not None and dialect.is_async:
            life.connections.pop(id(seen(connection).dbapi_connection), None)
            if life.dead:
                return
        quietly(dialect, connection)

    return hooked


def _rollback(rollback: Any) -> Any:
    @wraps(rollback)
    def hooked(dialect: Any, connection: Any) -> None:
        life = current()
        if life is not None and life.dead:
            return  # the server has done it already
        with accounted():
            rollback(dialect, connection)

    return hooked


def _watched(is_watched: Any) -> Any:
    """Make saves use SQLAlchemy's methods: the driver's cursor alone does not identify the connection."""

    @wraps(is_watched)
    def hooked(connection: Any) -> bool:
        return current() is not None or bool(is_watched(connection))

    return hooked


def _quietly(call: Any) -> Any:
    """Mark connecting, which changes nothing, as watched."""

    @wraps(call)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        with accounted():
            return call(*args, **kwargs)

    return hooked
