"""One suite for all that :mod:`harness.sources.keyset` reads: random rows, pages of random size, resumed anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy.orm import Session, aliased, joinedload, selectinload

from harness.cursor import decode, encode
from tests.examples import examples
from tests.greenlets import EVERY_KIND_IN_FULL, batches, call, ranges, records, session_on
from tests.keyset_tables import Customer, Firm, Line, Order, Staff, Status, Ticket, fill, tables

ROWS = 12
plain = Order.__table__
other = aliased(Order, name="other")


@dataclass
class Case:
    """Select to read, its key columns, and the whole order that they must give."""

    select: Any
    columns: Any
    order: list[Any]

    def expected(self, session: Session) -> list[Any]:
        """Return what an ordinary query with ORDER BY finds."""
        return self.read(
            session, self.select if isinstance(self.select, sa.Select) else sa.select(self.select)
        )

    def read(self, session: Session, select: sa.Select[Any]) -> list[Any]:
        """Return what *select* finds, in order."""
        found = session.execute(select.order_by(*self.order)).all()
        return [row[0] if len(row) == 1 else row for row in found]


CASES = {
    "int": Case(Order, None, [Order.id]),
    "composite": Case(Line, None, [Line.order_id, Line.place]),
    "composite-part": Case(Line, Line.place, [Line.place, Line.order_id]),
    "string": Case(Customer, Customer.email.desc(), [Customer.email.desc()]),
    "uuid": Case(Ticket, None, [Ticket.id]),
    "uuid-unique": Case(Order, Order.token, [Order.token]),
    "enum": Case(Order, Order.status, [Order.status, Order.id]),
    "decimal": Case(Order, Order.amount, [Order.amount, Order.id]),
    "date": Case(Order, Order.due.desc(), [Order.due.desc(), Order.id.desc()]),
    "datetime": Case(Order, Order.placed, [Order.placed, Order.id]),
    "decorated": Case(Order, [Order.seen], [Order.seen, Order.id]),
    "current-timestamp": Case(Order, Order.created, [Order.created, Order.id]),
    "descending": Case(Order, Order.id.desc(), [Order.id.desc()]),
    "ascending": Case(Order, [Order.due.asc(), Order.id], [Order.due, Order.id]),
    "mixed": Case(Order, [Order.status, Order.id.desc()], [Order.status, Order.id.desc()]),
    "mixed-of-3": Case(
        Order,
        (Order.due.desc(), Order.amount, Order.id.desc()),
        [Order.due.desc(), Order.amount, Order.id.desc()],
    ),
    "where": Case(sa.select(Order).where(Order.status == Status.PAID), None, [Order.id]),
    "join-to-one": Case(
        sa.select(Order).join(Order.customer).where(Customer.city == "A"),
        [Customer.city, Order.id],
        [Customer.city, Order.id],
    ),
    "outer-join-to-one": Case(sa.select(Order, Customer.city).outerjoin(Order.customer), None, [Order.id]),
    # Nothing ties a customer to an order but the outer side, and that only where it is there.
    "outer-join-of-two": Case(
        sa.select(Order.id, Customer.city)
        .join(Customer, sa.true())
        .outerjoin(other, sa.and_(other.id == Order.id, other.customer_id == Customer.id)),
        Order.id,
        [Order.id, Customer.id],
    ),
    "join-to-many": Case(sa.select(Order, Line.article).join(Order.lines), None, [Order.id, Line.place]),
    "join-by-where": Case(
        sa.select(Line).where(Line.order_id == Order.id, Order.customer_id == 1),
        Line.place,
        [Line.place, Line.order_id],
    ),
    "self-join": Case(
        sa.select(Order.id, other.id.label("second")).join(other, other.customer_id == Order.customer_id),
        other.id,
        [other.id, Order.id],
    ),
    "alias": Case(other, other.token, [other.token]),
    "joinedload-to-one": Case(sa.select(Order).options(joinedload(Order.customer)), None, [Order.id]),
    "selectinload": Case(sa.select(Order).options(selectinload(Order.lines)), None, [Order.id]),
    "single-table-class": Case(Firm, None, [Firm.id]),
    "joined-table-class": Case(Staff, [Staff.rank], [Staff.rank, Staff.id]),
    "table": Case(sa.select(plain), plain.c.due, [plain.c.due, plain.c.id]),
    "column": Case(sa.select(Order.id), None, [Order.id]),
    "column-without-key": Case(sa.select(plain.c.due), None, [plain.c.id]),
    "columns-without-key": Case(sa.select(Order.due, Order.status.label("s")), None, [Order.id]),
}


@pytest.fixture(scope="module", params=EVERY_KIND_IN_FULL)
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Return a session of tables that have rows; nothing is committed to them."""
    with tables(request, tmp_path_factory.mktemp("keyset")) as engine, session_on(engine) as session:
        call(session, fill, session, ROWS)
        yield session


def stored(cursor: Any) -> Any:
    """Return the cursor as the next execution gets it."""
    return decode(json.loads(json.dumps(encode(cursor))))


@pytest.mark.each
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@given(
    gone=st.sets(st.integers(0, ROWS - 1)),
    batch_size=st.integers(1, ROWS + 1),
    done=st.integers(0, ROWS),
)
@example(gone=set(), batch_size=3, done=3)
@example(gone=set(range(ROWS)), batch_size=1, done=0)
@examples(10)
def test_pages_are_the_ordinary_query(
    filled: Session, case: Case, gone: set[int], batch_size: int, done: int
) -> None:
    """Pages of any size, resumed from any cursor, yield the rows of one query with ORDER BY."""
    options = {"columns": case.columns, "batch_size": batch_size}
    with filled as session:
        for column in (Line.order_id, Order.id, Staff.id, Firm.id):
            session.execute(sa.delete(column.class_).where(column.in_(gone)))
        expected = case.expected(session)
        pairs = list(records(session, case.select, cursor=None, **options))
        assert [item for item, _ in pairs] == expected
        cursors = [cursor for _, cursor in pairs]
        assert [stored(cursor) for cursor in cursors] == cursors

        done = min(done, len(cursors))
        cursor = stored(cursors[done - 1]) if done else None
        pages = [expected[start : start + batch_size] for start in range(done, len(expected), batch_size)]
        lasts = [
            cursors[min(start + batch_size, len(cursors)) - 1]
            for start in range(done, len(expected), batch_size)
        ]
        rest = records(session, case.select, cursor=cursor, **options)
        assert list(rest) == pairs[done:]
        found = batches(session, case.select, cursor=cursor, **options)
        assert list(found) == list(zip(pages, lasts, strict=True))
        assert rest.size == found.size == len(expected)
        selects = ranges(session, case.select, cursor=cursor, **options)
        assert [(case.read(session, select), last) for select, last in selects] == list(
            zip(pages, lasts, strict=True)
        )
        assert selects.size == -(-len(expected) // batch_size)
