"""Rules of :func:`harness.sources.keyset.ranges`: labels, the search for the end of a page, order, literals."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased, joinedload, with_loader_criteria

from tests import keyset_tables
from tests.greenlets import batches, ranges, records
from tests.keyset_tables import Customer, Firm, Order, Party, fill

engine, session, queries = keyset_tables.engine, keyset_tables.session, keyset_tables.queries
other = aliased(Order)
LABELS = {
    "like the key": sa.select(Order.note.label("id")),
    "like the key, next to the entity": sa.select(Order, (Order.id + 1).label("id")),
    "before the entity": sa.select((Order.id + 1).label("id"), Order),
    "the key by another name": sa.select(Order.id.label("x")),
    "one name twice": sa.select(Order.id.label("a"), Order.due.label("a")),
    "one column twice": sa.select(Order.id, Order.id),
    "a name of ours": sa.select(
        Order.due.label("keyset_0"), Order.id.label("anon_1"), Order.id.label("id_1")
    ),
    "of an alias": sa.select(other.due.label("id"), other),
    "of a join": sa.select(Customer.id.label("id"), Order.id.label("id")).join(Order.customer),
    "of an expression": sa.select(sa.func.lower(Customer.email).label("id")),
    "of a subquery": sa.select(
        sa.select(sa.func.count(Customer.id)).scalar_subquery().label("id"), Order.due
    ),
    "of a class without a table": sa.select(Firm.kind.label("id"), Firm),
    "of an expression of such a class": sa.select(sa.func.lower(Firm.kind).label("id")),
    "with criteria": sa.select(Order.due.label("id")).options(
        with_loader_criteria(Order, Order.customer_id > 0)
    ),
    "with an option": sa.select(Order.due.label("id"), Order).options(joinedload(Order.customer)),
}


@pytest.mark.pairwise
@pytest.mark.parametrize("select", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("batch_size", [1, 2, 100])
@pytest.mark.parametrize("guard", [False, True])
def test_labels_may_have_any_name(
    session: Session, select: sa.Select[Any], batch_size: int, guard: bool
) -> None:
    """The same rows come in the same order by rows, lists and ranges, and the sizes count them."""
    fill(session, 7)
    expected = session.execute(select).all()
    options: dict[str, Any] = {"cursor": None, "batch_size": batch_size, "guard": guard}
    rows = records(session, select, **options)
    found = [(item if isinstance(item, sa.Row) else (item,), cursor) for item, cursor in rows]
    assert sorted(map(str, (tuple(row) for row, _ in found))) == sorted(map(str, map(tuple, expected)))
    assert rows.size == len(expected)
    pages = ranges(session, select, **options)
    listed = [([tuple(row) for row in session.execute(page).all()], cursor) for page, cursor in pages]
    assert [row for page, _ in listed for row in page] == [tuple(row) for row, _ in found]
    assert [cursor for _, cursor in listed] == [cursor for _, cursor in batches(session, select, **options)]
    assert pages.size == len(listed)


def test_the_search_for_the_end_of_a_page_names_the_key_only(
    session: Session, queries: list[tuple[str, Any]]
) -> None:
    """The search does not select columns that it does not need."""
    fill(session, 5)
    del queries[:]
    for _ in ranges(session, sa.select(Order).where(Order.customer_id > 0), cursor=None, batch_size=2):
        pass
    assert queries
    for statement, _ in queries:
        assert "orders.note" not in statement
        assert "orders.due" not in statement


def test_rows_of_a_page_come_in_the_order_of_the_key(session: Session) -> None:
    """Rows have the order of the key without a request of the caller, even if the page is read in pages again."""
    fill(session, 12)
    columns = [Order.status.desc(), Order.id]
    expected = session.scalars(sa.select(Order).order_by(*columns)).all()
    pages = [page for page, _ in ranges(session, Order, cursor=None, columns=columns, batch_size=5)]
    assert [order for page in pages for order in session.scalars(page)] == expected
    nested = [records(session, page, cursor=None, columns=columns, batch_size=2) for page in pages]
    assert [order for rows in nested for order, _ in rows] == expected


def test_a_page_changes_rows_through_its_condition_and_its_keys(session: Session) -> None:
    """The order is in no one's way: not of an UPDATE, not of a subquery."""
    session.add_all(Party(id=n) for n in range(10))
    session.commit()
    for page, _ in ranges(session, Party, cursor=None, batch_size=4):
        assert page.whereclause is not None
        session.execute(sa.update(Party).where(page.whereclause).values(kind="seen"))
    assert session.scalars(sa.select(Party.__table__.c.kind).distinct()).all() == ["seen"]
    for page, _ in ranges(session, sa.select(Party.__table__), cursor=None, batch_size=4):
        keys = page.with_only_columns(Party.__table__.c.id)
        session.execute(sa.delete(Party).where(Party.__table__.c.id.in_(keys)))
    assert session.scalar(sa.select(sa.func.count()).select_from(Party.__table__)) == 0


@pytest.mark.parametrize(
    "columns",
    [
        None,
        Order.amount,
        Order.due,
        Order.placed,
        Order.seen,
        Order.token,
        Order.status,
        Order.created.desc(),
    ],
)
def test_a_page_can_be_rendered_with_its_values(session: Session, columns: Any) -> None:
    """The text of a page, with literals, gives the rows of the page: for a log, for psql."""
    fill(session, 7)
    select = sa.select(Order.id).where(Order.customer_id >= 0)
    for page, _ in ranges(session, select, cursor=None, columns=columns, batch_size=2):
        text = page.compile(session.get_bind(), compile_kwargs={"literal_binds": True})
        found = session.connection().exec_driver_sql(str(text)).scalars().all()
        assert found == session.scalars(page).all()
