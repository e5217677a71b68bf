"""Rules of :mod:`harness.sources.keyset`, on SQLite and PostgreSQL."""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Callable
from datetime import date
from itertools import count
from typing import Any, cast

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.orm import Session, aliased, scoped_session, sessionmaker

from harness import IterationJob, events, run, subscribe
from tests import keyset_tables
from tests.greenlets import batches, ranges, records
from tests.keyset_tables import Base, Line, Order, Party, Status, Ticket, fill

engine, session, queries = keyset_tables.engine, keyset_tables.session, keyset_tables.queries


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


@pytest.mark.parametrize("read", [records, batches, ranges])
def test_a_page_read_is_an_event(session: Session, read: Callable[..., Any]) -> None:
    """The event has the rows and the duration by the job's clock, for subscribers that ask for that event (I16)."""
    session.add_all(Ticket(id=uuid.UUID(int=n)) for n in range(5))
    session.commit()
    ticks = count()

    class Reads(IterationJob):
        def build_enumerator(self, *, cursor: Any) -> Any:
            return read(session, Ticket, cursor=cursor, batch_size=3)

        def each_iteration(self, item: Any) -> None:
            """Do nothing."""

    seen, others = list[Any](), list[Any]()
    with subscribe(seen.append, events.PageRead), subscribe(others.append):
        run(Reads, job_id="7", clock=lambda: float(next(ticks)))
        list(read(session, Ticket, cursor=None))  # of no job
    assert [(event.job_id, event.job, event.rows) for event in seen] == [("7", "Reads", 3), ("7", "Reads", 2)]
    assert all(event.duration_s == 1 for event in seen)
    assert not any(isinstance(event, events.PageRead) for event in others)


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
    """If no transaction was open before a page, none is open after it, and its objects need no further query."""
    fill(session, 4)
    session.expunge_all()
    expires = session.expire_on_commit
    for order, _ in records(session, Order, cursor=None, batch_size=2):
        assert not session.in_transaction()
        before = len(queries)
        assert (order.id, order.amount, order.note) == (order.id, order.amount, None)
        assert len(queries) == before
        assert order in session
    assert session.expire_on_commit is expires


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
    pairs, expires = iter(records(session, Ticket, cursor=None)), session.expire_on_commit
    Base.metadata.tables["tickets"].drop(session.get_bind())
    with pytest.raises((OperationalError, ProgrammingError)):
        next(pairs)
    assert not session.in_transaction()
    assert session.expire_on_commit is expires


def test_a_scoped_session_is_a_session(
    engine: sa.Engine, session: Session, queries: list[tuple[str, Any]]
) -> None:
    """A scoped session reads as the session behind it does: its objects do not expire either."""
    scoped = scoped_session(sessionmaker(engine))
    fill(scoped(), 3)
    for (order, _), _ in zip(records(scoped, Order, cursor=None), range(2), strict=False):
        before = len(queries)
        assert order.weight >= 0
        assert len(queries) == before
    scoped.remove()


def test_memory_holds_one_page(session: Session) -> None:
    """Objects that the job no longer references are freed before the next page is read."""
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
        # The last query of all looks for NULL in a column that only the model declares NOT NULL.
        statement, parameters = next(each for each in reversed(queries) if "ORDER BY" in each[0])
        explain = f"EXPLAIN {'QUERY PLAN ' if sqlite else ''}{statement}"
        plan = "\n".join(str(row[-1]) for row in session.connection().exec_driver_sql(explain, parameters))
        assert (sqlite_plan if sqlite else postgresql_plan) in plan
        assert "B-TREE" not in plan
        assert "Sort" not in plan
