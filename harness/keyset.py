"""Items from SQLAlchemy: selects read in pages after a cursor (I26 to I28, I35 to I38).

A page is ``WHERE key > cursor ORDER BY key LIMIT batch_size``; no OFFSET, and never two pages in memory::

    records(session, Order, cursor=cursor)                     # one object or row at a time
    batches(session, Order.pending(), cursor=cursor)           # lists of them
    ranges(session, Order, cursor=cursor, batch_size=10_000)   # selects, for bulk UPDATE and DELETE

**The key** is the primary key, or what ``columns`` names, such as ``[Order.status, Order.id.desc()]``. It must
tell all rows of the select apart, or rows at the edge of a page would be skipped. Where primary keys, unique
constraints and joins do not show that it does, the primary keys that are missing are added at its end, in the
direction of its last column. So a cursor is the value of the one key column or the tuple of the values of
several, those added included. A row whose key changes while the job runs may be skipped or come again.

**A cursor** holds what the types of the columns make of the values: int, str, datetime, UUID, Decimal and so
on. Where that would not come back equal, from JSON or from the database, it holds ``{"stored": …}``, the value
as the database keeps it: of an Enum, or of a time written by SQLite's ``CURRENT_TIMESTAMP``, which is text that
sorts before the same time written by SQLAlchemy.

**Transactions.** Where the session has no transaction, the one that reading a page begins ends with the page:
the objects stay attached and loaded, and nothing is open while the job works. A transaction that is there
already, as it is after an unflushed change, is the caller's and is left alone.

**Indexes.** Where all key columns go one way, pages compare row values, ``(a, b) > (?, ?)``, which an index over
both answers; SQLite looks up only ``a`` in it if ``b`` is an integer primary key. So do all databases where the
columns go different ways. That is slow if ``a`` has few values.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from itertools import chain, starmap
from operator import ge, gt, le, lt
from typing import Any, TypeAlias
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import InvalidRequestError, StatementError
from sqlalchemy.orm import Mapper, Session, scoped_session
from sqlalchemy.orm.util import AliasedInsp
from sqlalchemy.sql import operators
from sqlalchemy.types import NullType

from harness.enumerators import Enumerator
from harness.errors import CursorError, JobDefinitionError

_Session: TypeAlias = Session | scoped_session[Any]
_Column: TypeAlias = sa.ColumnElement[Any]
_Name: TypeAlias = tuple[sa.FromClause, str]
_Values: TypeAlias = tuple[Any, ...] | None
"""What the database compares with, one value a key column; None is the beginning."""

_NATURAL = frozenset({int, str, bool, float, bytes, date, datetime, Decimal, UUID})

_EACH_PAGE = "it would apply to each page; restrict the select with where(), or start from a cursor"
_ONE_ROW = "the key would change what it leaves out; use exists() or any() in place of a join"
_GROUPS = "groups have no key; select what is grouped by, and sum up in the job"
# Keyed by: strictly, upwards.
_COMPARE = {(True, True): gt, (True, False): lt, (False, True): ge, (False, False): le}

# By attribute, for SQLAlchemy has no public way to ask.
_REFUSED = {
    "_order_by_clauses": ("ORDER BY", "pages come in the order of the key; name the columns in columns="),
    "_limit_clause": ("LIMIT", _EACH_PAGE),
    "_fetch_clause": ("FETCH", _EACH_PAGE),
    "_offset_clause": ("OFFSET", _EACH_PAGE),
    "_distinct": ("DISTINCT", _ONE_ROW),
    "_pre_columns_clause": ("DISTINCT ON", _ONE_ROW),
    "_group_by_clauses": ("GROUP BY", _GROUPS),
    "_having_criteria": ("HAVING", _GROUPS),
    "_for_update_arg": ("FOR UPDATE", "its locks end with the page; lock items when they are worked on"),
}


def records(
    session: _Session, select: Any, *, cursor: Any, columns: Any = None, batch_size: int = 100
) -> Enumerator[Any]:
    """Yield the rows of a select, one at a time (I26).

    :param session: what reads, and what the objects belong to.
    :param select: a select or a mapped class. Of one entity or column, it yields that; of several, rows.
    :param cursor: of the last item done, or None.
    :param columns: one column or a list of them, each perhaps with ``.desc()``; None is the primary key.
    :param batch_size: rows in a page; a page is one query.
    :raises JobDefinitionError: if the select cannot be read in pages, or not by this key.
    :raises CursorError: if the cursor is not one of this key.
    """
    keyset = _Keyset("records()", session, select, columns, batch_size)
    pairs = chain.from_iterable(starmap(zip, keyset.pages(keyset.parse(cursor))))
    return Enumerator(pairs, size=keyset.count)


def batches(
    session: _Session, select: Any, *, cursor: Any, columns: Any = None, batch_size: int = 100
) -> Enumerator[list[Any]]:
    """Yield the rows of a select in lists of *batch_size*, each with the cursor of its last row (I27).

    The size counts rows. Parameters and errors are those of :func:`records`.
    """
    keyset = _Keyset("batches()", session, select, columns, batch_size)
    pages = keyset.pages(keyset.parse(cursor))
    return Enumerator(((items, cursors[-1]) for items, cursors in pages), size=keyset.count, batched=True)


def ranges(
    session: _Session, select: Any, *, cursor: Any, columns: Any = None, batch_size: int = 100
) -> Enumerator[sa.Select[Any]]:
    """Yield the select of each page, not yet run: the given one, restricted to a range of keys (I28).

    Finding where a page ends is one query, which loads no rows. The size counts pages. For bulk changes::

        session.execute(update(Order).where(page.whereclause).values(…))
        session.execute(delete(Order).where(Order.id.in_(page.with_only_columns(Order.id))))    # of a join

    Parameters and errors are those of :func:`records`.
    """
    keyset = _Keyset("ranges()", session, select, columns, batch_size)
    return Enumerator(keyset.ranges(keyset.parse(cursor)), size=lambda: -(-keyset.count() // batch_size))


class _Key:
    """A column of the key; as *stored*, without its type, it compares exactly. *plain*: that is the same."""

    def __init__(self, column: _Column, descending: bool, dialect: sa.Dialect) -> None:
        kind = column.type.dialect_impl(dialect)
        bind = kind.bind_processor(dialect)
        self.column = column
        self.descending = descending
        self.stored = sa.type_coerce(column, NullType())
        self.plain = bind is None and isinstance(kind, sa.Integer | sa.String)
        self.to_database: Callable[[Any], Any] = bind or (lambda value: value)
        try:
            self.python_type: type = column.type.python_type
        except NotImplementedError:
            self.python_type = object

    def __str__(self) -> str:
        known = self.python_type is not object
        return f"{self.column} ({self.python_type.__name__ if known else repr(self.column.type)})"

    def cursor(self, stored: Any, value: Any) -> Any:
        return value if type(value) in _NATURAL and self.to_database(value) == stored else {"stored": stored}

    def parse(self, cursor: Any) -> Any:
        if type(cursor) is dict and list(cursor) == ["stored"]:
            return cursor["stored"]
        if cursor is None or self.python_type not in {object, type(cursor)}:
            raise TypeError
        return self.to_database(cursor)


class _Keyset:
    """A select, the key to read it by, its first page, and the session to read it with."""

    def __init__(self, name: str, session: Any, select: Any, columns: Any, batch_size: int) -> None:
        session = session() if isinstance(session, scoped_session) else session
        if not isinstance(session, Session):
            raise TypeError(f"{name} takes a Session, found {type(session).__name__}")
        if isinstance(sa.inspect(select, raiseerr=False), Mapper | AliasedInsp):
            select = sa.select(select)
        if not isinstance(select, sa.Select):
            raise TypeError(f"{name} takes a select() or a mapped class, found {type(select).__name__}")
        if type(batch_size) is not int or batch_size < 1:
            raise TypeError(f"{name} takes a batch_size of 1 or more, found {batch_size!r}")
        for attribute, (clause, way_out) in _REFUSED.items():
            found = getattr(select, attribute, None)
            if found if isinstance(found, tuple | bool) else found is not None:
                raise JobDefinitionError(f"{name} cannot read a select with {clause} in pages: {way_out}")
        self.name, self.session, self.select, self.batch_size = name, session, select, batch_size
        dialect = session.get_bind(clause=select).dialect
        self.keys = [_Key(column, descends, dialect) for column, descends in _key(name, select, columns)]
        selected: list[_Column] = [key.stored for key in self.keys]
        if not all(key.plain for key in self.keys):
            selected += [key.column for key in self.keys]
        self.width = len(selected)
        order = (key.stored.desc() if key.descending else key.stored for key in self.keys)
        page = select.add_columns(*(column.label(None) for column in selected))
        self.first_page = page.order_by(*order).limit(batch_size)
        # Not one of its own for each page: SQLAlchemy takes the time of 20 rows to prepare a new select.
        bounds = [sa.bindparam(f"keyset_{index}", type_=NullType()) for index in range(len(self.keys))]
        self.next_page = self.first_page.where(self._side(bounds, after=True))

    def parse(self, cursor: Any) -> _Values:
        if cursor is None:
            return None
        values = cursor if len(self.keys) > 1 and type(cursor) is tuple else (cursor,)
        try:
            return tuple(key.parse(value) for key, value in zip(self.keys, values, strict=True))
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, StatementError) as error:
            shape = "one value" if len(self.keys) == 1 else f"a tuple of {len(self.keys)}"
            keys = ", ".join(map(str, self.keys))
            found = f"{self.name} resumes from None or {shape}, {keys}; found {cursor!r}"
            raise CursorError(found) from error

    def count(self) -> int:
        with _reading(self.session):
            rows = sa.select(sa.func.count()).select_from(self.select.subquery())
            return self.session.execute(rows).scalar_one()

    def pages(self, after: _Values) -> Iterator[tuple[list[Any], list[Any]]]:
        """Yield the items and the cursors of one page after the other."""
        more = True
        while more:
            with _reading(self.session):
                items, cursors = self._read(after)
            if not items:
                return
            after, more = self.parse(cursors[-1]), len(items) == self.batch_size
            yield items, cursors
            # Else this page would stay in memory while the next is read.
            del items, cursors

    def ranges(self, after: _Values) -> Iterator[tuple[sa.Select[Any], Any]]:
        """Yield the select and the last cursor of one page after the other."""
        more = True
        while more:
            with _reading(self.session):
                last = self._last(self._restrict(self.first_page, after, after=True))
                row = self.session.execute(last).one_or_none()
            if row is None:
                return
            (cursor,) = self._cursors([[value] for value in row[:-1]])
            page = self._restrict(self.select, after, after=True)
            after, more = self.parse(cursor), row[-1] == self.batch_size
            yield self._restrict(page, after, after=False), cursor

    def _read(self, after: _Values) -> tuple[list[Any], list[Any]]:
        values = {f"keyset_{index}": value for index, value in enumerate(after or ())}
        result = self.session.execute(self.next_page if values else self.first_page, values)
        width = len(result.keys()) - self.width
        try:
            # Frozen, it gives rows without the key that have their names; a slice would be a bare tuple.
            frozen = result.freeze() if width > 1 else None
            rows = frozen().all() if frozen else result.all()
        except InvalidRequestError as error:
            if "unique()" not in str(error):
                raise
            reason = "loads a collection by a join, which a page could cut in two; use selectinload()"
            raise JobDefinitionError(f"{self.name} cannot read a select in pages that {reason}") from error
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * (width + self.width)
        items = frozen().columns(*range(width)).all() if frozen else columns[0]
        return list(items), self._cursors(columns[width:])

    def _last(self, page: sa.Select[Any]) -> sa.Select[Any]:
        """Select the key of the last row of a page, and how many rows the page has."""
        columns = list(page.subquery().c)[-self.width :]
        pairs = zip(self.keys, columns, strict=False)
        order = (column if key.descending else column.desc() for key, column in pairs)
        return sa.select(*columns, sa.func.count().over()).order_by(*order).limit(1)

    def _cursors(self, columns: Sequence[Sequence[Any]]) -> list[Any]:
        """Return one cursor a row, from the key columns of the page."""
        count = len(self.keys)
        if self.width > count:
            pairs = zip(columns[:count], columns[count:], strict=True)
            columns = [list(map(key.cursor, *pair)) for key, pair in zip(self.keys, pairs, strict=True)]
        return list(columns[0]) if count == 1 else list(zip(*columns, strict=True))

    def _restrict(self, select: sa.Select[Any], values: _Values, *, after: bool) -> sa.Select[Any]:
        if values is None:
            return select
        return select.where(self._side([sa.literal(value, NullType()) for value in values], after=after))

    def _side(self, bounds: list[Any], *, after: bool) -> sa.ColumnElement[bool]:
        """Say that a row comes after *bounds* in the order of the key, or else that it does not."""
        columns: list[Any] = [key.stored for key in self.keys]
        ups = [key.descending is not after for key in self.keys]
        if len(set(ups)) == 1:
            columns, bounds, ups = [sa.tuple_(*columns)], [sa.tuple_(*bounds)], ups[:1]
        *outer, (column, bound, up) = zip(columns, bounds, ups, strict=True)
        condition: sa.ColumnElement[bool] = _COMPARE[after, up](column, bound)
        for column, bound, up in reversed(outer):
            # Begins with what an index can be searched for.
            reached, passed = _COMPARE[False, up](column, bound), _COMPARE[True, up](column, bound)
            condition = sa.and_(reached, sa.or_(passed, condition))
        return condition


@contextmanager
def _reading(session: Session) -> Iterator[None]:
    """End the transaction that the block begins, and leave alone one that was there before."""
    if session.in_transaction():
        yield
        return
    expire, session.expire_on_commit = session.expire_on_commit, False
    try:
        with session.begin():
            yield
    finally:
        session.expire_on_commit = expire


def _key(name: str, select: sa.Select[Any], given: Any) -> list[tuple[_Column, bool]]:
    """Return the columns of the key, and whether they descend: those given, and what tells all rows apart."""
    sources = _Sources(select)
    if given is None:
        given = [column for source in select.columns_clause_froms[:1] for column in source.primary_key]
    key: dict[_Name, tuple[_Column, bool]] = {}
    descending = False
    for each in given if isinstance(given, list | tuple) else (given,):
        ordered = each if isinstance(each, sa.UnaryExpression) else sa.asc(each)
        column, descending = ordered.element, ordered.modifier is operators.desc_op
        if not (isinstance(column, sa.Column) and (descending or ordered.modifier is operators.asc_op)):
            raise JobDefinitionError(f"{name} sorts by columns, each with or without desc(), found {each!s}")
        key[_name(column)] = column, descending
    while (table := sources.ambiguous(key)) is not None:
        missing = [column for column in table.primary_key if _name(column) not in key]
        if not (missing and any(_unique(table))):
            raise JobDefinitionError(
                f"{name} cannot tell the rows of {table.description} apart, for it has no primary key; "
                "name columns that are unique, or if it is a subquery, use it in where() with exists()"
            )
        key.update((_name(column), (column, descending)) for column in missing)
    if not key:
        raise JobDefinitionError(f"{name} cannot read a select without a table in pages")
    for column, _ in key.values():
        if (objection := sources.objection(column)) is not None:
            raise JobDefinitionError(f"{name} cannot sort by {column}: {objection}")
    return list(key.values())


class _Sources:
    """The tables that a select reads, those that an outer join may leave out, and what columns it sets equal."""

    def __init__(self, select: sa.Select[Any]) -> None:
        self.optional: set[sa.FromClause] = set()
        self.equals = list(_equalities(select.whereclause))
        # Without its columns, for options such as joinedload() add joins that are not the caller's.
        bare = select.with_only_columns(sa.literal(1), maintain_column_froms=True)
        self.tables = [table for source in bare.get_final_froms() for table in self._add(source)]

    def _add(self, source: sa.FromClause) -> list[sa.FromClause]:
        if not isinstance(source, sa.Join):
            return [source]
        left, right = self._add(source.left), self._add(source.right)
        outer = source.isouter or source.full
        self.optional.update(right if outer else (), left if source.full else ())
        # The outer side follows from the other, and not the other from it.
        self.equals += [each for each in _equalities(source.onclause) if not outer or each[0][0] in right]
        return left + right

    def ambiguous(self, key: Collection[_Name]) -> sa.FromClause | None:
        """Return a table of which one value of the key may stand for several rows, if there is one."""
        known: set[sa.FromClause] = set()

        def fixed(column: _Name) -> bool:
            equals = [other for one, other in self.equals if one == column]
            return column in key or any(each is None or each in key or each[0] in known for each in equals)

        def told_apart(table: sa.FromClause) -> bool:
            return any(all(map(fixed, columns)) for columns in _unique(table))

        while found := {table for table in self.tables if told_apart(table)} - known:
            known |= found
        return next((table for table in self.tables if table not in known), None)

    def objection(self, column: _Column) -> str | None:
        """Say why sorting by *column* would lose rows, if it would."""
        if column.table not in self.tables:
            read = ", ".join(table.description for table in self.tables)
            return f"the select does not read its table or alias; take a column of {read}"
        if column.table in self.optional:
            return "an outer join may leave it NULL, which compares with nothing; use an inner join or none"
        if column.nullable:
            return "it is nullable, and NULL compares with nothing; declare it NOT NULL or take another"
        if isinstance(column.type, sa.Float):
            return "a float may differ from what was read of it; use a Numeric or take another"
        return None


def _name(column: Any) -> _Name:
    # Not the column: SQLAlchemy makes copies of it with annotations, of which not all are equal.
    return column.table, column.key


def _equalities(clause: Any) -> Iterator[tuple[_Name, _Name | None]]:
    """Yield each column that *clause* sets equal to a column, and that, or to a parameter, and None."""
    if isinstance(clause, sa.BooleanClauseList) and clause.operator is operators.and_:
        for part in clause.clauses:
            yield from _equalities(part)
    elif isinstance(clause, sa.BinaryExpression) and clause.operator is operators.eq:
        for one, other in ((clause.left, clause.right), (clause.right, clause.left)):
            if isinstance(one, sa.Column) and isinstance(other, sa.Column | sa.BindParameter):
                yield _name(one), None if isinstance(other, sa.BindParameter) else _name(other)


def _unique(table: sa.FromClause) -> Iterator[list[_Name]]:
    """Yield the sets of columns in which no two rows of a table agree; nothing for a subquery."""
    base = table.element if isinstance(table, sa.Alias) else table
    declared: list[Any] = [*base.constraints, *base.indexes] if isinstance(base, sa.Table) else []
    for each in declared:
        unique = isinstance(each, sa.PrimaryKeyConstraint | sa.UniqueConstraint)
        if isinstance(each, sa.Index) and each.unique:
            whole = not any(option.endswith("_where") for option in each.dialect_kwargs)
            unique = whole and all(isinstance(part, sa.Column) for part in each.expressions)
        if unique and each.columns:
            yield [(table, column.key) for column in each.columns]
