"""Databases of engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    import sqlalchemy as sa


def refuse_async(engine: sa.Engine) -> None:
    """Refuse an engine of an async driver, which a store cannot use because it saves with plain calls.

    :raises UsageError: if it is one.
    """
    if engine.dialect.is_async:
        raise UsageError(
            "SqlStore takes a plain engine; got one of an async driver, while saves are plain calls; give it "
            "create_engine() on the same database, such as postgresql+psycopg or sqlite"
        )


def is_same(one: sa.Engine, other: sa.Engine) -> bool:
    """Return whether two engines use one database; two drivers name it with different options."""
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
