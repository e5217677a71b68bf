"""Rules of :mod:`harness.keyset`, on SQLite and PostgreSQL."""

from __future__ import annotations

import enum
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    joinedload,
    mapped_column,
    relationship,
    scoped_session,
    sessionmaker,
)

from harness.errors import CursorError, JobDefinitionError
from harness.keyset import batches, ranges, records


class Status(enum.StrEnum):
    """Where an order stands."""

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


plain = Base.metadata.tables["orders"]
other = aliased(Order, name="other")
bare = sa.Table("bare", Base.metadata, sa.Column("value", sa.Integer, nullable=False))


def fill(session: Session, orders: int) -> None:
    """Write so many orders in scattered order, 3 customers and 0 to 2 lines an order, with many equal values."""
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


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """Return an engine with the empty tables of this module."""
    url = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else None
    with database(url, tmp_path) as engine:
        yield engine


@contextmanager
def database(url: str | None, folder: Path) -> Iterator[sa.Engine]:
    """Make the empty tables of this module, in a schema of their own or, without a URL, in a file of SQLite."""
    if url is None:
        engine = sa.create_engine(f"sqlite:///{folder / 'test.db'}")
        Base.metadata.create_all(engine)
        yield engine
        engine.dispose()
        return
    schema = f"keyset_{uuid.uuid4().hex}"
    engine = sa.create_engine(
        url, connect_args={"options": f"-csearch_path={schema} -ctimezone=Europe/Berlin"}
    )
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema(schema))
    Base.metadata.create_all(engine)
    try:
        yield engine
    finally:
        with engine.begin() as connection:
            connection.execute(sa.schema.DropSchema(schema, cascade=True))
        engine.dispose()


@pytest.fixture
def session(engine: sa.Engine) -> Iterator[Session]:
    """Return a session of the empty database."""
    with Session(engine) as session:
        yield session


@pytest.fixture
def queries(engine: sa.Engine) -> list[tuple[str, Any]]:
    """Return the list to which every statement that the database gets is added, with its parameters."""
    found: list[tuple[str, Any]] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *given: found.append(given[2:4]))
    return found


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 4, 6])
@pytest.mark.parametrize("read", [records, batches, ranges])
def test_a_page_is_one_query(
    session: Session, queries: list[tuple[str, Any]], read: Callable[..., Any], rows: int
) -> None:
    """A page is one query, and a page that was not full is the last."""
    session.add_all(Ticket(id=uuid.UUID(int=n)) for n in range(rows))
    session.commit()
    del queries[:]
    for _ in read(session, Ticket, cursor=None, batch_size=3):
        pass
    assert len(queries) == rows // 3 + 1


def test_nothing_is_read_before_it_is_asked_for(session: Session, queries: list[tuple[str, Any]]) -> None:
    """Pages and sizes are read when they are first needed."""
    enumerators = [read(session, Order, cursor=None) for read in (records, batches, ranges)]
    assert queries == []
    assert [enumerator.size for enumerator in enumerators] == [0, 0, 0]
    assert len(queries) == 3


def test_rows_that_come_and_go(session: Session) -> None:
    """Rows inserted after the cursor are read, those before it are not, and the cursor's own row may be deleted."""
    session.add_all(Party(id=n) for n in (10, 20, 30, 40))
    session.commit()
    pairs = iter(records(session, Party, cursor=None, batch_size=2))
    assert [next(pairs)[0].id, next(pairs)[0].id] == [10, 20]
    with Session(session.get_bind()) as elsewhere:
        elsewhere.add_all(Party(id=n) for n in (15, 25))
        elsewhere.execute(sa.delete(Party).where(Party.id.in_([20, 30])))
        elsewhere.commit()
    assert [party.id for party, _ in pairs] == [25, 40]
    assert [party.id for party, _ in records(session, Party, cursor=20)] == [25, 40]


def test_the_key_is_read_from_the_database(session: Session) -> None:
    """A cursor is where the row lay, whatever the job or an old copy in the session says."""
    fill(session, 4)
    kept = session.get(Order, 3)
    session.commit()
    assert kept is not None
    assert kept.due == date(2026, 2, 27)
    with Session(session.get_bind()) as elsewhere:
        elsewhere.execute(sa.update(Order).where(Order.id == 3).values(due=date(2030, 1, 1)))
        elsewhere.commit()
    seen = []
    for order, cursor in records(session, Order, cursor=None, columns=Order.due, batch_size=2):
        seen.append(cursor)
        order.note = "done"
    assert seen == sorted(seen)
    assert seen[-1] == (date(2030, 1, 1), 3)


def test_objects_stay_attached_and_loaded(session: Session, queries: list[tuple[str, Any]]) -> None:
    """Where no transaction was open, none is after a page, and its objects are usable without a query."""
    fill(session, 4)
    session.expunge_all()
    for order, _ in records(session, Order, cursor=None, batch_size=2):
        assert not session.in_transaction()
        before = len(queries)
        assert (order.id, order.amount, order.note) == (order.id, order.amount, None)
        assert len(queries) == before
        assert order in session
    assert session.expire_on_commit


@pytest.mark.parametrize("read", [records, batches, ranges])
def test_no_transaction_is_left(session: Session, read: Callable[..., Any]) -> None:
    """After a page, after the end and after the size no transaction is open."""
    fill(session, 3)
    enumerator = read(session, Order, cursor=None, batch_size=2)
    assert enumerator.size
    assert not session.in_transaction()
    for _ in enumerator:
        assert not session.in_transaction()
    assert not session.in_transaction()
    assert list(read(session, Order, cursor=99)) == []
    assert not session.in_transaction()


def test_an_open_transaction_is_left_alone(session: Session) -> None:
    """Changes that are not committed are neither committed nor lost by reading on."""
    fill(session, 4)
    for order, _ in records(session, Order, cursor=None, batch_size=1):
        order.note = "changed"
        session.add(Ticket(id=uuid.UUID(int=order.id)))
    assert session.in_transaction()
    assert session.scalar(sa.select(sa.func.count()).where(Order.note == "changed")) == 4
    session.rollback()
    assert session.scalar(sa.select(sa.func.count()).where(Order.note == "changed")) == 0
    assert session.scalar(sa.select(sa.func.count()).select_from(Ticket)) == 4


def test_a_page_that_fails_leaves_no_transaction(session: Session) -> None:
    """An error of the database passes through and leaves the session as it was."""
    pairs = iter(records(session, Ticket, cursor=None))
    Base.metadata.tables["tickets"].drop(session.get_bind())
    with pytest.raises((OperationalError, ProgrammingError)):
        next(pairs)
    assert not session.in_transaction()
    assert session.expire_on_commit


def test_a_scoped_session_is_a_session(engine: sa.Engine, queries: list[tuple[str, Any]]) -> None:
    """A scoped session reads as the session behind it does: its objects do not expire either."""
    scoped = scoped_session(sessionmaker(engine))
    fill(scoped(), 3)
    for (order, _), _ in zip(records(scoped, Order, cursor=None), range(2), strict=False):
        before = len(queries)
        assert order.weight >= 0
        assert len(queries) == before
    scoped.remove()


def test_memory_holds_one_page(session: Session) -> None:
    """Objects that the job has let go of are gone when the next page is read."""
    fill(session, 12)
    session.expunge_all()
    alive: weakref.WeakSet[Order] = weakref.WeakSet()
    most = []

    def loaded(order: Order, _context: object) -> None:
        alive.add(order)
        most.append(len(alive))

    sa.event.listen(Order, "load", loaded)
    found = [order.id for order, _ in records(session, Order, cursor=None, batch_size=3)]
    sa.event.remove(Order, "load", loaded)
    assert len(found) == 12
    # A page, and the last item of the page before, which is still in the loop's hand.
    assert max(most) == 4


def test_selects_of_one_shape_are_read_each_by_its_own_columns(session: Session) -> None:
    """An alias is read by its own key, whatever alias of the same table was read before; so are other values."""
    fill(session, 12)
    for customer in (1, 2):
        alias = aliased(Order)
        for entity in (Order, alias):
            select = sa.select(entity).where(entity.customer_id == customer)
            found = [order.id for order, _ in records(session, select, cursor=None, batch_size=2)]
            assert found == list(
                session.scalars(sa.select(Order.id).where(Order.customer_id == customer).order_by(Order.id))
            )
            assert found


def test_bulk_changes_reach_each_row_once(session: Session) -> None:
    """The select of a page restricts an UPDATE, and through its keys a DELETE of a join."""
    fill(session, 10)
    changed = 0
    paid = sa.select(Order).where(Order.status == Status.PAID)
    for page, _ in ranges(session, paid, cursor=None, columns=[Order.due, Order.id.desc()], batch_size=2):
        condition = page.whereclause
        assert condition is not None
        update = sa.update(Order).where(condition).values(note=sa.func.coalesce(Order.note, "") + "x")
        changed += cast("sa.CursorResult[Any]", session.execute(update)).rowcount
    assert changed == 5
    assert set(session.scalars(sa.select(Order.note).where(Order.status == Status.PAID))) == {"x"}
    lines = sa.select(Line).join(Order, Order.id == Line.order_id).where(Order.customer_id == 1)
    for page, _ in ranges(session, lines, cursor=None, batch_size=2):
        key = sa.tuple_(Line.order_id, Line.place)
        session.execute(sa.delete(Line).where(key.in_(page.with_only_columns(Line.order_id, Line.place))))
    assert session.scalars(lines).all() == []
    assert session.scalars(sa.select(Line)).first() is not None


def test_a_range_includes_rows_that_come_late(session: Session) -> None:
    """A range is one of keys, not a list of rows: what is inserted into it belongs to it."""
    session.add_all(Party(id=n) for n in (10, 20, 30))
    session.commit()
    pages = iter(ranges(session, Party, cursor=None, batch_size=2))
    first, cursor = next(pages)
    assert cursor == 20
    session.add(Party(id=15))
    session.commit()
    assert [party.id for party in session.scalars(first.order_by(Party.id))] == [10, 15, 20]
    assert [party.id for party in session.scalars(next(pages)[0])] == [30]


def test_rows_keep_their_names(session: Session) -> None:
    """Rows have the columns that were selected and no others, by name and by column."""
    fill(session, 1)
    ((row, cursor),) = records(session, sa.select(Order.due, Order.status.label("state")), cursor=None)
    assert (row._asdict(), cursor) == ({"due": date(2026, 2, 27), "state": Status.NEW}, 0)
    assert row._mapping[Order.due] == row.due


@pytest.mark.parametrize(
    ("columns", "cursor"),
    [
        (None, 0),
        (Order.amount, (Decimal("0.00"), 0)),
        (Order.due, (date(2026, 2, 27), 0)),
        (Order.placed, (datetime(2026, 3, 29, 0, 59, 59, 999_990, tzinfo=UTC), 0)),
        (Order.seen, (datetime(2026, 3, 29, 0, 59, 59, 999_990, tzinfo=UTC), 0)),
        (Order.token, uuid.uuid5(uuid.NAMESPACE_OID, "0")),
        (Order.status, ({"stored": "NEW"}, 0)),
    ],
)
def test_cursors_are_natural_values(session: Session, columns: Any, cursor: Any) -> None:
    """A cursor is what the column's type makes of the value; only what JSON could not hold is as stored."""
    fill(session, 1)
    ((_, found),) = records(session, Order, cursor=None, columns=columns)
    if session.get_bind().dialect.name == "sqlite" and columns is Order.placed:
        cursor = (cursor[0].replace(tzinfo=None), 0)
    assert found == cursor
    assert list(records(session, Order, cursor=cursor, columns=columns)) == []


def test_a_job_may_start_from_a_value(session: Session) -> None:
    """A cursor written by hand starts after that value; members of an Enum may be given as they are."""
    fill(session, 10)
    day = date(2026, 2, 28)
    late = [order.due for order, _ in records(session, Order, cursor=(day, 10**9), columns=Order.due)]
    assert late == [date(2026, 3, 1)] * 3
    paid = records(session, Order, cursor=(Status.NEW, 10**9), columns=Order.status)
    assert {order.status for order, _ in paid} == {Status.PAID}


@pytest.mark.parametrize(
    ("columns", "cursor", "allowed"),
    [
        (None, "7", r"one value, orders.id \(int\); found '7'"),
        (None, True, "found True"),
        (None, (7,), r"one value, orders.id \(int\); found \(7,\)"),
        (Order.due, (date(2026, 1, 1),), r"a tuple of 2, orders.due \(date\), orders.id \(int\); found \("),
        (Order.due, [date(2026, 1, 1), 7], r"a tuple of 2, orders.due \(date\), orders.id \(int\); found \["),
        (Order.due, ("2026-01-01", 7), "found"),
        (Order.due, (datetime(2026, 1, 1, tzinfo=UTC), 7), "found"),
        (Order.due, (date(2026, 1, 1), None), "found"),
        (Order.amount, (1.5, 7), r"orders.amount \(Decimal\)"),
        (Order.token, "0" * 32, r"orders.token \(UUID\)"),
        (Order.seen, (datetime(2026, 1, 1), 7), r"orders.seen \(Utc\(\)\)"),  # noqa: DTZ001
        (Order.seen, ("yesterday", 7), r"orders.seen \(Utc\(\)\)"),
    ],
)
def test_other_cursors_are_refused(session: Session, columns: Any, cursor: Any, allowed: str) -> None:
    """A cursor of another key is refused at once, with what was found and what is allowed."""
    for name, read in (("records", records), ("batches", batches), ("ranges", ranges)):
        with pytest.raises(CursorError, match=rf"{name}\(\) resumes from None or .*{allowed}"):
            read(session, Order, cursor=cursor, columns=columns)


lonely = sa.Table(
    "lonely",
    sa.MetaData(),
    sa.Column("id", sa.Integer, nullable=False),
    sa.Column("code", sa.String, nullable=False),
    sa.Column("tag", sa.String, nullable=False),
    sa.Column("name", sa.String, nullable=False),
    sa.Index("code_of_some", "code", unique=True, sqlite_where=sa.text("id > 3")),
    sa.Index("name_in_lower_case", sa.func.lower(sa.column("name")), unique=True),
    sa.Index("tag", "tag", unique=True),
)
newest = sa.select(Order).limit(3).subquery("newest")


@pytest.mark.parametrize(
    ("select", "columns", "reason"),
    [
        (sa.select(Order).order_by(Order.due), None, "ORDER BY in pages: .* name the columns in columns="),
        (sa.select(Order).limit(3), None, "LIMIT in pages: .* where"),
        (sa.select(Order).fetch(3), None, "FETCH in pages"),
        (sa.select(Order).offset(3), None, "OFFSET in pages: .* start from a cursor"),
        (sa.select(Order).distinct(), None, r"DISTINCT in pages: .* exists\(\)"),
        (sa.select(Order.due).group_by(Order.due), None, "GROUP BY in pages: groups have no key"),
        (sa.select(Order.due).having(sa.func.count() > 1), None, "HAVING in pages"),
        (sa.select(Order).with_for_update(), None, "FOR UPDATE in pages: its locks"),
        (sa.select(sa.literal(1)), None, "without a table"),
        (Order, Order.note, "sort by orders.note: it is nullable, and NULL compares with nothing"),
        (Order, Order.weight, "sort by orders.weight: a float"),
        (Order, Customer.email, "sort by customers.email: .* take a column of orders"),
        (other, Order.due, "sort by orders.due: the select does not read its table or alias; .* of other"),
        (Order, sa.func.lower(Order.status), "sorts by columns such as .* found lower"),
        (Order, "due", "sorts by columns such as .* found 'due'"),
        (Order, Order.due.desc().nulls_last(), "sorts by columns"),
        (sa.select(bare), bare.c.value, "rows of bare apart, for it has no primary key"),
        (sa.select(newest), newest.c.id, "rows of newest apart"),
        (sa.select(Order).join(newest, newest.c.id == Order.id), None, "rows of newest apart"),
        (sa.select(lonely), lonely.c.code, "rows of lonely apart"),
        (sa.select(lonely), lonely.c.name, "rows of lonely apart"),
        (
            sa.select(Order).outerjoin(Order.lines),
            None,
            "sort by lines.order_id: an outer join may leave it NULL",
        ),
        (sa.select(Order).join(Order.lines, full=True), None, "an outer join may leave it NULL"),
        (sa.select(Customer).outerjoin(Customer.orders), Order.id, "sort by orders.id: an outer join"),
    ],
)
def test_what_would_lose_rows_is_refused(session: Session, select: Any, columns: Any, reason: str) -> None:
    """A select or a key by which rows could get lost is refused at once, with the reason and the way out."""
    for read in (records, batches, ranges):
        with pytest.raises(JobDefinitionError, match=reason):
            read(session, select, cursor=None, columns=columns)


def test_what_is_unique_needs_no_primary_key(session: Session) -> None:
    """A unique index, or a unique constraint whose other columns the select fixes, is key enough."""
    lonely.create(session.connection())
    rows = [{"id": n, "code": str(n), "tag": str(-n), "name": str(n)} for n in range(3)]
    session.execute(lonely.insert(), rows)
    found = records(session, sa.select(lonely.c.id), cursor=None, columns=lonely.c.tag)
    assert sorted(cursor for _, cursor in found) == ["-1", "-2", "0"]
    session.add(Customer(id=0, email="", city=""))
    fixed = sa.select(Line).where(Line.order_id == 7)
    assert list(records(session, fixed, cursor=3, columns=Line.place)) == []


def test_a_collection_loaded_by_join_is_refused(session: Session) -> None:
    """A page cannot load collections by a join; the error names selectinload()."""
    fill(session, 3)
    pairs = records(session, sa.select(Order).options(joinedload(Order.lines)), cursor=None)
    with pytest.raises(JobDefinitionError, match=r"selectinload\(\)"):
        next(iter(pairs))
    assert not session.in_transaction()


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((object(), Order, 100), "takes a Session, found object"),
        ((None, [Order], 100), r"takes a select\(\) or a mapped class, found list"),
        ((None, sa.text("SELECT 1"), 100), "found TextClause"),
        ((None, sa.union(sa.select(Order.id), sa.select(Line.place)), 100), "found CompoundSelect"),
        ((None, Order, 0), "takes a batch_size of 1 or more, found 0"),
        ((None, Order, True), "found True"),
    ],
)
def test_other_arguments_are_refused(session: Session, arguments: tuple[Any, Any, Any], found: str) -> None:
    """Arguments of other types are refused with what was found."""
    given, select, batch_size = arguments
    for read in (records, batches, ranges):
        with pytest.raises(TypeError, match=found):
            read(given or session, select, cursor=None, batch_size=batch_size)


def test_pages_are_found_by_index(
    engine: sa.Engine, session: Session, queries: list[tuple[str, Any]]
) -> None:
    """A page is one range of an index: of all key columns if they go one way, else of the first of them."""
    fill(session, 3)
    article, order, place = Line.article, Line.order_id, Line.place
    session.execute(sa.text("CREATE INDEX one_way ON lines (article, order_id, place)"))
    session.execute(sa.text("CREATE INDEX mixed ON lines (place, order_id DESC)"))
    sqlite = engine.dialect.name == "sqlite"
    if not sqlite:
        # Of a table this small, reading it all costs less.
        session.execute(sa.text("SET enable_seqscan = off"))
        session.execute(sa.text("SET enable_bitmapscan = off"))
    for columns, cursor, sqlite_plan, postgresql_plan in (
        (
            [article, order, place],
            ("", 0, 0),
            "one_way ((article,order_id,place)>(?,?,?))",
            "ROW(article, order_id",
        ),
        ([order.desc(), place.desc()], (9, 9), "((order_id,place)<(?,?))", "ROW(order_id, place) < ROW"),
        ([place, order.desc()], (0, 0), "mixed (place>?)", "Index Cond: (place >= "),
    ):
        list(records(session, Line, cursor=cursor, columns=columns))
        statement, parameters = queries[-1]
        explain = f"EXPLAIN {'QUERY PLAN ' if sqlite else ''}{statement}"
        plan = "\n".join(str(row[-1]) for row in session.connection().exec_driver_sql(explain, parameters))
        assert (sqlite_plan if sqlite else postgresql_plan) in plan
        assert "B-TREE" not in plan
        assert "Sort" not in plan
