"""Database setup for the three scenarios, separate from the business rules."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, func

from harness.errors import UsageError
from scenarios import services
from scenarios.models import Base
from scenarios.seed import seed, size_named


def fill(size: str) -> None:
    """Create the tables and the data of a named size in the empty database.

    :raises UsageError: if there is no such size.
    """
    try:
        chosen = size_named(size)
    except ValueError as error:
        raise UsageError(str(error)) from None
    seed(services.engine(), chosen)


def create() -> None:
    """Create the missing tables, without rows."""
    Base.metadata.create_all(services.engine())


def clear() -> None:
    """Drop the tables."""
    Base.metadata.drop_all(services.engine())


def ids(select: Select[Any]) -> list[int]:
    """Return the ids of the rows of a named query, in order."""
    entity = select.column_descriptions[0]["entity"]
    with services.session() as session:
        return list(session.scalars(select.with_only_columns(entity.id).order_by(entity.id)))


def count(session: Any, select: Select[Any]) -> int:
    """Return the number of rows of a named query."""
    counted: int = session.scalar(select.with_only_columns(func.count(), maintain_column_froms=True))
    return counted
