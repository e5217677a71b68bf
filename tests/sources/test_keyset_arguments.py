"""Arguments of :mod:`harness.sources.keyset`: cursors, keys and selects, and the errors for those it refuses."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased, joinedload

from harness.errors import CursorError, JobDefinitionError
from tests import keyset_tables
from tests.greenlets import batches, ranges, records
from tests.keyset_tables import Customer, Line, Order, Status, fill

engine, session = keyset_tables.engine, keyset_tables.session


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
        (None, "7", r"one value, orders.id \(int\); got '7'"),
        (None, True, "got True"),
        (None, (7,), r"one value, orders.id \(int\); got \(7,\)"),
        (Order.due, (date(2026, 1, 1),), r"a tuple of 2, orders.due \(date\), orders.id \(int\); got \("),
        (Order.due, [date(2026, 1, 1), 7], r"a tuple of 2, orders.due \(date\), orders.id \(int\); got \["),
        (Order.due, ("2026-01-01", 7), "got"),
        (Order.due, (datetime(2026, 1, 1, tzinfo=UTC), 7), "got"),
        (Order.due, (date(2026, 1, 1), None), "got"),
        (Order.amount, (1.5, 7), r"orders.amount \(Decimal\)"),
        (Order.token, "0" * 32, r"orders.token \(UUID\)"),
        (Order.seen, (datetime(2026, 1, 1), 7), r"orders.seen \(Utc\(\)\)"),  # noqa: DTZ001
        (Order.seen, ("yesterday", 7), r"orders.seen \(Utc\(\)\)"),
    ],
)
def test_other_cursors_are_refused(session: Session, columns: Any, cursor: Any, allowed: str) -> None:
    """A cursor of another key is refused by the call, with what it got and what is allowed."""
    for name, read in (("records", records), ("batches", batches), ("ranges", ranges)):
        with pytest.raises(CursorError, match=rf"{name}\(\) resumes from None or .*{allowed}"):
            read(session, Order, cursor=cursor, columns=columns)


other = aliased(Order, name="other")
bare = sa.Table("bare", sa.MetaData(), sa.Column("value", sa.Integer, nullable=False))
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
        (Order, Order.note, "sort by orders.note: it is nullable, and no comparison with NULL is true"),
        (Order, Order.weight, "sort by orders.weight: a float"),
        (Order, Customer.email, "sort by customers.email: .* use a column of orders"),
        (other, Order.due, "sort by orders.due: the select does not read its table or alias; .* of other"),
        (Order, sa.func.lower(Order.status), "sorts by columns such as .* got lower"),
        (Order, "due", "sorts by columns such as .* got 'due'"),
        (Order, Order.due.desc().nulls_last(), "sorts by columns"),
        (sa.select(bare), bare.c.value, "cannot identify the rows of bare: no primary key"),
        (sa.select(newest), newest.c.id, "cannot identify the rows of newest"),
        (sa.select(Order).join(newest, newest.c.id == Order.id), None, "cannot identify the rows of newest"),
        (sa.select(lonely), lonely.c.code, "cannot identify the rows of lonely"),
        (sa.select(lonely), lonely.c.name, "cannot identify the rows of lonely"),
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
    """A select or a key that could lose rows is refused by the call, with the reason and the way out."""
    for read in (records, batches, ranges):
        with pytest.raises(JobDefinitionError, match=reason):
            read(session, select, cursor=None, columns=columns)


def test_what_is_unique_needs_no_primary_key(session: Session) -> None:
    """A unique index, or a unique constraint whose other columns the select fixes, is a sufficient key."""
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
        ((object(), Order, 100), "takes a Session or an AsyncSession; got object"),
        ((None, [Order], 100), r"takes a select\(\) or a mapped class; got list"),
        ((None, sa.text("SELECT 1"), 100), "got TextClause"),
        ((None, sa.union(sa.select(Order.id), sa.select(Line.place)), 100), "got CompoundSelect"),
        ((None, Order, 0), "takes a batch_size of 1 or more; got 0"),
        ((None, Order, True), "got True"),
    ],
)
def test_other_arguments_are_refused(session: Session, arguments: tuple[Any, Any, Any], found: str) -> None:
    """Arguments of other types are refused with what was found."""
    given, select, batch_size = arguments
    for read in (records, batches, ranges):
        with pytest.raises(TypeError, match=found):
            read(given or session, select, cursor=None, batch_size=batch_size)
