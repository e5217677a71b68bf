"""Mistakes of jobs that do several items at a time, as coroutines and as threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import fakeredis
from sqlalchemy import func, insert, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

from harness import Enumerator, IterationJob, attribute, every, items, with_transaction
from harness.stores.sql import SqlStore
from tests.planted import shop
from tests.planted.shop import Payment

NUMBERS = (1, 2, 3, 4)


class Several(IterationJob, abstract=True):
    """Goes through some invoices, three at a time."""

    concurrency = 3
    durability = every(items=1)

    def build_enumerator(self, *, cursor: Any) -> Enumerator[int]:
        """Go through the invoices."""
        return items(NUMBERS, cursor=cursor)


def client() -> fakeredis.FakeAsyncRedis:
    """Connect to the shop's Redis."""
    return fakeredis.FakeAsyncRedis(server=shop.server())


# Coroutines.


class CustomersInAString(Several):
    """Reads the customers who paid, and writes them back with one more."""

    async def each_iteration(self, number: int) -> None:
        """Note one."""
        async with client() as redis:
            before = await redis.get("paid") or b""
            names = {*before.split(), str(number).encode()}
            await redis.set("paid", b" ".join(sorted(names)))  # mistake


class CustomersInASet(Several):
    """Adds one to a set in Redis."""

    async def each_iteration(self, number: int) -> None:
        """Note one."""
        async with client() as redis:
            await redis.sadd("paid", number)


class CustomersUnderALock(Several):
    """Reads and writes while no other item of this process does."""

    async def each_iteration(self, number: int) -> None:
        """Note one."""
        self.lock = getattr(self, "lock", None) or asyncio.Lock()
        async with client() as redis, self.lock:
            before = await redis.get("paid") or b""
            names = {*before.split(), str(number).encode()}
            await redis.set("paid", b" ".join(sorted(names)))


class StateInSelf(Several):
    """Keeps the item where the others keep theirs."""

    async def each_iteration(self, number: int) -> None:
        """Copy one."""
        self.number = number
        async with client() as redis:
            amount = await redis.exists(f"amount {number}")
            await redis.set(f"copy {self.number}", 10 * amount + self.number)  # mistake


class StateInAVariable(Several):
    """Keeps the item for itself."""

    async def each_iteration(self, number: int) -> None:
        """Copy one."""
        async with client() as redis:
            amount = await redis.exists(f"amount {number}")
            await redis.set(f"copy {number}", 10 * amount + number)


class KeyBeforeEffect(Several):
    """Takes the key of an item, and then does it."""

    async def each_iteration(self, number: int) -> None:
        """Send one."""
        async with client() as redis:
            if await redis.set(f"key {number}", 1, nx=True):
                await redis.sadd("sent", number)  # mistake


class KeyWithEffect(Several):
    """Takes the key together with the effect."""

    async def each_iteration(self, number: int) -> None:
        """Send one."""
        async with client() as redis, redis.pipeline() as pipe:
            pipe.set(f"key {number}", 1)
            pipe.sadd("sent", number)
            await pipe.execute()


class SumBeforeAWait(Several):
    """Adds to a sum that it read before it waited."""

    total = attribute(default=0)

    async def each_iteration(self, number: int) -> None:
        """Add one."""
        before = self.total
        async with client() as redis:
            amount = int(await redis.get(f"amount {number}") or 10)  # mistake
        self.total = before + amount

    async def on_complete(self) -> None:
        """Write the sum."""
        async with client() as redis:
            await redis.set("sum", self.total)  # mistake


class SumAfterTheWait(SumBeforeAWait):
    """Reads and writes the sum with no wait in between."""

    async def each_iteration(self, number: int) -> None:
        """Add one."""
        async with client() as redis:
            amount = int(await redis.get(f"amount {number}") or 10)
        self.total += amount


class SumAcrossASleep(SumBeforeAWait):
    """Sleeps between the two."""

    async def each_iteration(self, number: int) -> None:
        """Add one."""
        before = self.total
        await asyncio.sleep(0.01)  # mistake
        self.total = before + number


class SumAfterASleep(SumBeforeAWait):
    """Sleeps before."""

    async def each_iteration(self, number: int) -> None:
        """Add one."""
        await asyncio.sleep(0.01)
        self.total += number


@asynccontextmanager
async def session() -> AsyncIterator[AsyncSession]:
    """Open a session of an item."""
    engine = create_async_engine(shop.engine().url.set(drivername="sqlite+aiosqlite"), poolclass=NullPool)
    async with AsyncSession(engine, expire_on_commit=False) as found:
        yield found
    await engine.dispose()


class RowsAfterALook(Several):
    """Pays for a customer if nothing was paid yet."""

    async def each_iteration(self, number: int) -> None:
        """Pay one."""
        customer = (number + 1) // 2
        async with session() as found:
            if not await found.scalar(select(func.count(Payment.id)).where(Payment.invoice_id == customer)):
                await found.execute(insert(Payment).values(invoice_id=customer, cents=1))  # mistake
                await found.commit()


class RowsByTheirKey(Several):
    """Lets the database refuse the second payment for a customer."""

    async def each_iteration(self, number: int) -> None:
        """Pay one."""
        customer = (number + 1) // 2
        row = sqlite.insert(Payment).values(invoice_id=customer, cents=1, key=str(customer))
        async with session() as found:
            await found.execute(row.on_conflict_do_nothing())
            await found.commit()


class Coroutines(Several):
    """Commits each item with its completion."""

    durability = with_transaction()

    @classmethod
    def progress_store(cls) -> SqlStore:
        """Keep progress where the work is."""
        store = SqlStore(shop.engine())
        store.create()
        return store

    def new_session(self) -> Any:
        """Open a session of an item."""
        url = shop.engine().url.set(drivername="sqlite+aiosqlite")
        return AsyncSession(create_async_engine(url, poolclass=NullPool), expire_on_commit=False)

    async def each_iteration(self, number: int) -> None:
        """Pay one."""
        async with self.transaction() as found:
            await found.execute(insert(Payment).values(invoice_id=number, cents=1))


class Posts(Several):
    """Appends to a list, which is not the same when it is done again."""

    async def each_iteration(self, number: int) -> None:
        """Post one."""
        async with client() as redis:
            await redis.rpush("posted", number)


# Threads.


class Threads(Coroutines):
    """Does the same in threads."""

    def new_session(self) -> Any:
        """Open a session of an item."""
        return shop.session()

    def each_iteration(self, number: int) -> None:  # type: ignore[override]  # plain this time
        """Pay one."""
        with self.transaction() as found:
            found.execute(insert(Payment).values(invoice_id=number, cents=1))


class PostsInThreads(Several):
    """Appends to a list, which is not the same when it is done again."""

    def each_iteration(self, number: int) -> None:
        """Post one."""
        shop.redis().rpush("posted", number)


class NumbersInAString(Several):
    """Reads the numbers, and writes them back with one more."""

    def each_iteration(self, number: int) -> None:
        """Note one."""
        redis = shop.redis()
        before = redis.get("numbers") or b""
        names = {*before.split(), str(number).encode()}
        redis.set("numbers", b" ".join(sorted(names)))  # mistake


class NumbersUnderALock(Several):
    """Reads and writes while no other thread of this process does."""

    lock = threading.Lock()

    def each_iteration(self, number: int) -> None:
        """Note one."""
        redis = shop.redis()
        with self.lock:
            before = redis.get("numbers") or b""
            names = {*before.split(), str(number).encode()}
            redis.set("numbers", b" ".join(sorted(names)))


class InvoiceInSelf(Several):
    """Keeps the invoice in an attribute of the job."""

    def each_iteration(self, number: int) -> None:
        """Pay one."""
        self.invoice = number
        with shop.session() as session:
            session.get(shop.Total, "sum")
            shop.pay_once(session, self.invoice)  # mistake


class InvoiceInAVariable(Several):
    """Keeps it in a variable."""

    def each_iteration(self, number: int) -> None:
        """Pay one."""
        with shop.session() as session:
            session.get(shop.Total, "sum")
            shop.pay_once(session, number)


class TotalReadByThreads(Several):
    """Reads what is paid, and writes it as the total."""

    def each_iteration(self, number: int) -> None:
        """Pay one."""
        with shop.session() as session:
            if shop.pay_once(session, number):
                paid = session.query(shop.Payment).count()
                shop.set_total(session, "sum", paid)  # mistake


class TotalAtTheEnd(Several):
    """Writes it when all are done."""

    def each_iteration(self, number: int) -> None:
        """Pay one."""
        with shop.session() as session:
            shop.pay_once(session, number)

    def on_complete(self) -> None:
        """Write the total."""
        with shop.session() as session:
            shop.set_total(session, "sum", session.query(shop.Payment).count())


class NumbersInASet(Several):
    """Adds one to a set in Redis."""

    def each_iteration(self, number: int) -> None:
        """Note one."""
        shop.redis().sadd("numbers", number)
