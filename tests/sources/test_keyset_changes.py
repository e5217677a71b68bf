"""Whatever a caller builds and whatever changes between pages, a row that stays comes once, or an error has a name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import event, given
from hypothesis import strategies as st
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column, registry

from harness.cursor import decode, encode
from harness.errors import HarnessError
from tests.databases import empty_database
from tests.examples import examples
from tests.greenlets import EVERY_KIND_IN_FULL, as_asked, batches, ranges, records, session_on


class Base(DeclarativeBase):
    """Base of the tables of this module."""


class Thing(Base):
    """A row with columns that may be NULL, and with few values."""

    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    a: Mapped[int | None]
    b: Mapped[int] = mapped_column()
    word: Mapped[str | None]
    code: Mapped[int | None] = mapped_column(unique=True)


class Piece(Base):
    """Something of which a thing may have several."""

    __tablename__ = "pieces"
    id: Mapped[int] = mapped_column(primary_key=True)
    thing_id: Mapped[int]
    size: Mapped[int | None]


seen = sa.Table(
    "seen",
    sa.MetaData(),
    *(sa.Column(name, sa.Integer) for name in ("id", "a", "b", "code")),
    sa.Column("word", sa.String),
)


class Seen:
    """A class over a view, with its key."""


class Mistaken:
    """A class over a view, with a declared key that is not unique."""


registry().map_imperatively(Seen, seen, primary_key=[seen.c.id])
registry().map_imperatively(Mistaken, seen.to_metadata(sa.MetaData()), primary_key=["a"])
other = aliased(Thing)
inner = sa.select(Thing.id, Thing.a, Thing.b, Thing.word, Thing.code)
within = inner.where(Thing.a.is_not(None)).subquery()
distinct = sa.select(Thing.a, Thing.b).distinct().subquery()
several = sa.union_all(inner.where(Thing.b < 2), inner.where(Thing.a > 0)).subquery()
merged = sa.union(inner.where(Thing.b < 2), inner.where(Thing.a > 0)).subquery()
joined = sa.select(Thing.id, Thing.a, Piece.id.label("b"), Piece.size.label("code"), Thing.word).outerjoin(
    Piece, Piece.thing_id == Thing.id
)
half = joined.subquery()


def of(entity: Any) -> tuple[sa.Select[Any], list[Any]]:
    """Return a select of all columns, and the columns to sort by."""
    columns = [getattr(entity, name) for name in ("id", "a", "b", "word", "code")]
    return sa.select(*columns), columns


FORMS: dict[str, tuple[Any, list[Any]]] = {
    "class": of(Thing),
    "alias": of(other),
    "view": of(seen.c),
    "mapped view": of(Seen),
    "mistaken view": of(Mistaken),
    "subquery": of(within.c),
    "distinct": (sa.select(distinct), list(distinct.c)),
    "union": of(merged.c),
    "union all": of(several.c),
    "half of a join": of(half.c),
    "outer join": (joined, [Thing.id, Thing.a, Piece.id, Piece.size, Thing.word]),
    "join": (
        sa.select(Thing.id, Piece.id.label("p")).join(Piece, Piece.thing_id == Thing.id),
        [Thing.id, Piece.id, Thing.a, Piece.size],
    ),
    "join to a view": (
        sa.select(Thing.id, seen.c.b).join(seen, seen.c.id == Thing.id),
        [Thing.id, seen.c.id, seen.c.a],
    ),
}
CONDITIONS: list[Callable[[Any, Any], Any]] = [
    lambda one, _: one.is_not(None),
    lambda one, _: one != None,  # noqa: E711
    lambda one, other: sa.and_(one.is_not(None), other.is_not(None)),
    lambda one, other: one == other,
    lambda one, other: sa.or_(one.is_not(None), other.is_not(None)),
    lambda one, _: one.is_distinct_from(None),
    lambda one, other: sa.not_(sa.or_(one.is_(None), other.is_(None))),
    lambda one, _: sa.cast(one, sa.String).like("%"),
    lambda one, _: sa.cast(one, sa.String).not_in(["1"]),
    lambda one, _: sa.func.coalesce(sa.cast(one, sa.String), "x") != "1",
]
values = st.one_of(st.none(), st.integers(0, 3))
things = st.fixed_dictionaries(
    {
        "a": values,
        "b": st.integers(0, 3),
        "word": st.sampled_from([None, "x", "X", "y", ""]),
        "code": values,
        "pieces": st.lists(values, max_size=2),
    }
)


@dataclass
class World:
    """The tables, and which rows were touched."""

    session: Session
    touched: set[Any] = field(default_factory=set)

    def fill(self, rows: list[dict[str, Any]]) -> None:
        """Have these rows and no others."""
        self.session.rollback()
        self.session.execute(sa.delete(Piece))
        self.session.execute(sa.delete(Thing))
        for number, row in enumerate(rows):
            self.insert(10 * number, row)
        self.session.commit()

    def insert(self, number: int, row: dict[str, Any]) -> None:
        """Add a row, unless its number or its code is taken."""
        taken = sa.select(Thing.id).where(sa.or_(Thing.id == number, Thing.code == row["code"]))
        if self.session.execute(taken).first() is None:
            self.session.execute(
                sa.insert(Thing).values(id=number, **{key: row[key] for key in ("a", "b", "word", "code")})
            )
            for index, size in enumerate(row["pieces"]):
                piece = number * 10 + index
                if self.session.get(Piece, piece) is None:
                    self.session.execute(sa.insert(Piece).values(id=piece, thing_id=number, size=size))

    def change(self, kind: str, number: int, row: dict[str, Any]) -> None:
        """Insert, delete or change a row; it no longer counts as one that stays."""
        if kind == "insert":
            self.insert(number, row)
        elif kind == "delete":
            self.session.execute(sa.delete(Thing).where(Thing.id == number))
        else:
            self.session.execute(
                sa.update(Thing).where(Thing.id == number).values(a=row["a"], word=row["word"])
            )
        self.touched.add(number)
        self.session.commit()

    def rows(self, select: sa.Select[Any]) -> Counter[Any]:
        """Return what the select gives now."""
        found = Counter(tuple(row) for row in self.session.execute(select))
        self.session.rollback()
        return found


@pytest.fixture(scope="module", params=EVERY_KIND_IN_FULL)
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Yield a session of the tables and the view; on SQLite one column does not mind case."""
    with empty_database(request, tmp_path_factory.mktemp("changes")) as engine:
        collation = "NOCASE" if engine.dialect.name == "sqlite" else None
        Thing.__table__.c.word.type = sa.String(collation=collation)
        Base.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE VIEW seen AS SELECT id, a, b, word, code FROM things"))
        with session_on(as_asked(engine, request)) as session:
            yield session


def read(
    read_by: Any, session: Session, select: Any, cursor: Any, **options: Any
) -> Iterator[tuple[list[Any], Any]]:
    """Yield lists of rows, each with its cursor, of any of the three enumerators."""
    for found, after in read_by(session, select, cursor=cursor, **options):
        if read_by is records:
            rows = [found]
        elif read_by is batches:
            rows = found
        else:
            rows = list(session.execute(found))
            session.rollback()
        yield [tuple(row) for row in rows], after


@pytest.mark.parametrize("read_by", [records, batches, ranges])
@examples(60)
@given(data=st.data())
def test_a_row_that_stays_comes_once_or_an_error_has_a_name(
    session: Session, read_by: Any, data: st.DataObject
) -> None:
    """A row that stays comes once, or a named error is raised, for any form and columns, while other rows change."""
    world = World(session)
    world.fill(data.draw(st.lists(things, min_size=3, max_size=10), label="rows"))
    form = data.draw(st.sampled_from(list(FORMS)), label="form")
    select, pool = FORMS[form]
    column = st.sampled_from(pool)
    for condition in data.draw(st.lists(st.sampled_from(CONDITIONS), max_size=2), label="conditions"):
        one, second = data.draw(column), data.draw(column)
        same_type = isinstance(one.type, sa.String) == isinstance(second.type, sa.String)
        select = select.where(condition(one, second if same_type else one))
    picked = data.draw(st.one_of(st.none(), st.lists(column, min_size=1, max_size=3)), label="columns")
    if picked and data.draw(st.booleans()):
        picked.append(pool[0])
    columns = picked and [each.desc() if data.draw(st.booleans()) else each for each in picked]
    unique = data.draw(st.sampled_from([True, True, False]), label="unique") if columns else False
    options = {
        "columns": columns,
        "unique": unique,
        "batch_size": data.draw(st.integers(1, 4), label="batch_size"),
        "guard": data.draw(st.sampled_from([False, False, True]), label="guard"),
    }
    stays, done, cursor = world.rows(select), Counter[Any](), None
    try:
        pages = read(read_by, session, select, cursor, **options)
        while (page := next(pages, None)) is not None:
            rows, cursor = page
            done.update(rows)
            action = data.draw(st.sampled_from(["", "insert", "delete", "update", "resume", "resume"]))
            if action == "resume":
                cursor = decode(json.loads(json.dumps(encode(cursor))))
                pages = read(read_by, session, select, cursor, **options)
            elif action:
                number = data.draw(st.integers(0, 80), label="number")
                world.change(action, number // 10 * 10 if action != "insert" else number, data.draw(things))
                stays &= world.rows(select)
    except HarnessError as error:
        session.rollback()
        event(f"{type(error).__name__}: {str(error).split(' in pages')[0][:60]}")
        return
    event(f"done, {len(stays)} rows")
    for row, times in stays.items():
        if row[0] not in world.touched and form != "distinct":
            assert done[row] == times, row
