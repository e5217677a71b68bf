"""A small shop: invoices that are to be paid, payments, totals, and a lock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import fakeredis
from sqlalchemy import DateTime, Engine, create_engine, event, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

INVOICES = 8
SUMMER = timezone(timedelta(hours=2))


class Base(DeclarativeBase):
    """Base of all tables."""


class Invoice(Base):
    """Invoices to pay; two of each customer."""

    __tablename__ = "invoices"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[int]
    cents: Mapped[int]
    status: Mapped[str] = mapped_column(default="pending")
    issued_at: Mapped[datetime] = mapped_column(DateTime)
    touched_at: Mapped[datetime] = mapped_column(DateTime)


class Payment(Base):
    """Payments made."""

    __tablename__ = "payments"

    id: Mapped[int] = mapped_column(primary_key=True)
    invoice_id: Mapped[int]
    cents: Mapped[int]
    key: Mapped[str | None] = mapped_column(unique=True)


class Total(Base):
    """A sum, by name."""

    __tablename__ = "totals"

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int]


class Lock(Base):
    """Another execution is at work."""

    __tablename__ = "locks"

    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]


class Archived(Base):
    """An invoice that was moved away."""

    __tablename__ = "archive"

    invoice_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    cents: Mapped[int]


_engines: dict[str, Engine] = {}
_servers: dict[str, fakeredis.FakeServer] = {}


def open_shop(path: str) -> None:
    """Make a database with pending invoices, the one that :func:`session` leads to from now on."""
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA journal_mode=WAL"))
    _engines["shop"] = engine
    _servers["shop"] = fakeredis.FakeServer()
    Base.metadata.create_all(engine)
    start = datetime(2024, 6, 1, 6, tzinfo=UTC).replace(tzinfo=None)
    with Session(engine) as session:
        for number in range(1, INVOICES + 1):
            issued = start + timedelta(minutes=40 * number)
            session.add(
                Invoice(
                    id=number,
                    customer=(number + 1) // 2,
                    cents=100 * number,
                    issued_at=issued,
                    touched_at=start,
                )
            )
        session.add(Total(name="sum", value=0))
        session.commit()


def use(engine: Engine) -> None:
    """Have :func:`session` lead to another database that holds the shop."""
    _engines["shop"] = engine


def close_shop() -> None:
    """Close its connections."""
    _engines.pop("shop").dispose()


def engine() -> Engine:
    """Return the engine of the shop that is open."""
    return _engines["shop"]


def session() -> Session:
    """Open a session."""
    return Session(_engines["shop"], expire_on_commit=False)


def redis() -> fakeredis.FakeRedis:
    """Connect to the shop's Redis."""
    return fakeredis.FakeRedis(server=_servers["shop"])


def server() -> fakeredis.FakeServer:
    """Return the shop's Redis."""
    return _servers["shop"]


def report() -> Path:
    """Return the path of the shop's report."""
    return Path(str(_engines["shop"].url.database)).with_name("report.txt")


def pending(session: Session) -> list[Invoice]:
    """Return the invoices that are still to be paid."""
    return list(session.scalars(select(Invoice).where(Invoice.status == "pending").order_by(Invoice.id)))


def all_ids(session: Session) -> list[int]:
    """Return the ids of all invoices."""
    return list(session.scalars(select(Invoice.id).order_by(Invoice.id)))


def pay_once(session: Session, invoice_id: int) -> bool:
    """Pay an invoice and commit, unless it was paid: the first to mark it pays, in one transaction."""
    mine = session.execute(
        update(Invoice).where(Invoice.id == invoice_id, Invoice.status == "pending").values(status="paid")
    )
    if mine.rowcount:  # type: ignore[attr-defined]
        cents = session.scalar(select(Invoice.cents).where(Invoice.id == invoice_id))
        session.add(Payment(invoice_id=invoice_id, cents=cents))
    session.commit()
    return bool(mine.rowcount)  # type: ignore[attr-defined]


def set_total(session: Session, name: str, value: int) -> None:
    """Write a total and commit; written again it is the same."""
    session.merge(Total(name=name, value=value))
    session.commit()
