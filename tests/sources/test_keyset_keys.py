"""Keys that no table declares: a mapper's, a subquery's, the caller's; and columns that are NULL in other rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column, registry

from harness import Enumerator, InlineRun, IterationJob, parallel_records
from harness.errors import CursorError, JobDefinitionError
from harness.stops import Every
from tests.databases import empty_database
from tests.greenlets import EVERY_KIND_IN_FULL, as_asked, batches, call, ranges, records, session_on
from tests.jobs import DONE


class Base(DeclarativeBase):
    """Base of the tables of this module."""


class Bill(Base):
    """A table in the classic spelling, in which columns may be NULL that hardly are."""

    __tablename__ = "bills"
    id: Mapped[int] = mapped_column(primary_key=True)
    due: Mapped[int | None]
    ref = mapped_column(sa.String(20), unique=True)
    made = mapped_column(sa.Integer, server_default="7")
    twice: Mapped[int]


class Part(Base):
    """Parts of some bills."""

    __tablename__ = "parts"
    id: Mapped[int] = mapped_column(primary_key=True)
    bill_id: Mapped[int] = mapped_column(sa.ForeignKey(Bill.id))
    size: Mapped[int | None]


# As reflection gives them: a view has no keys, and each of its columns may be NULL.
views = sa.MetaData()
view = sa.Table("open_bills", views, sa.Column("bill", sa.Integer), sa.Column("due", sa.Integer))
named = sa.table("open_bills", sa.column("bill", sa.Integer), sa.column("due"))


class OpenBill:
    """A class over the view, with a key that only its mapper knows."""

    bill: Any
    due: Any


registry().map_imperatively(OpenBill, view, primary_key=[view.c.bill])
per_bill = sa.select(Part.bill_id, sa.func.count().label("n")).group_by(Part.bill_id).subquery("per_bill")


class PerBill(Base):
    """A class over a subquery."""

    __table__ = per_bill
    __mapper_args__ = {"primary_key": [per_bill.c.bill_id]}  # noqa: RUF012


@pytest.fixture(params=EVERY_KIND_IN_FULL)
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Return a session of tables with rows; nothing of a test is committed."""
    with empty_database(request, tmp_path_factory.mktemp("keys")) as engine:
        Base.metadata.create_all(engine, [Base.metadata.tables[name] for name in ("bills", "parts")])
        with engine.begin() as connection:
            connection.execute(
                sa.text("CREATE VIEW open_bills AS SELECT id AS bill, due FROM bills WHERE due IS NOT NULL")
            )
        with session_on(as_asked(engine, request)) as session:
            call(session, fill, session)
            yield session


def fill(session: Session) -> None:
    """Write the rows, and leave them uncommitted."""
    session.add_all(
        Bill(id=n, due=None if n % 3 == 0 else n // 4, ref=f"r{n:02}", twice=n // 2) for n in range(1, 13)
    )
    session.flush()
    session.add_all(Part(id=n, bill_id=1 + n % 5, size=None if n % 2 else n) for n in range(1, 9))
    session.flush()


def resumed(session: Session, select: Any, **options: Any) -> list[Any]:
    """Read all, one row an execution: each begins at the cursor of the one before."""
    found, cursor = [], None
    while pair := next(iter(records(session, select, cursor=cursor, **options)), None):
        item, cursor = pair
        found.append(item)
        assert len(found) < 100
    return found


other = aliased(Bill)
opened = aliased(OpenBill)
due_days = sa.select(Bill.due).where(Bill.due.is_not(None)).distinct().subquery()
lower = sa.select(Bill.id, sa.func.lower(Bill.ref).label("low")).subquery()
pairs = sa.select(Bill.id, Part.id.label("part")).join(Part, Part.bill_id == Bill.id).subquery()
either = sa.union(sa.select(Bill.id.label("x")), sa.select(Part.id + 100)).subquery()
READ = {
    "mapper of a view": (OpenBill, {}, 8),
    "alias of a mapped view": (sa.select(opened), {}, 8),
    "columns of a mapped view": (sa.select(OpenBill.due.label("bill")), {}, 8),
    "mapped view, descending": (OpenBill, {"columns": [OpenBill.bill.desc()]}, 8),
    "mapped view after another column": (sa.select(OpenBill).where(OpenBill.due >= 0), {"columns": [OpenBill.due]}, 8),
    "join to a mapped view": (sa.select(Bill, OpenBill).join(OpenBill, OpenBill.bill == Bill.id), {}, 8),
    "join of a mapped view": (sa.select(OpenBill, Part).join(Part, Part.bill_id == OpenBill.bill), {}, None),
    "mapper of a subquery": (PerBill, {}, 5),
    "alias of a mapped subquery": (aliased(PerBill), {}, 5),
    "view, vouched": (sa.select(view), {"columns": [view.c.bill], "unique": True}, 8),
    "table() vouched": (sa.select(named), {"columns": named.c.bill.desc(), "unique": True}, 8),
    "table() without types, vouched": (
        sa.select(named), {"columns": [named.c.due, named.c.bill], "unique": True}, 8,
    ),
    "never NULL, vouched": (Bill, {"columns": [Bill.made, Bill.id], "unique": True}, 12),
    "text, vouched": (Bill, {"columns": [Bill.ref], "unique": True}, 12),
    "union, vouched": (sa.select(either), {"columns": [either.c.x], "unique": True}, 20),
    "grouped subquery": (sa.select(per_bill), {"columns": [per_bill.c.bill_id]}, 5),
    "distinct subquery": (sa.select(due_days.c.due), {"columns": [due_days.c.due]}, 3),
    "subquery of a table": (sa.select(lower), {}, 12),
    "expression of a subquery": (
        sa.select(lower).where(lower.c.low.is_not(None)), {"columns": [lower.c.low, lower.c.id]}, 12,
    ),
    "subquery of a join": (sa.select(pairs.c.id), {}, 8),
    "alias of a subquery": (sa.select(lower.alias()), {}, 12),
    "CTE": (sa.select(sa.select(Bill).where(Bill.id > 3).cte()), {}, 9),
    "join to a subquery": (
        sa.select(Bill, per_bill.c.n).join(per_bill, per_bill.c.bill_id == Bill.id), {}, 5,
    ),
    "nullable, IS NOT NULL": (sa.select(Bill).where(Bill.due.is_not(None)), {"columns": [Bill.due]}, 8),
    "nullable, compared": (sa.select(Bill).where(Bill.due > 0), {"columns": [Bill.due.desc()]}, 6),
    "nullable alias": (sa.select(other).where(other.due.in_([0, 1, 2])), {"columns": [other.due]}, 8),
    "nullable and unique": (sa.select(Bill).where(Bill.ref.like("r%")), {"columns": [Bill.ref]}, 12),
    "nullable, in each branch": (
        sa.select(Bill).where(sa.or_(Bill.due == 0, sa.and_(Bill.due > 1, Bill.id > 3))),
        {"columns": [Bill.due]}, None,
    ),
    "nullable, by the condition of a join": (
        sa.select(Bill).join(Part, sa.and_(Part.bill_id == Bill.id, Part.size == Bill.due)),
        {"columns": [Part.size]}, None,
    ),
    "outer side, not NULL": (
        sa.select(Bill, Part).outerjoin(Part, Part.bill_id == Bill.id).where(Part.size > 0),
        {"columns": [Part.size]}, 4,
    ),
    "key of an outer side that is there": (
        sa.select(Bill, Part).outerjoin(Part, Part.bill_id == Bill.id).where(Part.size > 0), {}, 4,
    ),
    "ORDER BY the key": (sa.select(Bill).order_by(Bill.id), {}, 12),
    "ORDER BY what the key begins with": (
        sa.select(Bill).order_by(Bill.twice.desc()), {"columns": [Bill.twice.desc(), Bill.id]}, 12,
    ),
}  # fmt: skip


@pytest.mark.each
@pytest.mark.parametrize(("select", "options", "rows"), READ.values(), ids=READ)
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_what_a_mapper_a_subquery_or_the_caller_knows_is_a_key(
    session: Session, select: Any, options: dict[str, Any], rows: int | None, batch_size: int
) -> None:
    """Every row comes once: resumed after each, in pages of any size, in lists and in ranges."""
    whole = select if isinstance(select, sa.Select) else sa.select(select)
    expected = [row[0] if len(row) == 1 else row for row in session.execute(whole).all()]
    assert len(expected) == (len(expected) if rows is None else rows)
    found = [item for item, _ in records(session, select, cursor=None, batch_size=batch_size, **options)]
    assert sorted(map(repr, found)) == sorted(map(repr, expected))
    assert resumed(session, select, **options) == found
    listed = batches(session, select, cursor=None, batch_size=batch_size, **options)
    assert [item for page, _ in listed for item in page] == found
    assert listed.size == len(found)
    selects = ranges(session, select, cursor=None, batch_size=batch_size, **options)
    rows_of_pages = [row for page, _ in selects for row in session.execute(page).all()]
    assert [row[0] if len(row) == 1 else row for row in rows_of_pages] == found


newest = sa.select(Bill).order_by(Bill.id.desc()).limit(3).subquery("newest")
outer = sa.select(Bill.id, Part.id.label("part")).outerjoin(Part, Part.bill_id == Bill.id).subquery("outer")
stacked = sa.union_all(sa.select(Bill.id), sa.select(Part.size)).subquery("stacked")
sampled = sa.tablesample(Bill.__table__, 50)
REFUSED = {
    "view": (sa.select(view), {}, "rows of open_bills: .* columns=[…] with unique=True, or set primary_key="),
    "view by columns": (sa.select(view), {"columns": [view.c.bill]}, "with unique=True"),
    "vouched without columns": (Bill, {"unique": True}, "unique=True without columns=; name columns"),
    "subquery with LIMIT": (sa.select(newest), {"columns": [newest.c.id]}, "rows of newest: .* unique=True"),
    "part of a group": (
        sa.select(per_bill).where(per_bill.c.n > 0), {"columns": [per_bill.c.n]}, "identify the rows of per_bill",
    ),
    "half of a join": (sa.select(outer), {"columns": [outer.c.id]}, "cannot sort by outer.part: it is nullable"),
    "UNION ALL": (sa.select(stacked), {"columns": [stacked.c.id]}, "cannot identify the rows of stacked"),
    "sample": (sa.select(sampled), {"columns": [sampled.c.id]}, "cannot identify"),
    "nullable": (Bill, {"columns": [Bill.due]}, ".where(bills.due.is_not(None))"),
    "nullable under OR": (
        sa.select(Bill).where(sa.or_(Bill.due > 1, Bill.id > 3)), {"columns": [Bill.due]}, "it is nullable",
    ),
    "nullable in NOT IN": (sa.select(Bill).where(Bill.due.not_in([])), {"columns": [Bill.due]}, "it is nullable"),
    "brought back by an outer join": (
        sa.select(Part).outerjoin(Bill, sa.and_(Part.bill_id == Bill.id, Bill.due > 3)),
        {"columns": [Bill.due, Part.id]}, ".where(bills.due.is_not(None))",
    ),
    "inner join within an outer one": (
        sa.select(Part.id).outerjoin(
            sa.join(Bill.__table__, other, sa.and_(other.id == Bill.id, Bill.due > 3)), Part.bill_id == Bill.id
        ),
        {"columns": [Bill.due, Part.id]}, "an outer join may leave it NULL",
    ),
    "distinct": (sa.select(Bill.due).distinct(), {}, "select from it as a subquery"),
    "groups": (sa.select(Bill.due).group_by(Bill.due), {}, "select from it as a subquery"),
    "expression": (Bill, {"columns": [sa.func.lower(Bill.ref)]}, "label it in a subquery"),
    "another order": (sa.select(Bill).order_by(Bill.due), {}, "here bills.id; remove ORDER BY"),
    "another direction": (sa.select(Bill).order_by(Bill.id.desc()), {}, "here bills.id;"),
}  # fmt: skip


@pytest.mark.pairwise
@pytest.mark.parametrize(("select", "options", "reason"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("read", [records, batches, ranges])
def test_a_refusal_names_a_way_out(
    session: Session, read: Any, select: Any, options: dict[str, Any], reason: str
) -> None:
    """A key that is not known to be unique is refused before anything is read, and the error says what works."""
    pattern = ".*".join(map(re.escape, reason.split(".* ")))
    with pytest.raises(JobDefinitionError, match=pattern):
        read(session, select, cursor=None, **options)


def test_unique_is_a_flag(session: Session) -> None:
    """A value other than True and False is refused."""
    with pytest.raises(TypeError, match="takes True or False as unique"):
        records(session, Bill, cursor=None, columns=[Bill.id], unique=[Bill.id])


@pytest.mark.pairwise
@pytest.mark.parametrize("read", [records, batches, ranges])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 12, 100])
@pytest.mark.parametrize("columns", [Bill.twice, [Bill.twice.desc()]])
def test_columns_that_are_not_unique_are_found_out(
    session: Session, read: Any, batch_size: int, columns: Any
) -> None:
    """Two rows with one key are a named error, within a page and across its edge; nothing after them is read."""
    with pytest.raises(JobDefinitionError, match=r"two rows with bills\.twice = .* name more columns"):
        list(read(session, Bill, cursor=None, columns=columns, unique=True, batch_size=batch_size))


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_a_mapper_that_is_wrong_is_found_out(session: Session, batch_size: int) -> None:
    """A mapper's key is checked as the caller's word is."""

    class Wrong:
        pass

    registry().map_imperatively(Wrong, view.to_metadata(sa.MetaData()), primary_key=["due"])
    with pytest.raises(JobDefinitionError, match=r"two rows with open_bills\.due"):
        list(records(session, Wrong, cursor=None, batch_size=batch_size))


@pytest.mark.pairwise
@pytest.mark.parametrize("batch_size", [1, 2, 100])
@pytest.mark.parametrize("read", [records, batches, ranges])
def test_what_a_collation_finds_equal_is_found_out(session: Session, read: Any, batch_size: int) -> None:
    """Rows that only the database finds equal would be skipped as well."""
    collation = "NOCASE"
    if session.get_bind().dialect.name == "postgresql":
        collation = "ignoring_case"
        session.execute(
            sa.text(
                "CREATE COLLATION ignoring_case"
                " (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
            )
        )
    session.execute(sa.text(f'CREATE TABLE words (word varchar(9) COLLATE "{collation}" NOT NULL)'))
    words = sa.table("words", sa.column("word", sa.String))
    session.execute(words.insert().values([{"word": word} for word in ("a", "b", "B", "c")]))
    with pytest.raises(JobDefinitionError, match=r"two rows with words\.word"):
        list(
            read(
                session,
                sa.select(words),
                cursor=None,
                columns=words.c.word,
                unique=True,
                batch_size=batch_size,
            )
        )


@pytest.mark.pairwise
@pytest.mark.parametrize("read", [records, batches, ranges])
@pytest.mark.parametrize("columns", [[Bill.due, Bill.id], [Bill.due.desc(), Bill.id.desc()]])
def test_a_null_that_was_vouched_against_is_an_error(session: Session, read: Any, columns: Any) -> None:
    """A row with NULL is no row that is skipped: before the first page, and if it comes while the job runs."""
    options = {"columns": columns, "unique": True, "batch_size": 2}
    with pytest.raises(
        CursorError, match=r"bills\.due is NULL, though declared .*\.where\(bills\.due\.is_not\(None\)\)"
    ):
        list(read(session, Bill, cursor=None, **options))
    session.execute(sa.delete(Part))
    session.execute(sa.delete(Bill).where(Bill.due.is_(None)))
    found = iter(read(session, Bill, cursor=None, **options))
    next(found)
    session.add(Bill(id=50, due=None, twice=1))
    session.flush()
    with pytest.raises(CursorError, match=r"bills\.due is NULL"):
        list(found)


def test_what_is_proven_costs_no_more(session: Session) -> None:
    """To vouch for what constraints show costs nothing: a page stays one query."""
    statements: list[str] = []
    sa.event.listen(session.get_bind(), "before_cursor_execute", lambda *given: statements.append(given[2]))
    list(records(session, Bill, cursor=None, columns=[Bill.id], unique=True, batch_size=5))
    assert len(statements) == 3


class Share(IterationJob):
    """Reads the view in several instances."""

    bind: ClassVar[Any]

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Hold a session."""
        with Session(self.bind) as self.session:
            yield

    def build_enumerator(self, *, cursor: Any) -> Enumerator[Any]:
        """Share what the caller vouches for."""
        key: dict[str, Any] = {"columns": [view.c.bill], "unique": True}
        return parallel_records(self.session, sa.select(view), instances=2, cursor=cursor, **key)

    def each_iteration(self, item: Any) -> None:
        """Note a row."""
        DONE.append(item.bill)


def test_instances_share_what_the_caller_vouches_for(session: Session, done: list[object]) -> None:
    """parallel_records() takes the flag, and each row of a view is in one slice."""
    session.commit()
    Share.bind = session.get_bind()
    InlineRun(Share, stops=[Every(2)]).drain()
    assert sorted(map(str, done)) == sorted(map(str, [1, 2, 4, 5, 7, 8, 10, 11]))
