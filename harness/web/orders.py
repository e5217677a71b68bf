"""Job of the demo on the page: it pays orders, in three forms, in the SQLite file that HARNESS_DATABASE_URL names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, ForeignKey, Select, create_engine, event, func, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from harness import ContinuableJob, Enumerator, IterationJob, Step, mark, records
from harness.scenario import Effects, Scenario

if TYPE_CHECKING:
    from harness.lab.mailbox import Mailbox

_engines: dict[str, Engine] = {}


class Base(DeclarativeBase):
    """Tables of the demo."""


class Order(Base):
    """Order; it is paid or pending."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    paid: Mapped[bool] = mapped_column(default=False)


class Payment(Base):
    """Charge for an order. The table accepts a second charge, so the job must avoid it."""

    __tablename__ = "payments"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))


def pending() -> Select[Order]:
    """Return the query of the unpaid orders."""
    return select(Order).where(Order.paid.is_(False))


def open_session() -> Session:
    """Open a session on the database of the environment."""
    url = os.environ["HARNESS_DATABASE_URL"]
    if url not in _engines:
        _engines[url] = engine = create_engine(url, connect_args={"timeout": 30})
        event.listen(engine, "connect", _prepare)
    return Session(_engines[url], expire_on_commit=False)


def _prepare(connection: Any, _record: object) -> None:
    # The page reads while the job writes. A killed process loses no commit; only a power failure could lose one.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def pay(session: Session, order: Order) -> None:
    """Charge the customer of an order; the caller commits. A crash before the commit leaves a pending order."""
    mark(f"order {order.id}")
    session.add(order)
    order.paid = True
    session.add(Payment(order_id=order.id))


def plain(order_ids: list[int]) -> None:
    """Pay the orders that were pending when the job was enqueued: an ordinary loop."""
    with open_session() as session:
        for order_id in order_ids:
            pay(session, session.get_one(Order, order_id))
            session.commit()


class OrdersInSteps(ContinuableJob):
    """Job with one step; its cursor is the id of the last paid order."""

    def perform(self) -> None:
        """Run in every execution."""
        with open_session() as self.session:
            self.step("pay")

    def pay(self, step: Step) -> None:
        """Pay the orders after the cursor."""
        if step.total is None:
            step.total = _count(self.session)
        for order, cursor in records(self.session, pending(), cursor=step.cursor):
            with step.transaction() as session:
                pay(session, order)
                step.set(cursor)


class OrdersByIteration(IterationJob):
    """Job with one iteration per order."""

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Hold a session open for an execution."""
        with open_session() as self.session:
            yield

    def build_enumerator(self, *, cursor: Any) -> Enumerator[Order]:
        """Read the pending orders after the cursor."""
        return records(self.session, pending(), cursor=cursor)

    def each_iteration(self, order: Order) -> None:
        """Pay one order."""
        with self.transaction() as session:
            pay(session, order)


def _count(session: Session) -> int:
    return session.scalars(select(func.count()).select_from(pending().subquery())).one()


def _fill(size: str) -> None:
    number = int(size.removeprefix("orders="))
    with open_session() as session:
        Base.metadata.create_all(session.get_bind())
        session.execute(insert(Order), [{"id": each} for each in range(1, number + 1)])
        session.commit()


def _clear() -> None:
    with open_session() as session:
        Base.metadata.drop_all(session.get_bind())


def _ids() -> list[int]:
    with open_session() as session:
        return [*session.scalars(pending().with_only_columns(Order.id).order_by(Order.id))]


def _judge(_mailbox: Mailbox) -> Effects:
    """Count the orders that are pending, and those that were paid more than once."""
    twice = select(Payment.order_id).group_by(Payment.order_id).having(func.count() > 1)
    with open_session() as session:
        duplicated = session.scalars(select(func.count()).select_from(twice.subquery())).one()
        return Effects(lost=_count(session), duplicated=duplicated)


def _close() -> None:
    while _engines:
        _engines.popitem()[1].dispose()


scenario = Scenario(
    name="orders",
    forms={"plain": plain, "steps": OrdersInSteps, "iteration": OrdersByIteration},
    seed=_fill,
    clear=_clear,
    arguments=_ids,
    count=lambda: len(_ids()),
    judge=_judge,
    close=_close,
)
