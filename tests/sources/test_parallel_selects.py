"""Several instances share the rows of a select: each row once, by whatever key."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from harness import Enumerator, InlineRun, IterationJob, parallel_batches, parallel_records
from harness.errors import JobDefinitionError
from harness.stops import Every
from tests.databases import KINDS, empty_database, used_by_services
from tests.examples import examples
from tests.jobs import DONE, Dead
from tests.shop import Pay, payments, place_orders


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


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """Yield a database with the table."""
    with empty_database(request, tmp_path) as engine:
        Tables.metadata.create_all(engine)
        Reader.engine = engine
        yield engine


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
        """Record the end."""
        DONE.append("complete")


def fill(engine: sa.Engine, count: int) -> None:
    """Replace all rows by *count* new ones."""
    with Session(engine) as session:
        session.execute(sa.delete(Row))
        for number in range(count):
            session.add(Row(id=number * 3, group="ab"[number % 2], token=uuid.UUID(int=number * 7919 % 997)))
        session.commit()


@pytest.mark.sample(4)
@pytest.mark.parametrize("read", [parallel_records, parallel_batches])
@pytest.mark.parametrize("key", KEYS)
@examples(8)
@given(count=st.integers(0, 60), instances=st.integers(1, 5), chunk=st.integers(1, 9))
def test_each_row_is_done_once(  # noqa: PLR0917 - one a strategy
    engine: sa.Engine, read: Any, key: str, count: int, instances: int, chunk: int
) -> None:
    """Each row is done once, for any number of rows and instances, any key and any interruption."""
    DONE.clear()
    fill(engine, count)

    class Job(Reader):
        columns = KEYS[key]

    Job.read = staticmethod(read)
    InlineRun(Job, instances, stops=[Every(chunk)]).drain()
    assert Counter(DONE) == Counter([*(number * 3 for number in range(count)), "complete"])


def test_rows_that_come_later_belong_to_a_slice(engine: sa.Engine, done: list[object]) -> None:
    """Rows before the first, between two and after the last all belong to a slice."""
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
    """Such a select is refused with the same reason before any instance is started."""

    class Job(Reader):
        def build_enumerator(self, instances: int, *, cursor: Any) -> Enumerator[Any]:
            return parallel_records(self.session, sa.select(Row).limit(3), instances=instances, cursor=cursor)

    inline = InlineRun(Job, 2)
    with pytest.raises(JobDefinitionError, match="cannot read a select with LIMIT in pages"):
        inline.drain()
    assert inline.instances == {}


class PayHere(Pay):
    """Records its end in this process."""

    def on_complete(self) -> None:
        """Record the end."""
        DONE.append("complete")


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[int]:
    """Have two thousand orders, with --full ten thousand; yield their number."""
    with used_by_services(monkeypatch, f"sqlite:///{tmp_path}/orders.db"):
        number = 10_000 if request.config.getoption("--full") else 2_000
        place_orders(number)
        yield number


@pytest.mark.full
def test_thousands_of_orders_in_four_instances(orders: int, done: list[object]) -> None:
    """Each order is paid once and the run ends once, though two instances are interrupted and one crashes."""
    inline = InlineRun(PayHere)
    inline.execute()
    first, second, third, fourth = inline.instances.values()
    for instance, items in ((first, orders * 7 // 100), (second, 1)):
        instance.stops = [Every(items)]
        instance.execute()
        instance.stops = []
    third.stops = [Every(orders * 13 // 100)]
    third.execute()

    def die(_: Any) -> None:
        raise Dead

    third.stops = [die]
    with pytest.raises(Dead):
        third.execute()
    third.stops = []
    for instance in (fourth, third, second, first):
        instance.drain()
    assert payments() == (orders, orders)
    assert done == ["complete"]
