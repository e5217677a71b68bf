"""Select with its key and its pages: the statements of :mod:`harness.sources.keyset`, and checks of the rows read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from operator import eq, ge, gt, le, lt
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.exc import InvalidRequestError, StatementError
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.util import AliasedInsp, LoaderCriteriaOption

from harness.cursor import decode, encode
from harness.errors import CursorError, JobDefinitionError
from harness.runtime import guards
from harness.runtime.listeners import watch_page
from harness.sources.key_values import STORED, KeyColumn, same
from harness.sources.keys import key_of, unordered
from harness.sources.selects import Column, only
from harness.sources.sessions import opened, reading

_Values: TypeAlias = tuple[Any, ...] | None
"""Values for the database's comparison, one for each key column; None is the beginning."""

_EACH_PAGE = "it would apply to each page; restrict the select with where(), or start from a cursor"
_ONE_ROW = (
    "the key would change its result; use exists() or any() instead of a join, or select from it as a "
    "subquery, by the distinct columns"
)
_GROUPS = "groups have no key; select from it as a subquery, by the grouped columns"
# Keyed by: strictly, upwards.
_COMPARE = {(True, True): gt, (True, False): lt, (False, True): ge, (False, False): le}

# By attribute, because SQLAlchemy has no public way to ask.
_REFUSED = {
    "_limit_clause": ("LIMIT", _EACH_PAGE),
    "_fetch_clause": ("FETCH", _EACH_PAGE),
    "_offset_clause": ("OFFSET", _EACH_PAGE),
    "_distinct": ("DISTINCT", _ONE_ROW),
    "_pre_columns_clause": ("DISTINCT ON", _ONE_ROW),
    "_group_by_clauses": ("GROUP BY", _GROUPS),
    "_having_criteria": ("HAVING", _GROUPS),
    "_for_update_arg": ("FOR UPDATE", "its locks end with the page; lock each item when you work on it"),
}


class Keyset:
    """Select with its key, its first page, and its session.

    :ivar session: a plain session. :ivar awaiting: the AsyncSession that it belongs to; None without one. Then the
        methods that read are called in its greenlet: see :mod:`harness.sources.sessions`.
    """

    def __init__(
        self, name: str, session: Any, select: Any, columns: Any, batch_size: int, *, unique: bool
    ) -> None:
        session, self.awaiting = opened(name, session)
        if isinstance(sa.inspect(select, raiseerr=False), Mapper | AliasedInsp):
            select = sa.select(select)
        if not isinstance(select, sa.Select):
            raise TypeError(f"{name} takes a select() or a mapped class; got {type(select).__name__}")
        if type(batch_size) is not int or batch_size < 1:
            raise TypeError(f"{name} takes a batch_size of 1 or more; got {batch_size!r}")
        if type(unique) is not bool:
            raise TypeError(f"{name} takes True or False as unique; got {unique!r}; name columns in columns=")
        for attribute, (clause, way_out) in _REFUSED.items():
            found = getattr(select, attribute, None)
            if found if isinstance(found, tuple | bool) else found is not None:
                raise JobDefinitionError(f"{name} cannot read a select with {clause} in pages: {way_out}")
        dialect = session.get_bind(clause=select).dialect
        key = key_of(name, select, columns, vouched=unique)
        if select._order_by_clauses:  # noqa: SLF001 - no public way to ask
            select = unordered(name, select, key)
        self.name, self.session, self.select, self.batch_size = name, session, select, batch_size
        self.keys = [KeyColumn(column, descends, dialect) for column, descends in key.columns]
        for each in self.keys:
            if (objection := each.objection()) is not None:
                raise JobDefinitionError(f"{name} cannot sort by {each}: {objection}")
        self.vouched, self.nullable, self.declared = key.vouched, key.nullable, key.declared
        self.plain = all(each.plain for each in self.keys)
        selected: list[Column] = [each.read for each in self.keys]
        if not self.plain:
            selected += [each.column for each in self.keys]
        self.selected = [column.label(None) for column in selected]
        # For a subquery the ORM takes them only from the outer select.
        self.criteria = [each for each in select._with_options if isinstance(each, LoaderCriteriaOption)]  # noqa: SLF001
        self.order = [each.stored.desc() if each.descending else each.stored for each in self.keys]
        # With one row more than a page, if rows may be equal: the row after its end is checked too.
        self.limit = batch_size + self.vouched
        self.first_page = select.add_columns(*self.selected).order_by(*self.order).limit(self.limit)

    def refuse_expiry(self) -> None:
        """Raise if a commit of the job would expire the objects of a page that come next, where no lazy load is."""
        if self.awaiting is not None and self.session.expire_on_commit:
            for each in self.select.column_descriptions:
                if isinstance(sa.inspect(each["expr"], raiseerr=False), Mapper | AliasedInsp):
                    raise JobDefinitionError(
                        f"{self.name} of {each['name']} got an AsyncSession whose commit expires objects: those of the "
                        "page that come next could not be read without await; make it with expire_on_commit=False"
                    )

    def parse(self, cursor: Any) -> _Values:
        """Return the values for the database's comparison; raise CursorError for a cursor of another key."""
        if cursor is None:
            return None
        values = cursor if len(self.keys) > 1 and type(cursor) is tuple else (cursor,)
        try:
            return tuple(key.parse(value) for key, value in zip(self.keys, values, strict=True))
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, StatementError) as error:
            shape = "one value" if len(self.keys) == 1 else f"a tuple of {len(self.keys)}"
            keys = ", ".join(map(str, self.keys))
            found = f"{self.name} resumes from None or {shape}, {keys}; got {cursor!r}"
            raise CursorError(found) from error

    def count(self, after: _Values = None) -> int:
        """Return the number of rows after a position."""
        with reading(self.session):
            selected = self._restrict(only(self.select, sa.literal(1)), after, after=True).subquery()
            rows = sa.select(sa.func.count()).select_from(selected).options(*self.criteria)
            return int(self.session.execute(rows).scalar_one())

    def tally(self, cursor: Any, *, guard: bool) -> guards.Tally:
        """Return the tally of the size and the position, which guards against changes since the job started."""

        def last(position: Any) -> Any:
            with reading(self.session):
                found = self._last(self._restrict(self._keys_only, self.parse(position), after=True))
            return None if found is None else found[0]

        tally = guards.Tally(
            self.name, cursor, guard=guard, count=lambda position: self.count(self.parse(position)), last=last
        )
        self.parse(tally.position)  # here, so that a cursor of another key is refused before anything is read
        return tally

    def pages(self, cursor: Any) -> Iterator[tuple[list[Any], list[Any]]]:
        """Yield the items and the cursors of one page after the other."""
        after, more = self.parse(cursor), True
        if after is None:
            self._refuse_nulls()
        while more:
            page_read = watch_page()
            with reading(self.session):
                items, cursors = self._read(after)
                self._refuse_twins(cursors, after)
            page_read(min(len(items), self.batch_size))
            if not items:
                break
            if cursor is not None and same(cursor, cursors[0]):
                self._refuse_repeat(cursor)
            if self.vouched:
                del items[self.batch_size :], cursors[self.batch_size :]
            cursor = cursors[-1]
            after, more = self._proven(cursor), len(items) == self.batch_size
            yield items, cursors
            # Else this page would stay in memory while the next is read.
            del items, cursors
        self._refuse_nulls()

    @property
    def origin(self) -> str:
        """Description of the order that a cursor belongs to."""
        return f"a select by {', '.join(map(_in_words, self.keys))}"

    def part(self, after: Any, until: Any) -> list[Any]:
        """Return the items after one cursor, up to and including another."""
        page = self.between(self.parse(after), self.parse(until)).order_by(*self.order)
        with reading(self.session):
            result = self.session.execute(page)
            return list(result.all() if self._width > 1 else result.scalars())

    def ranges(self, cursor: Any) -> Iterator[tuple[sa.Select[Any], Any, int]]:
        """Yield the select, the last cursor and the number of rows of one page after the other."""
        after, more = self.parse(cursor), True
        if after is None:
            self._refuse_nulls()
        while more:
            page_read = watch_page()
            with reading(self.session):
                self._refuse_twins((), after)
                page = self._keys_only.order_by(*self.order).limit(self.batch_size)
                found = self._last(self._restrict(page, after, after=True))
            page_read(0 if found is None else found[1])
            if found is None:
                break
            if cursor is not None and same(cursor, found[0]):
                self._refuse_repeat(cursor)
            cursor, rows = found
            begin, after, more = after, self._proven(cursor), rows == self.batch_size
            yield self.between(begin, after).order_by(*self.order), cursor, rows
        self._refuse_nulls()

    @cached_property
    def _keys_only(self) -> sa.Select[Any]:
        # Sorted by the last of them: a value read as text would be sorted as text.
        return only(self.select, *self.selected, *(key.stored.label(None) for key in self.keys))

    @cached_property
    def _next_page(self) -> sa.Select[Any]:
        # One select for all later pages: SQLAlchemy needs the time of 20 rows to prepare a new one. Made when it is
        # needed: a level of nested() often has one page for each item above it.
        bounds = [sa.bindparam(f"keyset_{index}", type_=STORED) for index in range(len(self.keys))]
        following: sa.Select[Any] = self.first_page.where(self._side(bounds, after=True))
        return following

    @cached_property
    def _width(self) -> int:
        return len(self.select.column_descriptions)  # not of a result's keys: an alias may share its name

    def _read(self, after: _Values) -> tuple[list[Any], list[Any]]:
        values = {f"keyset_{index}": value for index, value in enumerate(after or ())}
        result = self.session.execute(self._next_page if values else self.first_page, values)
        width = self._width
        try:
            # Frozen, it returns named rows without the key; a slice would be a bare tuple.
            frozen = result.freeze() if width > 1 else None
            rows = frozen().all() if frozen else result.all()
        except InvalidRequestError as error:
            if "unique()" not in str(error):
                raise
            reason = "loads a collection by a join, which a page could cut in two; use selectinload()"
            raise JobDefinitionError(f"{self.name} cannot read a select in pages that {reason}") from error
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * (width + len(self.selected))
        items = frozen().columns(*range(width)).all() if frozen else columns[0]
        return list(items), self._cursors(columns[width:])

    def _last(self, page: sa.Select[Any]) -> tuple[Any, int] | None:
        """Return the cursor of the last row of a page, and the number of its rows; None if it has none."""
        columns = list(page.subquery().c)
        pairs = zip(self.keys, columns[-len(self.keys) :], strict=True)
        order = (column if key.descending else column.desc() for key, column in pairs)
        columns = columns[: len(self.selected)]
        last = sa.select(*columns, sa.func.count().over()).options(*self.criteria).order_by(*order).limit(1)
        row = self.session.execute(last).one_or_none()
        return None if row is None else (self._cursors([[value] for value in row[:-1]])[0], row[-1])

    def _cursors(self, columns: Sequence[Sequence[Any]]) -> list[Any]:
        """Return one cursor per row, from the key columns of the page."""
        count = len(self.keys)
        typed = columns[:count] if self.plain else columns[count:]
        found = [key.cursors(*pair) for key, *pair in zip(self.keys, columns[:count], typed, strict=True)]
        for key, values in zip(self.keys, found, strict=True):
            if None in values:
                raise self._null(key.column)
        return found[0] if count == 1 else list(zip(*found, strict=True))

    def _proven(self, cursor: Any) -> _Values:
        """Return the values for the comparison of the next page, as in an execution that reads the cursor from JSON."""
        after = self.parse(cursor)
        if not self.plain and self.parse(decode(json.loads(json.dumps(encode(cursor))))) != after:
            raise CursorError(
                f"{self.name} made the cursor {cursor!r}, which JSON would change; use another column"
            )
        return after

    def _refuse_repeat(self, cursor: Any) -> None:
        raise CursorError(
            f"{self.name} found the row at its cursor {cursor!r} again after it: the driver returns a value "
            "that differs from the database's, or two rows have this key; use another column"
        )

    def _refuse_twins(self, cursors: Sequence[Any], after: _Values) -> None:
        """Raise if two rows of a page, or its last row and the next, have one key: one of them could be skipped."""
        twin = None
        if any(map(eq, cursors, islice(cursors, 1, None))):
            pairs = zip(cursors, islice(cursors, 1, None), strict=False)
            twin = next((one for one, other in pairs if same(one, other)), None)
        if twin is None and self.vouched and not (cursors and all(key.exact for key in self.keys)):
            # Because of a collation, values may be equal in the database but not in Python.
            page = only(self.select, *(key.stored.label(None) for key in self.keys)).order_by(*self.order)
            page = self._restrict(page.limit(self.limit), after, after=True)
            keys = page.subquery().c
            twins = sa.select(*keys).options(*self.criteria).group_by(*keys).having(sa.func.count() > 1)
            row = self.session.execute(twins.limit(1)).one_or_none()
            twin = tuple(row) if row is not None else None
        if twin is not None:
            names = ", ".join(str(key.column) for key in self.keys)
            raise JobDefinitionError(
                f"{self.name} found two rows with {names} = {twin!r}, but these columns must identify each "
                "row; one of the rows could be skipped: name more columns in columns="
            )

    def _refuse_nulls(self) -> None:
        """Raise if a column is NULL that the caller, a mapper or a model declares never NULL: pages skip such rows."""
        for column in (*self.nullable, *self.declared):
            rows = only(self.select, sa.literal(1)).where(sa.type_coerce(column, STORED).is_(None)).limit(1)
            with reading(self.session):
                if self.session.execute(rows).first() is not None:
                    raise self._null(column)

    def _null(self, column: Column) -> CursorError:
        vouched = any(column is each for each in self.nullable)
        said = "declared unique and never NULL" if vouched else "declared NOT NULL"
        return CursorError(
            f"{self.name} found a row whose {column} is NULL, though {said}; no comparison with NULL is "
            "true, so rows would be lost: use another column, or exclude such rows with "
            f".where({column}.is_not(None))"
        )

    def between(self, after: _Values, until: _Values) -> sa.Select[Any]:
        """Restrict the select to a range of the key."""
        return self._restrict(self._restrict(self.select, after, after=True), until, after=False)

    def _restrict(self, select: sa.Select[Any], values: _Values, *, after: bool) -> sa.Select[Any]:
        if values is None:
            return select
        return select.where(self._side([sa.literal(value, STORED) for value in values], after=after))

    def _side(self, bounds: list[Any], *, after: bool) -> sa.ColumnElement[bool]:
        """Return the condition that a row comes after *bounds* in the order of the key, or that it does not."""
        columns: list[Any] = [key.stored for key in self.keys]
        ups = [key.descending is not after for key in self.keys]
        if len(set(ups)) == 1:
            columns, bounds, ups = [sa.tuple_(*columns)], [sa.tuple_(*bounds)], ups[:1]
        *outer, (column, bound, up) = zip(columns, bounds, ups, strict=True)
        condition: sa.ColumnElement[bool] = _COMPARE[after, up](column, bound)
        for column, bound, up in reversed(outer):
            # Starts with a condition that can use an index.
            reached, passed = _COMPARE[False, up](column, bound), _COMPARE[True, up](column, bound)
            condition = sa.and_(reached, sa.or_(passed, condition))
        return condition


def _in_words(key: KeyColumn) -> str:
    """Return the name of a key column, the same in every process: an alias may have a number."""
    table: Any = getattr(key.column, "table", None)
    while isinstance(table, sa.Alias):
        table = table.element
    parts = [table.name] if isinstance(table, sa.Table) else []
    name = str(getattr(key.column, "name", None) or "")
    parts.append(name if name and "%(" not in name else "an expression")
    return ".".join(parts) + (" descending" if key.descending else "")
