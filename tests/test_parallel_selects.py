"""Several instances share the rows of a select: each row once, by whatever key."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from harness import (
    Enumerator,
    InlineRun,
    IterationJob,
    JobDefinitionError,
    parallel_batches,
    parallel_records,
    with_transaction,
)
from harness.stops import Every
from harness.stores.sql import SqlStore
from scenarios import services
from scenarios.models import Base, Customer, Order, Payment
from tests.jobs import DONE, Dead


class Tables(DeclarativeBase):
    """The table of this module."""


class Row(Tables):
    """A row with keys of several kinds."""

    __tablename__ = "shared_rows"

    id: Mapped[int] = mapped_column(primary_key=True)
    group: Mapped[str]
    token: Mapped[uuid.UUID] = mapped_column(unique=True)


KEYS: dict[str, Any] = {
    "primary key": None,
    "descending": [Row.id.desc()],
    "composite": [Row.group, Row.id.desc()],
    "uuid": [Row.token],
}


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """Yield a database with the table."""
    url = f"sqlite:///{tmp_path}/rows.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_url")
    engine = sa.create_engine(url)
    Tables.metadata.create_all(engine)
    Reader.engine = engine
    yield engine
    Tables.metadata.drop_all(engine)
    engine.dispose()


class Reader(IterationJob):
    """Does each row."""

    engine: ClassVar[sa.Engine]
    columns: ClassVar[Any] = None
    read: ClassVar[Any] = staticmethod(parallel_records)

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Hold a session."""
        with Session(self.engine) as self.session:
            yield

    def build_enumerator(self, instances: int, *, cursor: Any) -> Enumerator[Any]:
        """Share the rows."""
        settings = {"instances": instances, "columns": self.columns, "batch_size": 3}
        found: Enumerator[Any] = self.read(self.session, Row, cursor=cursor, **settings)
        return found

    def each_iteration(self, item: Any, instances: int) -> None:
        """Do a row, or a batch of them."""
        del instances
        DONE.extend(row.id for row in (item if isinstance(item, list) else [item]))

    def on_complete(self) -> None:
        """Tell."""
        DONE.append("complete")


def fill(engine: sa.Engine, count: int) -> None:
    """Have so many rows."""
    with Session(engine) as session:
        session.execute(sa.delete(Row))
        for number in range(count):
            session.add(Row(id=number * 3, group="ab"[number % 2], token=uuid.UUID(int=number * 7919 % 997)))
        session.commit()


@pytest.mark.parametrize("read", [parallel_records, parallel_batches])
@pytest.mark.parametrize("key", KEYS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(0, 60), instances=st.integers(1, 5), chunk=st.integers(1, 9))
def test_each_row_is_done_once(  # noqa: PLR0917 - one a strategy
    engine: sa.Engine, read: Any, key: str, count: int, instances: int, chunk: int
) -> None:
    """However many there are, by any key, in any number of instances, interrupted anywhere."""
    DONE.clear()
    fill(engine, count)

    class Job(Reader):
        columns = KEYS[key]

    Job.read = staticmethod(read)
    InlineRun(Job, instances, stops=[Every(chunk)]).drain()
    assert Counter(DONE) == Counter([*(number * 3 for number in range(count)), "complete"])


def test_rows_that_come_later_belong_to_a_slice(engine: sa.Engine, done: list[object]) -> None:
    """Before the first, between two and after the last: none is in no slice."""
    fill(engine, 30)
    inline = InlineRun(Reader, 2)
    inline.execute()
    with Session(engine) as session:
        session.add_all(Row(id=each, group="c", token=uuid.uuid4()) for each in (-5, 40, 1000))
        session.commit()
    for instance in inline.instances.values():
        instance.drain()
    assert {-5, 40, 1000} <= set(done)
    assert max(Counter(done).values()) == 1


def test_what_cannot_be_read_in_pages_cannot_be_shared(engine: sa.Engine) -> None:
    """With the same reason, before any instance is started."""

    class Job(Reader):
        def build_enumerator(self, instances: int, *, cursor: Any) -> Enumerator[Any]:
            return parallel_records(self.session, sa.select(Row).limit(3), instances=instances, cursor=cursor)

    inline = InlineRun(Job, 2)
    with pytest.raises(JobDefinitionError, match="cannot read a select with LIMIT in pages"):
        inline.drain()
    assert inline.instances == {}


class Pay(IterationJob):
    """Pays the pending orders, each in one commit with the cursor."""

    durability = with_transaction()

    @classmethod
    def progress_store(cls) -> SqlStore:
        """Keep progress where the orders are."""
        return SqlStore(services.engine())

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Hold a session."""
        with services.session() as self.session:
            yield

    def build_enumerator(self, *, cursor: Any) -> Enumerator[Order]:
        """Share the orders."""
        return parallel_records(self.session, Order.pending(), instances=4, cursor=cursor)

    def each_iteration(self, order: Order) -> None:
        """Pay one."""
        services.process_order(self.session, order)

    def on_complete(self) -> None:
        """Tell."""
        DONE.append("complete")


def test_ten_thousand_orders_in_four_instances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: list[object]
) -> None:
    """Each is paid once and the end comes once, though two instances are interrupted and one dies."""
    monkeypatch.setenv("HARNESS_DATABASE_URL", f"sqlite:///{tmp_path}/orders.db")
    Base.metadata.create_all(services.engine())
    SqlStore(services.engine()).create()
    with services.session() as session:
        session.execute(sa.insert(Customer), [{"name": "A", "email": "a@example.com"}])
        row = {"customer_id": 1, "amount_cents": 100, "placed_at": datetime.now(UTC)}
        session.execute(sa.insert(Order), [row] * 10_000)
        session.commit()
    inline = InlineRun(Pay)
    inline.execute()
    first, second, third, fourth = inline.instances.values()
    for instance, items in ((first, 700), (second, 1)):
        instance.stops = [Every(items)]
        instance.execute()
        instance.stops = []
    third.stops = [Every(1300)]
    third.execute()

    def die(_: Any) -> None:
        raise Dead

    third.stops = [die]
    with pytest.raises(Dead):
        third.execute()
    third.stops = []
    for instance in (fourth, third, second, first):
        instance.drain()
    with services.session() as session:
        payments = session.execute(
            sa.select(sa.func.count(), sa.func.count(sa.distinct(Payment.order_id))).select_from(Payment)
        ).one()
    services.dispose()
    assert tuple(payments) == (10_000, 10_000)
    assert done == ["complete"]
