"""Statements that are compiled once for a dialect, and then sent as they are.

SQLAlchemy looks a statement up in its cache at each execution, for which it walks through all of it. A save is the same
statement for each item, so that this is most of what it costs.
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
        return connection.exec_driver_sql(ready[1], ready[2](values)).rowcount

    def _compile(self, dialect: sa.Dialect) -> tuple[sa.Dialect, str, Callable[[Mapping[str, Any]], Any]]:
        compiled: Any = self.statement.compile(dialect=dialect)
        constants = compiled.construct_params(_check=False)
        if not compiled.positional:
            return dialect, str(compiled), lambda values: {**constants, **values}
        names = tuple(compiled.positiontup)
        return dialect, str(compiled), lambda values: tuple({**constants, **values}[name] for name in names)
