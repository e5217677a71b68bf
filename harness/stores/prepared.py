"""Statements that are compiled once for a dialect, and then sent as they are.

SQLAlchemy looks a statement up in its cache at each execution, for which it walks through all of it. A save is the same
statement for each item, so that this is most of what it costs. Where nothing listens to the statements of an engine,
a save goes to the driver's cursor; an error takes SQLAlchemy's own way from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Prepared:
    """A statement without results.

    :param statement: of SQLAlchemy's core; all its parameters are named.
    """

    def __init__(self, statement: sa.Update) -> None:
        self.statement = statement
        self._ready: tuple[sa.Dialect, str, Callable[[Mapping[str, Any]], Any]] | None = None

    def run(self, connection: sa.Connection, values: Mapping[str, Any]) -> int:
        """Execute it, and return the number of rows that it has changed."""
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
    """Return whether somebody listens to statements of the connection or logs them; SQLAlchemy has no public name."""
    return bool(
        connection._has_events  # noqa: SLF001
        or connection.engine._has_events  # noqa: SLF001
        or connection.dialect._has_events  # noqa: SLF001
        or connection._echo  # noqa: SLF001
    )


def _send(connection: Any, text: str, parameters: Any) -> int:
    """Execute a statement of an open transaction by the driver's cursor.

    Nothing is decided here: what a death or a lost answer means is said where the statement belongs to.
    """
    cursor = None
    try:
        cursor = connection.connection.cursor()
        connection.dialect.do_execute(cursor, text, parameters)
        changed: int = cursor.rowcount
        cursor.close()
    except BaseException as error:  # noqa: BLE001 - it raises: the error that SQLAlchemy makes of it
        connection._handle_dbapi_exception(error, text, parameters, cursor, None)  # noqa: SLF001
    return changed
