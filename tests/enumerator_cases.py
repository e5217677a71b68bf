"""Cases for every enumerator in one form: how it is made for a number of rows, and its expected items."""

from __future__ import annotations

import asyncio
import csv
import io
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from harness import (
    Enumerator,
    batches,
    csv_batches,
    csv_rows,
    items,
    nested,
    once,
    ranges,
    records,
    throttle,
    times,
)
from tests.databases import ASYNC, async_engine, empty_database

MOST = 9
"""Number of rows the tables have; a case reads as many as it is asked to."""


class Base(DeclarativeBase):
    """Base of the tables of this module."""


class Parcel(Base):
    """A row with keys of all kinds; *place* says which rows a case reads."""

    __tablename__ = "parcels"
    id: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[int]
    code: Mapped[str] = mapped_column(unique=True)
    token: Mapped[uuid.UUID] = mapped_column(unique=True)
    day: Mapped[date]
    sent: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), unique=True)
    seen: Mapped[datetime]


class Shelf(Base):
    """A table with a composite key."""

    __tablename__ = "shelves"
    hall: Mapped[str] = mapped_column(primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)


@dataclass
class World:
    """Sources that a case reads from: a database, a folder for files, and rows in pages of *batch_size*.

    :ivar reader: the session that cases read with, which may be async.
    """

    session: Session
    folder: Path
    rows: int = 5
    batch_size: int = 2
    reader: Any = None

    def of(self, rows: int, batch_size: int) -> World:
        """Return the same world with other numbers."""
        return replace(self, rows=rows, batch_size=batch_size)

    @property
    def engine(self) -> sa.Engine:
        """The engine of the database."""
        return self.session.get_bind()  # type: ignore[return-value]  # it was made with one

    @property
    def is_async(self) -> bool:
        """True if enumerators are to be read by ``async for``, in async jobs."""
        return isinstance(self.reader, AsyncSession)

    def read(self, found: Enumerator[Any]) -> list[Any]:
        """Return the plain items of an enumerator, with their cursors."""
        pairs = asyncio.run(_listed(found)) if self.is_async else found
        return [(self.plain(item), cursor) for item, cursor in pairs]

    def size_of(self, found: Enumerator[Any]) -> int | None:
        """Return the size of an enumerator."""
        return asyncio.run(found.find_size()) if self.is_async else found.size

    def path(self) -> Path:
        """Return a CSV file of that many rows, with newlines and blank lines in it."""
        path = self.folder / f"{self.rows}.csv"
        if not path.exists():
            lines = io.StringIO(newline="")
            writer = csv.writer(lines)
            writer.writerow(["id", "note"])
            for row in self.notes():
                writer.writerow(row)
                lines.write("\r\n" if row[0] == "1" else "")
            path.write_text(lines.getvalue(), encoding="utf-8-sig", newline="")
        return path

    def file(self, kind: type[io.BytesIO] = io.BytesIO) -> io.TextIOWrapper:
        """Return that file, open and at its beginning."""
        return io.TextIOWrapper(kind(self.path().read_bytes()), encoding="utf-8", newline="")

    def notes(self) -> list[list[str]]:
        """Return what is in the file."""
        return [[str(n), f'é, "{n}"\r\n\n{"x" * n}'] for n in range(self.rows)]

    def chunks(self, whole: list[Any]) -> list[list[Any]]:
        """Return a list in batches."""
        return [whole[start : start + self.batch_size] for start in range(0, len(whole), self.batch_size)]

    def plain(self, item: Any) -> Any:
        """Return an item as something that compares: of rows the keys, of a select the keys of its rows."""
        if isinstance(item, sa.Select):
            with self.session.begin():
                return sorted(self.plain(row) for row in self.session.scalars(item))
        if isinstance(item, list):
            return [self.plain(each) for each in item]
        if isinstance(item, Parcel):
            return item.id
        return (item.hall, item.place) if isinstance(item, Shelf) else item


async def _listed(pairs: Enumerator[Any]) -> list[Any]:
    return [pair async for pair in pairs]


class OneWay(io.BytesIO):
    """A file that cannot seek, as a pipe cannot."""

    def seekable(self) -> bool:
        """Say so."""
        return False

    def seek(self, *_: object) -> int:
        """Refuse."""
        raise io.UnsupportedOperation("seek")


@dataclass
class Case:
    """An enumerator over a world.

    :ivar make: takes the world and the cursor. :ivar expected: returns the plain items of a world.
    :ivar sized: whether the size is known. :ivar count: what the size counts, if not the items.
    """

    make: Callable[[World, Any], Enumerator[Any]]
    expected: Callable[[World], list[Any]]
    sized: bool = True
    count: Callable[[World], int] | None = None

    def size(self, world: World) -> int | None:
        """Return the size that the enumerator must say it has."""
        if not self.sized:
            return None
        return self.count(world) if self.count else len(self.expected(world))


def numbers(world: World) -> list[Any]:
    """Return a list with all that JSON has, and more."""
    return [[n, f"é{n}", n / 3, None, (n, date(2026, 1, 1))] for n in range(world.rows)]


def dicts(world: World) -> list[Any]:
    """Return the rows of the file by their names."""
    return [{"id": number, "note": note} for number, note in world.notes()]


def pyramid(world: World) -> list[Any]:
    """Return what two levels yield, of which the inner one has as many items as the outer says, 0 at first."""
    return [(outer, inner) for outer in range(world.rows) for inner in range(outer)]


def two_levels(world: World, cursor: Any) -> Enumerator[Any]:
    """Make them."""
    return nested(
        [
            lambda cursor: times(world.rows, cursor=cursor),
            lambda outer, cursor: items([(outer, n) for n in range(outer)], cursor=cursor, guard=True),
        ],
        cursor=cursor,
    )


def three_levels(world: World, cursor: Any) -> Enumerator[Any]:
    """Make a file within batches of a table within a sequence."""
    return nested(
        [
            lambda cursor: items([1, 2][: world.rows], cursor=cursor, guard=True),
            lambda _, cursor: records(
                world.reader, parcels(world), cursor=cursor, batch_size=world.batch_size, guard=True
            ),
            lambda _, parcel, cursor: csv_rows(world.of(parcel.id % 3, 1).path(), cursor=cursor),
        ],
        cursor=cursor,
    )


def four_levels(world: World, cursor: Any) -> Enumerator[Any]:
    """Make levels of which some are empty."""
    return nested(
        [
            lambda cursor: times(min(world.rows, 3), cursor=cursor),
            lambda a, cursor: throttle(times(a, cursor=cursor), on=never, backoff=1),
            lambda a, b, cursor: once(cursor=cursor) if a > b else times(0, cursor=cursor),
            lambda a, b, _, cursor: items([(a, b, c) for c in range(2)], cursor=cursor),
        ],
        cursor=cursor,
    )


def never() -> bool:
    """Never wait."""
    return False


def parcels(world: World) -> sa.Select[Any]:
    """Select the rows that the world has."""
    return sa.select(Parcel).where(Parcel.place < world.rows)


KEYS: dict[str, tuple[Any, list[Any]]] = {
    "int": (None, [Parcel.id]),
    "descending": (Parcel.id.desc(), [Parcel.id.desc()]),
    "mixed": ([Parcel.day.desc(), Parcel.id], [Parcel.day.desc(), Parcel.id]),
    "string": (Parcel.code, [Parcel.code]),
    "uuid": (Parcel.token.desc(), [Parcel.token.desc()]),
    "date": (Parcel.day, [Parcel.day, Parcel.id]),
    "datetime-with-zone": (Parcel.sent, [Parcel.sent]),
    "datetime-without": (Parcel.seen.desc(), [Parcel.seen.desc(), Parcel.id.desc()]),
}
GUARDED = {"int", "mixed", "datetime-with-zone", "composite"}
"""The keys that are read with a guard too."""


def _keyset_cases() -> Iterator[tuple[str, Case]]:
    def read(function: Any, columns: Any, guard: bool, world: World, cursor: Any) -> Any:
        select = parcels(world) if columns is not Shelf else sa.select(Shelf).where(Shelf.place < world.rows)
        return function(
            world.reader,
            select,
            cursor=cursor,
            columns=None if columns is Shelf else columns,
            batch_size=world.batch_size,
            guard=guard,
        )

    def ordered(order: list[Any], world: World) -> list[Any]:
        with world.session.begin():
            return list(world.session.scalars(parcels(world).with_only_columns(Parcel.id).order_by(*order)))

    def shelves(world: World) -> list[Any]:
        return [(hall, place) for hall in ("", "B", "a") for place in range(world.rows)]

    kinds: dict[str, tuple[Any, Any]] = {
        name: (columns, partial(ordered, order)) for name, (columns, order) in KEYS.items()
    }
    for name, (columns, whole) in {**kinds, "composite": (Shelf, shelves)}.items():

        def chunked(world: World, whole: Any = whole) -> list[Any]:
            return world.chunks(whole(world))

        def sets(world: World, whole: Any = whole) -> list[Any]:
            return [sorted(chunk) for chunk in world.chunks(whole(world))]

        def count(world: World, whole: Any = whole) -> int:
            return len(whole(world))

        for guard in (False, True) if name in GUARDED else (False,):
            suffix = f"{name}-guarded" if guard else name
            yield f"records-{suffix}", Case(partial(read, records, columns, guard), whole)
            yield f"batches-{suffix}", Case(partial(read, batches, columns, guard), chunked, count=count)
            yield f"ranges-{suffix}", Case(partial(read, ranges, columns, guard), sets)


PLAIN = {
    "items": Case(lambda world, cursor: items(numbers(world), cursor=cursor), numbers),
    "items-guarded": Case(
        lambda world, cursor: items(tuple(numbers(world)), cursor=cursor, guard=True), numbers
    ),
    "times": Case(
        lambda world, cursor: times(world.rows, cursor=cursor), lambda world: list(range(world.rows))
    ),
    "once": Case(lambda _, cursor: once(cursor=cursor), lambda _: [None]),
    "csv-path": Case(lambda world, cursor: csv_rows(world.path(), cursor=cursor), dicts),
    "csv-path-guarded": Case(lambda world, cursor: csv_rows(world.path(), cursor=cursor, guard=True), dicts),
    "csv-lists": Case(
        lambda world, cursor: csv_rows(str(world.path()), cursor=cursor, header=False),
        lambda world: [["id", "note"], *world.notes()],
    ),
    "csv-open": Case(lambda world, cursor: csv_rows(world.file(), cursor=cursor), dicts),
    "csv-open-guarded": Case(lambda world, cursor: csv_rows(world.file(), cursor=cursor, guard=True), dicts),
    "csv-one-way": Case(
        lambda world, cursor: csv_rows(world.file(OneWay), cursor=cursor), dicts, sized=False
    ),
    "csv-batches-path": Case(
        lambda world, cursor: csv_batches(world.path(), cursor=cursor, batch_size=world.batch_size),
        lambda world: world.chunks(dicts(world)),
        count=lambda world: world.rows,
    ),
    "csv-batches-open-guarded": Case(
        lambda world, cursor: csv_batches(
            world.file(), cursor=cursor, batch_size=world.batch_size, header=["id", "note"], guard=True
        ),
        lambda world: world.chunks([{"id": "id", "note": "note"}, *dicts(world)]),
        count=lambda world: world.rows + 1,
    ),
    "nested-2": Case(two_levels, pyramid, sized=False),
    "nested-4": Case(
        four_levels,
        lambda world: [(a, b, c) for a in range(min(world.rows, 3)) for b in range(a) for c in range(2)],
        sized=False,
    ),
    "throttled-twice": Case(
        lambda world, cursor: throttle(
            throttle(items(numbers(world), cursor=cursor), on=never, backoff=1), on=[never, never], backoff=1
        ),
        numbers,
    ),
    "throttled-batches": Case(
        lambda world, cursor: throttle(
            csv_batches(world.path(), cursor=cursor, batch_size=world.batch_size), on=never, backoff=1
        ),
        lambda world: world.chunks(dicts(world)),
        count=lambda world: world.rows,
    ),
}

IN_DATABASE = {
    **dict(_keyset_cases()),
    "nested-3": Case(
        three_levels,
        lambda world: [
            row
            for _ in range(min(world.rows, 2))
            for number in sorted(place * 7 % MOST for place in range(world.rows))
            for row in dicts(world.of(number % 3, 1))
        ],
        sized=False,
    ),
}


@contextmanager
def filled(request: pytest.FixtureRequest, folder: Path) -> Iterator[World]:
    """Make the tables of this module with their rows, in a database of the kind that the fixture's parameter names.

    An async driver names one as well; cases then read with an ``AsyncSession``.
    """
    with empty_database(request, folder) as engine:
        Base.metadata.create_all(engine)
        with Session(engine) as session:
            session.add_all(rows())
            session.commit()
            driver = request.param if request.param in ASYNC else None
            reader = AsyncSession(async_engine(engine, driver), expire_on_commit=False) if driver else session
            yield World(session, folder, reader=reader)


def rows() -> Iterator[Base]:
    """Yield the rows of the tables."""
    zone = timezone(timedelta(hours=5, minutes=30))
    start = datetime(2026, 3, 29, 0, 59, 59, 999_998, tzinfo=UTC)
    for place in range(MOST):
        number = place * 7 % MOST
        yield Parcel(
            id=number,
            place=place,
            code="" if place == 3 else f"{'aBé'[place % 3]}{number}",
            token=uuid.uuid5(uuid.NAMESPACE_OID, str(place)),
            day=date(2026, 2, 27) + timedelta(days=place % 3),
            sent=(start + timedelta(microseconds=number)).astimezone(zone if place % 2 else UTC),
            seen=(start + timedelta(microseconds=place // 2)).replace(tzinfo=None),
        )
        yield from (Shelf(hall=hall, place=place) for hall in ("a", "B", ""))
