"""Keys of every type under every driver: a cursor that is given is one that is taken, and equal under each driver."""

from __future__ import annotations

import enum
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import Session

from harness.cursor import decode, encode
from harness.errors import CursorError, JobDefinitionError
from tests.databases import empty_database, of_driver
from tests.greenlets import batches, call, ranges, records, session_on

DRIVERS = ["psycopg", "psycopg2", "pg8000", "asyncpg", "psycopg_async"]


class Colour(enum.Enum):
    """An enumeration whose names and values are in no order."""

    RED = "b"
    BLUE = "a"


class Level(sa.TypeDecorator[Any]):
    """An enumeration kept as bytes."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Colour | None, dialect: sa.Dialect) -> bytes | None:
        """Return what is stored."""
        return value and value.value.encode()

    def process_result_value(self, value: bytes | None, dialect: sa.Dialect) -> Colour | None:
        """Return the member."""
        return None if value is None else Colour(value.decode())


LAST = datetime.max  # noqa: DTZ901 - as a column without a zone has it
noon = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
NUMBERS: list[Any] = [Decimal("1.50"), Decimal(2), Decimal("0.10"), Decimal("-3.25"), Decimal("1234567.89")]
EVERYWHERE: dict[str, tuple[Any, list[Any]]] = {
    "integer": (sa.Integer, [3, -1, 2**31 - 1, 0]),
    "big integer": (sa.BigInteger, [2**53 + 1, 2**53, 2**63 - 1, -(2**63)]),
    "text": (sa.Text, ["", "a", "B", "it's 100 %", 'q"\\', "ä", "z" * 300]),
    "char": (sa.CHAR(5), ["ab", "b", ""]),
    "binary": (sa.LargeBinary, [b"\x00", b"", b"'%\\", bytes(range(256))]),
    "decorated binary": (Level, list(Colour)),
    "numeric": (sa.Numeric(20, 2), NUMBERS),
    "numeric as float": (sa.Numeric(20, 2, asdecimal=False), [float(each) for each in NUMBERS]),
    "numeric without scale": (sa.Numeric, NUMBERS),
    "uuid": (sa.Uuid, [uuid.UUID(int=n << 100) for n in (3, 1, 2)]),
    "uuid as text": (sa.Uuid(as_uuid=False), [str(uuid.UUID(int=n << 100)) for n in (3, 1, 2)]),
    "date": (sa.Date, [date(2026, 1, 1), date(1, 1, 1), date(9999, 12, 31)]),
    "datetime": (sa.DateTime, [datetime(2026, 1, 1), datetime(2026, 1, 1, 0, 0, 0, 1), LAST]),  # noqa: DTZ001
    # In Berlin, where the test's session is, it is half past two twice.
    "moment": (sa.DateTime(timezone=True), [noon + timedelta(hours=n, microseconds=n) for n in range(3)]),
    "boolean": (sa.Boolean, [True, False]),
    "enum": (sa.Enum(Colour, name="colour"), list(Colour)),
    "enum as text": (sa.Enum(Colour, native_enum=False), list(Colour)),
}
POSTGRESQL: dict[str, tuple[Any, list[Any]]] = {
    "citext": (pg.CITEXT, ["aB", "Ac", "b"]),
    "collated": (sa.String(9, collation="und-x-icu"), ["a", "B", "c", "Ä"]),
    "inet": (
        pg.INET,
        ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.0/24", "10.0.0.1", "9.1.1.1", "fe80::1/64", "::1"],
    ),
    "cidr": (pg.CIDR, ["10.0.0.0/24", "10.0.0.0/8", "9.0.0.0/8", "fe80::/64"]),
    "macaddr": (pg.MACADDR, ["08:00:2b:01:02:03", "00:00:2b:01:02:03"]),
    "oid": (pg.OID, [5, 3]),
    # As floats, the first two are equal.
    "huge numeric": (sa.Numeric(asdecimal=False), [Decimal(2**60), Decimal(2**60 + 1), Decimal("0.5")]),
}
UNORDERED = {
    "array": pg.ARRAY(sa.Integer),
    "json": sa.JSON(),
    "jsonb": pg.JSONB(),
    "range": pg.INT4RANGE(),
    "time": sa.Time(),
    "interval": sa.Interval(),
}


def stored(cursor: Any) -> Any:
    """Return the cursor as the next execution gets it."""
    return decode(json.loads(json.dumps(encode(cursor))))


@pytest.fixture(scope="module", params=["postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Engine]:
    """Yield an empty PostgreSQL whose sessions are in Berlin."""
    with empty_database(request, tmp_path_factory.mktemp("drivers"), "-ctimezone=Europe/Berlin") as engine:
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS citext SCHEMA pg_catalog"))
        yield engine


@pytest.fixture(params=DRIVERS)
def engine(request: pytest.FixtureRequest, database: sa.Engine) -> Iterator[sa.Engine]:
    """Yield the same database under one driver after the other."""
    with of_driver(database, request.param, "SET timezone TO 'Europe/Berlin'") as engine:
        yield engine


@pytest.fixture
def sqlite() -> Iterator[sa.Engine]:
    """Yield an empty SQLite in memory."""
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    yield engine
    engine.dispose()


def table(kind: Any) -> sa.Table:
    """Return a table with a key of one type."""
    return sa.Table(
        "keyed",
        sa.MetaData(),
        sa.Column("key", kind, nullable=False, unique=True),
        sa.Column("row", sa.Integer, primary_key=True),
    )


def read_in_each_way(session: Session, keyed: sa.Table) -> list[Any]:
    """Read a table by its key, upwards and downwards, and resume at each cursor; return the cursors upwards."""
    select = sa.select(keyed.c.row)
    given = []
    for columns, order in (
        (keyed.c.key, keyed.c.key),
        (keyed.c.key.desc(), keyed.c.key.desc()),
        ([keyed.c.key, keyed.c.row.desc()], keyed.c.key),
    ):
        expected = session.scalars(select.order_by(order)).all()
        for batch_size in (1, 100):
            found = list(records(session, select, cursor=None, columns=columns, batch_size=batch_size))
            assert [row for row, _ in found] == expected
        for index, (_, cursor) in enumerate(found):
            assert stored(cursor) == cursor
            rest = records(session, select, cursor=stored(cursor), columns=columns)
            assert [row for row, _ in rest] == expected[index + 1 :]
        pages = batches(session, select, cursor=None, columns=columns, batch_size=2)
        assert [cursor for _, cursor in pages] == [
            cursor for index, (_, cursor) in enumerate(found, 1) if index % 2 == 0 or index == len(found)
        ]
        rendered: list[Any] = []
        for page, _ in ranges(session, select, cursor=None, columns=columns, batch_size=2):
            text = page.compile(session.get_bind(), compile_kwargs={"literal_binds": True})
            rendered += session.connection().exec_driver_sql(str(text)).scalars().all()
        assert rendered == expected
        given.append([cursor for _, cursor in found])
    return given[0]


def fill(session: Session, keyed: sa.Table, values: list[Any]) -> None:
    """Make the table, with a row for each value."""
    keyed.create(session.connection())
    session.execute(keyed.insert(), [{"row": row, "key": value} for row, value in enumerate(values)])


@pytest.mark.parametrize(("kind", "values"), EVERYWHERE.values(), ids=EVERYWHERE)
def test_on_sqlite_a_cursor_that_is_given_is_taken(sqlite: sa.Engine, kind: Any, values: list[Any]) -> None:
    """Read by a key of any type, upwards and downwards, resumed at each cursor, and with literals."""
    keyed = table(kind)
    with Session(sqlite) as session:
        fill(session, keyed, values)
        read_in_each_way(session, keyed)


KINDS = EVERYWHERE | POSTGRESQL


@pytest.mark.parametrize(("kind", "values"), KINDS.values(), ids=KINDS)
def test_on_postgresql_a_cursor_that_is_given_is_taken(
    engine: sa.Engine, kind: Any, values: list[Any]
) -> None:
    """The same under each driver."""
    keyed, values = table(kind), of_asyncpg(values) if engine.dialect.driver == "asyncpg" else values
    with session_on(engine) as session:
        call(session, fill, session, keyed, values)
        call(session, read_in_each_way, session, keyed)


@pytest.mark.each
@pytest.mark.parametrize(("kind", "values"), KINDS.values(), ids=KINDS)
def test_a_driver_resumes_where_another_stopped(database: sa.Engine, kind: Any, values: list[Any]) -> None:
    """A deploy may change the driver: all give equal cursors, and each takes those of the others."""
    keyed = table(kind)
    given: list[list[tuple[Any, Any]]] = []
    values = of_asyncpg(values)
    for driver in DRIVERS:
        with (
            of_driver(database, driver, "SET timezone TO 'Europe/Berlin'") as engine,
            session_on(engine) as session,
        ):
            call(session, fill, session, keyed, values)
            call(session, resume_all, session, keyed, given)


def resume_all(session: Session, keyed: sa.Table, given: list[list[tuple[Any, Any]]]) -> None:
    """Read a table, compare with the cursors that others have given, resume at each of these, and add the own ones."""
    select = sa.select(keyed.c.row)
    found = list(records(session, select, cursor=None, columns=keyed.c.key))
    for others in given:
        assert [comparable(cursor) for _, cursor in others] == [comparable(cursor) for _, cursor in found]
        for index, (_, cursor) in enumerate(others):
            rest = records(session, select, cursor=stored(cursor), columns=keyed.c.key)
            assert [row for row, _ in rest] == [row for row, _ in found[index + 1 :]]
    given.append(found)


def of_asyncpg(values: list[Any]) -> list[Any]:
    """Return the values without those that asyncpg does not tell from infinity."""
    return [each for each in values if each not in {date.min, date.max, LAST}]


@pytest.mark.parametrize(("kind", "value"), [
    (sa.Date, date.max), (sa.Date, date.min), (sa.DateTime, LAST), (sa.DateTime(timezone=True), LAST),
])  # fmt: skip
def test_what_asyncpg_does_not_tell_from_infinity_is_refused(
    database: sa.Engine, kind: Any, value: Any
) -> None:
    """It would bind a cursor of the last date as infinity, and rows in between would be skipped."""
    keyed, infinity = table(kind), "infinity" if value.year > 1 else "-infinity"
    with of_driver(database, "asyncpg") as engine, session_on(engine) as session:

        def reading() -> None:
            keyed.create(session.connection())
            session.execute(sa.insert(keyed).values(key=sa.text(f"'{infinity}'"), row=1))
            for cursor in (None, value):
                with pytest.raises(CursorError, match=r"under asyncpg, which does not tell it from infinity"):
                    list(records(session, sa.select(keyed.c.row), cursor=cursor, columns=keyed.c.key))

        call(session, reading)


def comparable(cursor: Any) -> Any:
    """Return a cursor in a form in which one moment of two zones is equal, though an hour comes twice in one."""
    return cursor.astimezone(UTC) if isinstance(cursor, datetime) and cursor.tzinfo else cursor


@pytest.mark.parametrize("kind", UNORDERED.values(), ids=UNORDERED)
@pytest.mark.parametrize("read", [records, batches, ranges])
def test_what_no_cursor_can_hold_is_refused_by_name(engine: sa.Engine, read: Any, kind: Any) -> None:
    """Such a key is refused by the name of its column before anything is read."""
    keyed = table(kind)
    with (
        session_on(engine) as session,
        pytest.raises(
            JobDefinitionError, match=r"cannot sort by keyed\.key .*: a cursor cannot hold .*; take"
        ),
    ):
        read(session, sa.select(keyed), cursor=None, columns=keyed.c.key)


@pytest.mark.parametrize("value", ["text", 1.5, b"bytes", 2**62])
def test_sqlite_keeps_anything_in_any_column(sqlite: sa.Engine, value: Any) -> None:
    """A value of another type than the column's is a position like any other."""
    keyed = sa.table("loose", sa.column("key", sa.Integer), sa.column("row", sa.Integer))
    with Session(sqlite) as session:
        session.execute(sa.text("CREATE TABLE loose (key INT PRIMARY KEY NOT NULL, row INTEGER)"))
        rows = sa.text("INSERT INTO loose VALUES (:key, :row)")
        session.execute(rows, [{"row": row, "key": key} for row, key in enumerate([3, value, 7])])
        expected = session.scalars(sa.text("SELECT row FROM loose ORDER BY key")).all()
        select = sa.select(keyed.c.row)
        found = list(records(session, select, cursor=None, columns=keyed.c.key, unique=True, batch_size=1))
        assert [row for row, _ in found] == expected
        for index, (_, cursor) in enumerate(found):
            rest = records(session, select, cursor=stored(cursor), columns=keyed.c.key, unique=True)
            assert [row for row, _ in rest] == expected[index + 1 :]


def test_a_value_that_no_cursor_can_hold_stops_before_its_page(database: sa.Engine) -> None:
    """NaN is equal to nothing: rows before it are done, and the error names it and the way out."""
    keyed = table(sa.Numeric)
    with Session(database) as session:
        fill(session, keyed, [Decimal(1), Decimal("NaN")])
        pairs = iter(records(session, sa.select(keyed.c.row), cursor=None, columns=keyed.c.key, batch_size=1))
        assert next(pairs)[0] == 0
        with pytest.raises(
            CursorError, match=r"cannot hold Decimal\('NaN'\) of keyed\.key.*exclude such rows"
        ):
            next(pairs)


def test_a_row_that_comes_again_stops_the_job(database: sa.Engine) -> None:
    """psycopg2 reads infinity as the last date; if infinity comes again, the job stops instead of looping for ever."""
    keyed = table(sa.Date)
    with of_driver(database, "psycopg2") as engine, Session(engine) as session:
        keyed.create(session.connection())
        session.execute(sa.text("INSERT INTO keyed VALUES ('2026-01-01', 1), ('infinity', 2)"))
        pairs = iter(records(session, sa.select(keyed.c.row), cursor=None, columns=keyed.c.key, batch_size=1))
        assert [next(pairs)[0], next(pairs)[0]] == [1, 2]
        with pytest.raises(CursorError, match=r"found the row at its cursor .* again"):
            next(pairs)
