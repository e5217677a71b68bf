"""Tables for :mod:`harness.sources.keyset`, on SQLite and PostgreSQL: keys of every kind, many equal values."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from tests.databases import empty_database
from tests.greenlets import EVERY_KIND, as_asked, session_on


class Status(enum.StrEnum):
    """Status of an order."""

    NEW = "new"
    PAID = "paid"


class Utc(sa.TypeDecorator[datetime]):
    """A moment, stored without its zone."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Take the zone off; what has none already is a mistake."""
        if value is None or value.tzinfo is None:
            raise ValueError(f"a moment needs a zone, found {value!r}")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Put the zone on."""
        return value and value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Base of the tables of this module."""


class Customer(Base):
    """A table with a unique column."""

    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    city: Mapped[str]
    orders: Mapped[list[Order]] = relationship(back_populates="customer")


class Order(Base):
    """A table with columns of all kinds, most with few values."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(sa.ForeignKey(Customer.id))
    token: Mapped[uuid.UUID] = mapped_column(unique=True)
    status: Mapped[Status]
    amount: Mapped[Decimal] = mapped_column(sa.Numeric(10, 2))
    due: Mapped[date]
    placed: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    seen: Mapped[datetime] = mapped_column(Utc)
    created: Mapped[datetime] = mapped_column(server_default=sa.func.now())
    note: Mapped[str | None]
    weight: Mapped[float]
    customer: Mapped[Customer] = relationship(back_populates="orders")
    lines: Mapped[list[Line]] = relationship()


class Line(Base):
    """A table with a composite key."""

    __tablename__ = "lines"
    order_id: Mapped[int] = mapped_column(sa.ForeignKey(Order.id), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    article: Mapped[str]


class Ticket(Base):
    """A table with a key that is a UUID."""

    __tablename__ = "tickets"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)


class Party(Base):
    """A table in which two classes live, the other one being :class:`Firm`."""

    __tablename__ = "parties"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "party"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]


class Firm(Party):
    """A class without a table of its own."""

    __mapper_args__ = {"polymorphic_identity": "firm"}  # noqa: RUF012


class Staff(Party):
    """A class with a table of its own, which joins its parent's."""

    __tablename__ = "staff"
    __mapper_args__ = {"polymorphic_identity": "staff"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(sa.ForeignKey(Party.id), primary_key=True)
    rank: Mapped[int]


def fill(session: Session, orders: int) -> None:
    """Write *orders* orders in scattered order, 3 customers and 0 to 2 lines an order, with many equal values."""
    start = datetime(2026, 3, 29, 0, 59, 59, 999_990, tzinfo=UTC)
    session.add_all(Customer(id=n, email=f"{n}@x.org", city="AB"[n % 2]) for n in range(3))
    session.flush()
    for n in sorted(range(orders), key=lambda n: n * 7 % 11):
        order = Order(
            id=n,
            customer_id=n % 3,
            token=uuid.uuid5(uuid.NAMESPACE_OID, str(n)),
            status=list(Status)[n % 2],
            amount=Decimal(n % 4) / 10,
            due=date(2026, 2, 27) + timedelta(days=n % 3),
            placed=(start + timedelta(microseconds=n % 5 * 5)).astimezone(timezone(timedelta(hours=n % 3))),
            seen=start + timedelta(microseconds=n % 4 * 5),
            weight=n / 3,
        )
        if n % 3:
            # Without a server default, and so in another form than CURRENT_TIMESTAMP on SQLite.
            order.created = datetime(2100, 1, 1, 0, 0, n % 2)  # noqa: DTZ001
        order.lines = [Line(place=place, article="ab"[place % 2]) for place in range(n % 3)]
        session.add(order)
        session.add(Ticket(id=uuid.uuid5(uuid.NAMESPACE_URL, str(n))))
        session.add((Firm if n % 2 else Staff)(id=n, **({} if n % 2 else {"rank": n % 3})))
    session.commit()


@contextmanager
def tables(request: pytest.FixtureRequest, folder: Path) -> Iterator[sa.Engine]:
    """Make the empty tables of this module, in a database of the kind that the fixture's parameter names."""
    with empty_database(request, folder, "-ctimezone=Europe/Berlin") as engine:
        Base.metadata.create_all(engine)
        yield as_asked(engine, request)


@pytest.fixture(params=EVERY_KIND)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """Return an engine with the empty tables of this module."""
    with tables(request, tmp_path) as engine:
        yield engine


@pytest.fixture
def session(engine: sa.Engine) -> Iterator[Session]:
    """Return a session of the empty database."""
    with session_on(engine) as session:
        yield session


@pytest.fixture
def queries(engine: sa.Engine) -> list[tuple[str, Any]]:
    """Return the list to which every statement that the database gets is added, with its parameters."""
    found: list[tuple[str, Any]] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *given: found.append(given[2:4]))
    return found
