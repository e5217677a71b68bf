"""Statements that are compiled once for a dialect, and then sent unchanged.

SQLAlchemy looks up each statement in its cache at each execution, and visits the whole statement to do so. A save is
the same statement for each item, so this look-up is most of its cost. If an engine has no listeners for statements, a
save uses the driver's cursor. SQLAlchemy handles errors of that cursor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Prepared:
    """Statement without results.

    :param statement: statement of SQLAlchemy's core with named parameters.
    """

    def __init__(self, statement: sa.Update) -> None:
        self.statement = statement
        self._ready: tuple[sa.Dialect, str, Callable[[Mapping[str, Any]], Any]] | None = None

    def run(self, connection: sa.Connection, values: Mapping[str, Any]) -> int:
        """Execute it, and return the number of changed rows."""
        if connection.get_execution_options().get("schema_translate_map"):
            return connection.execute(self.statement, dict(values)).rowcount
        ready = self._ready
        if ready is None or ready[0] is not connection.dialect:
            ready = self._ready = self._compile(connection.dialect)
        if is_watched(connection):
            return connection.exec_driver_sql(ready[1], ready[2](values)).rowcount
        return _send(connection, ready[1], ready[2](values))

    def _compile(self, dialect: sa.Dialect) -> tuple[sa.Dialect, str, Callable[[Mapping[str, Any]], Any]]:
        compiled: Any = self.statement.compile(dialect=dialect)
        constants = compiled.construct_params(_check=False)
        if not compiled.positional:
            return dialect, str(compiled), lambda values: {**constants, **values}
        names = tuple(compiled.positiontup)
        return dialect, str(compiled), lambda values: tuple({**constants, **values}[name] for name in names)


def is_watched(connection: Any) -> bool:
    """Return whether the connection's statements have listeners or are logged; SQLAlchemy has no public name."""
    return bool(
        connection._has_events  # noqa: SLF001
        or connection.engine._has_events  # noqa: SLF001
        or connection.dialect._has_events  # noqa: SLF001
        or connection._echo  # noqa: SLF001
    )


def _send(connection: Any, text: str, parameters: Any) -> int:
    """Execute a statement of an open transaction with the driver's cursor.

    The owner of the statement describes what a crash or a lost answer means.
    """
    cursor = None
    try:
        cursor = connection.connection.cursor()
        connection.dialect.do_execute(cursor, text, parameters)
        changed: int = cursor.rowcount
        cursor.close()
    except BaseException as error:  # noqa: BLE001 - SQLAlchemy converts and raises the error
        connection._handle_dbapi_exception(error, text, parameters, cursor, None)  # noqa: SLF001
    return changed
