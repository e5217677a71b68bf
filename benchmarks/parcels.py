"""The table that keyset reading is measured on."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Base of the table."""


class Parcel(Base):
    """A row of five columns."""

    __tablename__ = "parcels"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[int]
    status: Mapped[str]
    street: Mapped[str]
    grams: Mapped[int]


def database(folder: Path, rows: int) -> str:
    """Return the URL of a SQLite file in *folder* with this many rows, with ids from 1."""
    url = f"sqlite:///{folder / 'parcels.db'}"
    engine = sa.create_engine(url)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            "INSERT INTO parcels SELECT i, i % 97, 'new', 'Street ' || i, i FROM n",
            (rows,),
        )
    engine.dispose()
    return url
