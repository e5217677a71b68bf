"""A scenario of async jobs: payments of orders, one at a time and five at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from harness import IterationJob, items, mark, records
from harness.scenario import Effects, Scenario

ORDERS = 40


class Base(DeclarativeBase):
    """Base of all tables."""


class Order(Base):
    """Orders to pay."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    times_paid: Mapped[int] = mapped_column(default=0)


def url() -> sa.URL:
    """Return the URL of the trial's database."""
    return sa.make_url(os.environ["HARNESS_DATABASE_URL"])


@contextmanager
def plain_session() -> Iterator[Session]:
    """Open a session of the scenario."""
    engine = sa.create_engine(url())
    with Session(engine) as session:
        yield session
    engine.dispose()


def async_session() -> AsyncSession:
    """Return a session of a job."""
    engine = create_async_engine(url().set(drivername="sqlite+aiosqlite"), poolclass=sa.NullPool)
    return AsyncSession(engine, expire_on_commit=False)


class OneAtATime(IterationJob):
    """Pays orders that an async session reads."""

    @asynccontextmanager
    async def around_iterate(self) -> AsyncIterator[None]:
        """Hold a session."""
        async with async_session() as self.session:
            yield

    def build_enumerator(self, *, cursor: Any) -> Any:
        """Go through the orders."""
        return records(self.session, Order, cursor=cursor)

    async def each_iteration(self, order: Order) -> None:
        """Pay one."""
        mark(f"order {order.id}")
        await asyncio.sleep(0.005)
        async with self.transaction():
            order.times_paid += 1


class FiveAtATime(IterationJob):
    """Pays five orders at a time, each in a session of its own."""

    concurrency = 5

    def new_session(self) -> AsyncSession:
        """Open a session of an item."""
        return async_session()

    def build_enumerator(self, *, cursor: Any) -> Any:
        """Go through the orders."""
        return items(range(1, ORDERS + 1), cursor=cursor)

    async def each_iteration(self, number: int) -> None:
        """Pay one."""
        mark(f"order {number}")
        await asyncio.sleep(0.005)
        paid = sa.update(Order).where(Order.id == number).values(times_paid=Order.times_paid + 1)
        async with self.transaction() as session:
            await session.execute(paid)


def seed(_size: str) -> None:
    """Fill the database."""
    with plain_session() as session:
        Base.metadata.create_all(session.get_bind())
        session.add_all(Order() for _ in range(ORDERS))
        session.commit()


def clear() -> None:
    """Empty it."""
    with plain_session() as session:
        Base.metadata.drop_all(session.get_bind())


def judge(_mailbox: object) -> Effects:
    """Count the payments of each order."""
    with plain_session() as session:
        paid = list(session.scalars(sa.select(Order.times_paid)))
    return Effects(lost=paid.count(0), duplicated=sum(times > 1 for times in paid))


def scenario(job: type[IterationJob]) -> Scenario:
    """Return the scenario of a job."""
    return Scenario(
        name=job.__name__, forms={"iteration": job}, seed=seed, clear=clear, arguments=list, count=lambda: ORDERS,
        judge=judge, close=lambda: None,
    )  # fmt: skip


ONE, FIVE = scenario(OneAtATime), scenario(FiveAtATime)
