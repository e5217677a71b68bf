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

**A guard.** With ``guard=True`` a cursor also has how many rows there were when the job began, how many were passed,
and the key of the last one. As many must lie after the cursor as are left, and the last must be the same: that is
asked at the beginning of every execution, two queries, and known at the end. So it finds rows that moved behind the
cursor, which would be skipped, and rows that came or moved after it or went from there. Rows that leave the select
once they are done, as those of ``where(Order.sent.is_(None))``, are no change. What is not noticed is changes that make
up for one another before the last row: one row goes from there, another comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain, starmap
from operator import ge, gt, le, lt
from typing import Any, TypeAlias
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import InvalidRequestError, StatementError
from sqlalchemy.orm import Mapper, Session, scoped_session
from sqlalchemy.orm.util import AliasedInsp, LoaderCriteriaOption
from sqlalchemy.types import NullType

from harness import guards
from harness.enumerators import Enumerator
from harness.errors import CursorError, JobDefinitionError
from harness.keys import Column, key_of
from harness.listeners import watch_page

_Session: TypeAlias = Session | scoped_session[Any]
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
    session: _Session,
    select: Any,
    *,
    cursor: Any,
    columns: Any = None,
    batch_size: int = 100,
    guard: bool = False,
) -> Enumerator[Any]:
    """Yield the rows of a select, one at a time (I26).

    :param session: what reads, and what the objects belong to.
    :param select: a select or a mapped class. Of one entity or column, it yields that; of several, rows.
    :param cursor: of the last item done, or None.
    :param columns: one column or a list of them, each perhaps with ``.desc()``; None is the primary key.
    :param batch_size: rows in a page; a page is one query.
    :param guard: check that no rows come, go or move after the cursor; see the module.
    :raises JobDefinitionError: if the select cannot be read in pages, or not by this key.
    :raises CursorError: if the cursor is not one of this key.
    :raises CollectionChanged: while iterating, if *guard* finds a change.
    """
    keyset = _Keyset("records()", session, select, columns, batch_size)
    tally = keyset.tally(cursor, guard=guard)
    pairs = chain.from_iterable(starmap(zip, keyset.pages(keyset.parse(tally.position))))
    watched = tally.over((item, cursor, 1) for item, cursor in pairs) if guard else pairs
    return Enumerator(watched, size=tally.size)


def batches(
    session: _Session,
    select: Any,
    *,
    cursor: Any,
    columns: Any = None,
    batch_size: int = 100,
    guard: bool = False,
) -> Enumerator[list[Any]]:
    """Yield the rows of a select in lists of *batch_size*, each with the cursor of its last row (I27).

    The size counts rows. Parameters and errors are those of :func:`records`.
    """
    keyset = _Keyset("batches()", session, select, columns, batch_size)
    tally = keyset.tally(cursor, guard=guard)
    pages = keyset.pages(keyset.parse(tally.position))
    pairs = tally.over((items, cursors[-1], len(items)) for items, cursors in pages)
    return Enumerator(pairs, size=tally.size, batched=True)


def ranges(
    session: _Session,
    select: Any,
    *,
    cursor: Any,
    columns: Any = None,
    batch_size: int = 100,
    guard: bool = False,
) -> Enumerator[sa.Select[Any]]:
    """Yield the select of each page, not yet run: the given one, restricted to a range of keys (I28).

    Finding where a page ends is one query, which loads no rows. The size counts pages. For bulk changes, which know
    nothing of the options of the select, such as ``with_loader_criteria()``::

        session.execute(update(Order).where(page.whereclause).values(…))
        session.execute(delete(Order).where(Order.id.in_(page.with_only_columns(Order.id))))    # of a join

    Parameters and errors are those of :func:`records`.
    """
    keyset = _Keyset("ranges()", session, select, columns, batch_size)
    tally = keyset.tally(cursor, guard=guard)
    return Enumerator(
        tally.over(keyset.ranges(keyset.parse(tally.position))), size=lambda: -(-tally.size() // batch_size)
    )


def within(session: _Session, select: Any, after: Any, until: Any, *, columns: Any = None) -> sa.Select[Any]:
    """Return a select restricted to the rows after one cursor, up to and including another; None is no limit.

    :raises CursorError: for what is no cursor of :func:`records` with these columns.
    """
    keyset = _Keyset("within()", session, select, columns, 1)
    return keyset.between(keyset.parse(after), keyset.parse(until))


class _Key:
    """A column of the key; as *stored*, without its type, it compares exactly. *plain*: that is the same."""

    def __init__(self, column: Column, descending: bool, dialect: sa.Dialect) -> None:
        kind = column.type.dialect_impl(dialect)
        bind = kind.bind_processor(dialect)
        self.column = column
        self.descending = descending
        self.stored = sa.type_coerce(column, NullType())
        self.plain = bind is None and isinstance(kind, sa.Integer | sa.String)
        self.as_text = bind is not None
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
        self.keys = [_Key(column, descends, dialect) for column, descends in key_of(name, select, columns)]
        for key in self.keys:
            if key.python_type in {time, timedelta} and not key.as_text:
                raise JobDefinitionError(
                    f"{name} cannot sort by {key}: a cursor cannot hold it; take another column"
                )
        selected: list[Column] = [key.stored for key in self.keys]
        if not all(key.plain for key in self.keys):
            selected += [key.column for key in self.keys]
        self.width = len(selected)
        # Of a subquery the ORM takes them only from the select around it.
        self.criteria = [each for each in select._with_options if isinstance(each, LoaderCriteriaOption)]  # noqa: SLF001
        order = (key.stored.desc() if key.descending else key.stored for key in self.keys)
        self.keyed = select.add_columns(*(column.label(None) for column in selected))
        self.first_page = self.keyed.order_by(*order).limit(batch_size)
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

    def count(self, after: _Values = None) -> int:
        with _reading(self.session):
            selected = self._restrict(self.select, after, after=True).subquery()
            rows = sa.select(sa.func.count()).select_from(selected).options(*self.criteria)
            return self.session.execute(rows).scalar_one()

    def tally(self, cursor: Any, *, guard: bool) -> guards.Tally:
        """Return what knows the size and the position, and what was there when the job began."""

        def last(position: Any) -> Any:
            with _reading(self.session):
                page = self._restrict(self.keyed, self.parse(position), after=True)
                row = self.session.execute(self._last(page)).one_or_none()
            return None if row is None else self._cursors([[value] for value in row[:-1]])[0]

        return guards.Tally(
            self.name, cursor, guard=guard, count=lambda position: self.count(self.parse(position)), last=last
        )

    def pages(self, after: _Values) -> Iterator[tuple[list[Any], list[Any]]]:
        """Yield the items and the cursors of one page after the other."""
        more = True
        while more:
            page_read = watch_page()
            with _reading(self.session):
                items, cursors = self._read(after)
            page_read(len(items))
            if not items:
                return
            after, more = self.parse(cursors[-1]), len(items) == self.batch_size
            yield items, cursors
            # Else this page would stay in memory while the next is read.
            del items, cursors

    def ranges(self, after: _Values) -> Iterator[tuple[sa.Select[Any], Any, int]]:
        """Yield the select, the last cursor and the number of rows of one page after the other."""
        more = True
        while more:
            page_read = watch_page()
            with _reading(self.session):
                last = self._last(self._restrict(self.first_page, after, after=True))
                row = self.session.execute(last).one_or_none()
            page_read(0 if row is None else row[-1])
            if row is None:
                return
            (cursor,) = self._cursors([[value] for value in row[:-1]])
            begin, after, more = after, self.parse(cursor), row[-1] == self.batch_size
            yield self.between(begin, after), cursor, row[-1]

    def _read(self, after: _Values) -> tuple[list[Any], list[Any]]:
        values = {f"keyset_{index}": value for index, value in enumerate(after or ())}
        result = self.session.execute(self.next_page if values else self.first_page, values)
        width = len(self.select.column_descriptions)  # not of result.keys(): an alias may share its name
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
        return sa.select(*columns, sa.func.count().over()).options(*self.criteria).order_by(*order).limit(1)

    def _cursors(self, columns: Sequence[Sequence[Any]]) -> list[Any]:
        """Return one cursor a row, from the key columns of the page."""
        count = len(self.keys)
        if self.width > count:
            pairs = zip(columns[:count], columns[count:], strict=True)
            columns = [list(map(key.cursor, *pair)) for key, pair in zip(self.keys, pairs, strict=True)]
        for key, values in zip(self.keys, columns, strict=True):
            if None in values:
                raise CursorError(
                    f"{self.name} found a row whose {key.column} is NULL, though declared NOT NULL; NULL compares with "
                    "nothing, so rows would be lost: leave it out of the key, or such rows out of the select"
                )
        return list(columns[0]) if count == 1 else list(zip(*columns, strict=True))

    def between(self, after: _Values, until: _Values) -> sa.Select[Any]:
        """Restrict the select to a range of the key."""
        return self._restrict(self._restrict(self.select, after, after=True), until, after=False)

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
