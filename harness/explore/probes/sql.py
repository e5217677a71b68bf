"""Crash points before and after each SQL statement, commit and rollback of SQLAlchemy.

``before-statement``, ``statement``, ``before-commit`` and ``commit``; a lost answer is a lost connection, as the
database driver reports it. Hooked are the methods of the dialect: the last that SQLAlchemy does before the driver.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

from sqlalchemy.engine.default import DefaultDialect

from harness.explore.crash import current
from harness.explore.probes.patching import patched, with_overrides

LOST = "the connection was lost before the answer came"


def probes() -> AbstractContextManager[None]:
    """Hook the dialects that are loaded, until the block ends."""
    return patched(
        *with_overrides(DefaultDialect, "do_execute", _statement),
        *with_overrides(DefaultDialect, "do_executemany", _statement),
        *with_overrides(DefaultDialect, "do_execute_no_params", _statement),
        *with_overrides(DefaultDialect, "do_commit", _commit),
        *with_overrides(DefaultDialect, "do_rollback", _rollback),
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
            life.use(context.root_connection.engine, context.root_connection.connection)
        life.reach("before-statement", statement)
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
        life.reach("before-commit", "commit")
        commit(dialect, connection)
        life.reach("commit", "commit", lambda: dialect.loaded_dbapi.OperationalError(LOST))

    return hooked


def _rollback(rollback: Any) -> Any:
    @wraps(rollback)
    def hooked(dialect: Any, connection: Any) -> None:
        life = current()
        if life is not None and life.dead:
            return  # the server has done it already
        rollback(dialect, connection)

    return hooked
