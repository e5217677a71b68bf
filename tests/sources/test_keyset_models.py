"""Rules of :mod:`harness.sources.keyset` for mappings and selects that are more than a table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import time, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    contains_eager,
    mapped_column,
    relationship,
    synonym,
    with_loader_criteria,
    with_polymorphic,
)

from harness.errors import CursorError, JobDefinitionError
from tests.databases import empty_database
from tests.greenlets import EVERY_KIND_IN_FULL, as_asked, batches, ranges, records, session_on


class Base(DeclarativeBase):
    """Base of the tables of this module."""


tagged = sa.Table(
    "tagged",
    Base.metadata,
    sa.Column("asset_id", sa.ForeignKey("assets.id"), primary_key=True),
    sa.Column("tag_id", sa.ForeignKey("tags.id"), primary_key=True),
)
loose = sa.Table(
    "loose",
    Base.metadata,
    sa.Column("asset_id", sa.ForeignKey("assets.id")),
    sa.Column("tag_id", sa.ForeignKey("tags.id")),
)


noted = sa.Table(
    "noted",
    Base.metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("asset_id", sa.ForeignKey("assets.id")),
    sa.Column("tag_id", sa.ForeignKey("tags.id")),
)


class Tag(Base):
    """Tag of an asset, which may have several."""

    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)


class Asset(Base):
    """A class that is always read together with its subclasses."""

    __tablename__ = "assets"
    __mapper_args__ = {  # noqa: RUF012
        "polymorphic_on": "kind", "polymorphic_identity": "asset", "with_polymorphic": "*",
    }  # fmt: skip
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    sold: Mapped[bool]
    number = synonym("id")
    tags: Mapped[list[Tag]] = relationship(secondary=tagged)
    loosely: Mapped[list[Tag]] = relationship(secondary=loose)
    notes: Mapped[list[Tag]] = relationship(secondary=noted)


class Vehicle(Asset):
    """One with a table of its own."""

    __tablename__ = "vehicles"
    __mapper_args__ = {"polymorphic_identity": "vehicle"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(sa.ForeignKey(Asset.id), primary_key=True)
    wheels: Mapped[int] = mapped_column("number_of_wheels", key="wheels_key")


class Truck(Vehicle):
    """One with two parents' tables."""

    __tablename__ = "trucks"
    __mapper_args__ = {"polymorphic_identity": "truck"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(sa.ForeignKey(Vehicle.id), primary_key=True)
    load: Mapped[int]


class Trip(Base):
    """Trip of a vehicle."""

    __tablename__ = "trips"
    id: Mapped[int] = mapped_column(primary_key=True)
    vehicle_id: Mapped[int] = mapped_column(sa.ForeignKey(Vehicle.id))
    lasted: Mapped[timedelta]
    began: Mapped[time]
    code: Mapped[str | None] = mapped_column(unique=True)
    vehicle: Mapped[Vehicle] = relationship()


# As a model that says more than its table does.
declared = sa.Table(
    "trips",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("code", sa.String, nullable=False, unique=True),
)


@pytest.fixture(scope="module", params=EVERY_KIND_IN_FULL)
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Return a session of tables with rows, which no test changes."""
    with empty_database(request, tmp_path_factory.mktemp("models")) as engine:
        Base.metadata.create_all(engine)
        with Session(engine, autoflush=False) as session:
            tags = [Tag(id=n) for n in range(3)]
            for n in range(9):
                sold, wheels, some = n % 4 == 0, n % 3, tags[: n % 3]
                asset = (
                    Asset(id=n, sold=sold, tags=some, loosely=some),
                    Vehicle(id=n, sold=sold, wheels=wheels, tags=some, loosely=some),
                    Truck(id=n, sold=sold, wheels=wheels, load=n, tags=some, loosely=some),
                )[n % 3]
                session.add(asset)
                if isinstance(asset, Vehicle):
                    code = None if n == 4 else str(n)
                    session.add(
                        Trip(id=n, vehicle=asset, lasted=timedelta(n % 2 - 1), began=time(n % 2), code=code)
                    )
            session.commit()
        with session_on(as_asked(engine, request), autoflush=False) as session:
            yield session


def plain(row: Any) -> Any:
    """Return the values that identify an item."""
    if isinstance(row, tuple | sa.Row):
        return tuple(map(plain, row))
    return row.id if isinstance(row, Asset | Trip) else row


every = with_polymorphic(Asset, [Vehicle, Truck])
unsold = with_loader_criteria(Asset, Asset.sold.is_(False))
READ = {
    "class-with-subclasses": (sa.select(Asset), None, 9),
    "named-with-subclasses": (sa.select(every), [every.id.desc()], 9),
    "by-the-key-of-a-parent": (sa.select(Truck), Asset.id, 3),
    "by-the-column-of-a-parent": (sa.select(Truck), [Vehicle.wheels.desc(), Truck.id], 3),
    "by-a-synonym": (sa.select(Vehicle), Asset.number, 6),
    "join-of-a-class-with-subclasses": (sa.select(Trip, Vehicle).join(Trip.vehicle), None, 6),
    "the-joined-one's-key-first": (sa.select(Trip.id, Vehicle.wheels).join(Trip.vehicle), Vehicle.wheels, 6),
    "contains-eager": (sa.select(Trip).join(Trip.vehicle).options(contains_eager(Trip.vehicle)), None, 6),
    "many-to-many": (sa.select(Asset.id, Tag.id.label("tag")).join(Asset.tags), None, 9),
    "many-to-many-backwards": (sa.select(Asset.id, Tag.id.label("tag")).join(Asset.tags), Tag.id.desc(), 9),
    "loader-criteria": (sa.select(Asset).options(unsold), None, 6),
    "a-count-of-others": (
        sa.select(Trip.id, sa.select(sa.func.count(Tag.id)).scalar_subquery().label("n")),
        None,
        6,
    ),
}


@pytest.mark.pairwise
@pytest.mark.parametrize(("select", "columns", "rows"), READ.values(), ids=READ)
@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_pages_are_the_ordinary_query(
    session: Session, select: sa.Select[Any], columns: Any, rows: int, batch_size: int
) -> None:
    """Pages have the same rows and size as the ordinary query, for each mapping and join, and from each cursor."""
    expected = sorted(plain(row[0] if len(row) == 1 else tuple(row)) for row in session.execute(select))
    session.rollback()
    assert len(expected) == rows
    options: dict[str, Any] = {"columns": columns, "batch_size": batch_size, "guard": True}
    enumerator = records(session, select, cursor=None, **options)
    assert enumerator.size == rows
    pairs = [(plain(row), cursor) for row, cursor in enumerator]
    assert sorted(item for item, _ in pairs) == expected
    for index, (_, cursor) in enumerate(pairs):
        rest = records(session, select, cursor=cursor, **options)
        assert [(plain(row), after) for row, after in rest] == pairs[index + 1 :]
    pages = list(batches(session, select, cursor=None, **options))
    assert [plain(row) for page, _ in pages for row in page] == [item for item, _ in pairs]
    selects = list(ranges(session, select, cursor=None, **options))
    assert [cursor for _, cursor in selects] == [cursor for _, cursor in pages]
    for (page, _), (rows_of_page, _) in zip(selects, pages, strict=True):
        found = [plain(row[0] if len(row) == 1 else tuple(row)) for row in session.execute(page)]
        assert sorted(found) == sorted(plain(row) for row in rows_of_page)
    session.rollback()


ranked = sa.func.rank().over(order_by=Trip.id)
REFUSED = {
    "aggregate": (sa.select(sa.func.count(Trip.id)), None, r"the aggregate count\(\) in pages: each page"),
    "aggregate-within": (sa.select(Trip.id, 1 + sa.func.Max(Trip.id)), None, r"aggregate max\(\)"),
    "filtered": (sa.select(sa.func.my(Trip.id).filter(Trip.id > 1)), None, "an aggregate in pages"),
    "window": (sa.select(Trip.id, ranked), None, "a window function in pages: .* in a subquery"),
    "relationship": (
        sa.select(Trip),
        Trip.vehicle,
        "sorts by columns such as Order.due, .* got Trip.vehicle",
    ),
    "class": (sa.select(Trip), Trip, "sorts by columns .* got <class"),
    "name": (sa.select(Trip), "id", "sorts by columns .* got 'id'"),
    "number": (sa.select(Trip), [3], "sorts by columns .* got 3"),
    "expression": (sa.select(Trip), [Trip.id + 1], "sorts by columns"),
    "of-a-subclass-that-may-be-missing": (
        sa.select(Asset),
        Vehicle.wheels,
        "an outer join may leave it NULL",
    ),
    "many-to-many-without-key": (sa.select(Asset).join(Asset.loosely), None, "no primary key is known"),
    "many-to-many-with-a-key-of-its-own": (
        sa.select(Asset.id).join(Asset.notes),
        None,
        "the rows of Anonymous alias of noted, which a relationship joins .* join the table explicitly",
    ),
    "many-to-many-by-outer-join": (
        sa.select(Asset.id).outerjoin(Asset.tags),
        None,
        "an outer join may leave it NULL",
    ),
}


@pytest.mark.parametrize(("select", "columns", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_would_be_wrong_in_pages_is_refused(
    session: Session, select: Any, columns: Any, reason: str
) -> None:
    """A select whose pages would be wrong is refused by the call, with the reason."""
    for read in (records, batches, ranges):
        with pytest.raises(JobDefinitionError, match=reason):
            read(session, select, cursor=None, columns=columns)


def test_the_greatest_of_several_columns_is_no_aggregate(session: Session) -> None:
    """SQLite's max() of two arguments is one of its row, as greatest() is elsewhere."""
    greatest = sa.func.max if session.get_bind().dialect.name == "sqlite" else sa.func.greatest
    select = sa.select(greatest(Trip.id, 5))
    assert [item for item, _ in records(session, select, cursor=None)] == [5, 5, 5, 5, 7, 8]


def test_of_a_column_that_is_named_twice_the_first_counts(session: Session) -> None:
    """The first mention counts, as in ORDER BY."""
    found = records(session, Trip, cursor=None, columns=[Trip.id.desc(), Trip.id], batch_size=2)
    assert [(trip.id, cursor) for trip, cursor in found] == [(n, n) for n in (8, 7, 5, 4, 2, 1)]


@pytest.mark.parametrize("column", [Trip.lasted, Trip.began])
def test_a_key_that_no_cursor_can_hold_is_refused(session: Session, column: Any) -> None:
    """The key is refused before the first item; SQLite stores it as text, so there it is accepted."""
    if session.get_bind().dialect.name == "sqlite":
        assert len(list(records(session, Trip, cursor=None, columns=column, batch_size=1))) == 6
        return
    with pytest.raises(
        JobDefinitionError, match=r"cannot sort by trips\.\w+ \(time\w*\): a cursor cannot hold it"
    ):
        records(session, Trip, cursor=None, columns=column)


@pytest.mark.parametrize("read", [records, batches, ranges])
@pytest.mark.parametrize("batch_size", [1, 100])
@pytest.mark.parametrize("key", [declared.c.code, declared.c.code.desc()], ids=["up", "down"])
@pytest.mark.parametrize("guard", [False, True])
def test_a_null_that_should_not_be_there_is_an_error(
    session: Session, read: Any, batch_size: int, key: Any, *, guard: bool
) -> None:
    """If the table allows a NULL that the model forbids, a row would be lost wherever NULL sorts, so reading raises."""
    pairs = read(
        session, sa.select(declared.c.id), cursor=None, columns=key, batch_size=batch_size, guard=guard
    )
    with pytest.raises(CursorError, match=r"found a row whose trips\.code is NULL, though declared NOT NULL"):
        list(pairs)


@pytest.mark.parametrize("batch_size", [1, 6])
def test_a_null_in_a_page_is_an_error(session: Session, batch_size: int) -> None:
    """A NULL in a page raises, because as a cursor it would mean the beginning, and all rows would repeat (I36)."""
    key = declared.c.code if session.get_bind().dialect.name == "sqlite" else declared.c.code.desc()
    pairs = records(session, sa.select(declared.c.id), cursor=None, columns=key, batch_size=batch_size)
    with pytest.raises(CursorError, match=r"found a row whose trips\.code is NULL, though declared NOT NULL"):
        next(iter(pairs))
