"""Databases of engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    import sqlalchemy as sa


def refuse_async(engine: sa.Engine) -> None:
    """Refuse an engine with an async driver: the store saves with plain calls.

    :raises UsageError: if the driver is async.
    """
    if engine.dialect.is_async:
        raise UsageError(
            "SqlStore takes a plain engine; got one of an async driver; use create_engine() on the same database, "
            "such as postgresql+psycopg or sqlite"
        )


def is_same(one: sa.Engine, other: sa.Engine) -> bool:
    """Return whether two engines use the same database, also with different drivers and options."""
    if one.dialect.driver == other.dialect.driver:
        return one.url == other.url
    return _place(one) == _place(other)


def named(engine: sa.Engine) -> str:
    """Return a name of a database without secrets."""
    return f"{engine.url.get_backend_name()} database {engine.url.database!r}"


def _place(engine: sa.Engine) -> tuple[str, str | None, int | None, str | None]:
    url = engine.url
    host = url.host or str(url.query.get("host", "")) or None
    return url.get_backend_name(), host, url.port, url.database
