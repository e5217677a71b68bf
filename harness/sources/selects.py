"""Analysis of a select: its tables, and the facts about a row from its keys, joins and WHERE.

It answers two questions: do some columns identify each row, and may a column be NULL? Subqueries are analysed
in the same way. If the answer is unknown, the worse one is assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.util import AliasedInsp
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import _label_reference
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import AliasedReturnsRows, FromGrouping, SelectStatementGrouping

from harness.sources.nulls import Name, excluded, name_of

Column: TypeAlias = sa.ColumnElement[Any]

_CUT = ("_limit_clause", "_fetch_clause", "_offset_clause", "_distinct_on", "_pre_columns_clause")

_NEVER_NULL = frozenset({"count", "now", "current_timestamp"})


class Sources:
    """Tables that a select reads, tables that an outer join may leave NULL, and columns that it sets equal."""

    def __init__(self, select: sa.Select[Any]) -> None:
        self.optional: set[sa.FromClause] = set()
        self.equals = list(_equalities(select.whereclause))
        # Without its columns, because options such as joinedload() add joins that are not the caller's.
        bare = only(select, sa.literal(1))
        self.tables: list[sa.FromClause] = []
        self._parts: list[sa.FromClause] = []
        self.filled = excluded(select.whereclause)
        for source in bare.get_final_froms():
            tables, filled = self._add(source)
            self.tables += tables
            self.filled |= filled
        # Where the outer join found nothing, all columns of its table are NULL, and so is this one.
        self.optional -= {table for table, _ in self.filled}
        self._bare = bare
        self._believed: list[tuple[list[Name], set[sa.FromClause]]] = []

    def _add(self, source: sa.FromClause) -> tuple[list[sa.FromClause], set[Name]]:
        """Record the tables of a part of FROM; return them, and the columns in which it excludes NULL."""
        source = _ungrouped(source)
        self._parts.append(source)
        if not isinstance(source, sa.Join):
            return [source], set()
        left, right = self._add(source.left), self._add(source.right)
        outer = source.isouter or source.full
        self.optional.update(right[0] if outer else (), left[0] if source.full else ())
        # The outer side follows from the other, and not the other from it.
        self.equals += [each for each in _equalities(source.onclause) if not outer or each[0][0] in right[0]]
        if not outer:
            return left[0] + right[0], left[1] | right[1] | excluded(source.onclause)
        return left[0] + right[0], set() if source.full else left[1]

    @cached_property
    def fleeting(self) -> set[sa.FromClause]:
        """Tables whose name changes each time the select is compiled."""
        # So a relationship joins its secondary table.
        again = {table for source in self._bare.get_final_froms() for table in _tables(source)}
        return {table for table in self.tables if table not in again}

    def believe(self, table: sa.FromClause) -> list[Column]:
        """Trust the primary key that the mapper of *table* declares from now on; return it, or nothing."""
        for source in self._parts:
            tables = set(_tables(source))
            if table in tables and (columns := mapped_key(source)):
                self._believed.append(([name_of(column) for column in columns], tables))
                return columns
        return []

    @property
    def believed(self) -> set[Name]:
        """Columns that identify the select's rows only because a mapper declares it."""
        return {name for names, _ in self._believed for name in names}

    def ambiguous(self, key: Collection[Name]) -> sa.FromClause | None:
        """Return a table in which several rows may have one value of the key, if there is one."""
        known: set[sa.FromClause] = set()

        def fixed(column: Name) -> bool:
            equals = [other for one, other in self.equals if one == column]
            return column in key or any(each is None or each in key or each[0] in known for each in equals)

        while found := set(self._told_apart(fixed)) - known:
            known |= found
        # A table with unknown columns comes last, because the others may also identify its rows.
        left = set(self.tables) - known
        if not left:
            return None
        return min(left, key=lambda table: (table in self.fleeting, self.tables.index(table)))

    def _told_apart(self, fixed: Callable[[Name], bool]) -> Iterator[sa.FromClause]:
        for names, tables in self._believed:
            if all(map(fixed, names)):
                yield from tables
        for table in self.tables:
            if any(all(map(fixed, columns)) for columns in unique(table)) or _inside(table, fixed):
                yield table

    def may_be_null(self, expression: Any) -> bool:
        """Return whether *expression* may be NULL in a row of the select, as far as is known."""
        expression = _unlabelled(expression)
        if isinstance(expression, sa.ColumnClause) and expression.table in self.tables:
            if expression.table in self.optional:
                return True
            return name_of(expression) not in self.filled and _nullable(expression)
        if isinstance(expression, FunctionElement) and hasattr(expression, "name"):
            name = expression.name.lower()
            arguments = map(self.may_be_null, expression.clauses)
            return name not in _NEVER_NULL and (
                all(arguments) if name == "coalesce" else name not in {"lower", "upper"} or any(arguments)
            )
        return True


def read_from(select: sa.Select[Any]) -> list[sa.FromClause]:
    """Return the tables and aliases that the columns of a select are read from, each with its mapped class."""
    # SQLAlchemy's column of a label has no class, and so lacks the criteria that the class adds.
    entities = (entity for each in select.column_descriptions if (entity := each.get("entity")) is not None)
    mapped = {source: source for each in entities for source in sa.select(each).columns_clause_froms}
    return [mapped.get(source, source) for source in select.columns_clause_froms]


def only(select: sa.Select[Any], *columns: Any) -> sa.Select[Any]:
    """Return a select of other columns of the same rows."""
    return select.select_from(*read_from(select)).with_only_columns(*columns)


def mapped_key(source: sa.FromClause) -> list[Column]:
    """Return the primary key that a mapper declares, or nothing."""
    entity = source._annotations.get("parententity")  # noqa: SLF001 - as the ORM finds the class of a table
    # A join has the class of its left side.
    if not isinstance(entity, Mapper | AliasedInsp) or not (
        set(_tables(source)) <= set(_tables(entity.selectable))
    ):
        return []
    if isinstance(entity, Mapper):
        return list(entity.primary_key)
    key: Any = entity.mapper.primary_key
    found: list[Any] = [entity.selectable.corresponding_column(column) for column in key]
    return found if all(column is not None for column in found) else []


def unique(table: sa.FromClause) -> Iterator[list[Name]]:
    """Yield the sets of columns that are unique in a table; nothing for a subquery."""
    base = _base(table)
    # A sample differs each time that it is read.
    known = isinstance(base, sa.Table) and not isinstance(table, sa.TableSample)
    declared: list[Any] = [*base.constraints, *base.indexes] if known else []
    for each in declared:
        is_unique = isinstance(each, sa.PrimaryKeyConstraint | sa.UniqueConstraint)
        if isinstance(each, sa.Index) and each.unique:
            whole = not any(option.endswith("_where") for option in each.dialect_kwargs)
            is_unique = whole and all(isinstance(part, sa.Column) for part in each.expressions)
        if is_unique and each.columns:
            yield [(table, column.key) for column in each.columns]


def _inside(table: sa.FromClause, fixed: Callable[[Name], bool]) -> bool:
    """Return whether the *fixed* columns of a subquery identify its rows."""
    inner = _base(table)
    if not isinstance(inner, sa.Select) or _is_cut(inner):
        return False
    columns = [column for column in table.c if fixed(name_of(column))]
    found = [_unlabelled(expression) for column in columns for _, expression in _expressions(column)]
    names = {name_of(each) for each in found if isinstance(each, sa.ColumnClause) and each.table is not None}

    def in_key(group: Any) -> bool:
        if isinstance(group, sa.ColumnClause) and group.table is not None:
            return name_of(group) in names
        return any(group.compare(each) for each in found)

    if groups := inner._group_by_clauses:  # noqa: SLF001 - no public way to ask
        return all(in_key(_unlabelled(group)) for group in groups)
    everything = len(found) == len(list(table.c))
    return (inner._distinct is True and everything) or Sources(inner).ambiguous(names) is None  # noqa: SLF001


def _is_cut(select: sa.Select[Any]) -> bool:
    """Return whether a select omits rows by their order: read again, it may return others."""
    clauses = [getattr(select, each, None) for each in _CUT]
    return any(bool(each) if isinstance(each, tuple) else each is not None for each in clauses)


def _unlabelled(expression: Any) -> Any:
    while isinstance(expression, sa.Label | _label_reference):
        expression = expression.element
    return expression


def of_model(column: Any) -> bool:
    """Return whether only the model says that a column is not NULL: one of a table, and of no primary key."""
    return isinstance(_base(column.table), sa.Table) and not column.primary_key


def _nullable(column: Any) -> bool:
    """Return whether a column may be NULL in its table, or in its subquery."""
    if isinstance(_base(column.table), sa.Table):
        return bool(column.nullable)
    found = _expressions(column)
    return not found or any(Sources(select).may_be_null(expression) for select, expression in found)


def _expressions(column: Any) -> list[tuple[sa.Select[Any], Any]]:
    """Return the inner columns of a subquery's column, each with its select: several for a UNION, none if unknown."""
    while isinstance(column.table, AliasedReturnsRows) and isinstance(
        column.table.element, AliasedReturnsRows
    ):
        column = next(iter(column._proxies))  # noqa: SLF001 - an alias of a subquery
    table, inner = column.table, _base(column.table)
    if getattr(table, "recursive", False) or not isinstance(inner, sa.Select | sa.CompoundSelect):
        return []
    place = list(table.c.keys()).index(column.key)
    found: list[tuple[sa.Select[Any], Any]] = []
    for each in inner.selects if isinstance(inner, sa.CompoundSelect) else [inner]:
        select = each.element if isinstance(each, SelectStatementGrouping) else each
        if not isinstance(select, sa.Select) or len(select.selected_columns) != len(table.c):
            return []
        found.append((select, list(select.selected_columns)[place]))
    return found


def _base(table: Any) -> Any:
    """Return the element that an alias, a subquery or a CTE names."""
    while isinstance(table, AliasedReturnsRows):
        table = table.element
    return table


def _ungrouped(source: sa.FromClause) -> sa.FromClause:
    # A class whose table joins its parent's is joined in parentheses.
    return source.element if isinstance(source, FromGrouping) else source


def _tables(source: sa.FromClause) -> Iterator[sa.FromClause]:
    source = _ungrouped(source)
    if isinstance(source, sa.Join):
        yield from _tables(source.left)
        yield from _tables(source.right)
    else:
        yield source


def _equalities(clause: Any) -> Iterator[tuple[Name, Name | None]]:
    """Yield each column that *clause* sets equal, with the other column, or with None for a parameter."""
    if isinstance(clause, sa.BooleanClauseList) and clause.operator is operators.and_:
        for part in clause.clauses:
            yield from _equalities(part)
    elif isinstance(clause, sa.BinaryExpression) and clause.operator is operators.eq:
        for one, other in ((clause.left, clause.right), (clause.right, clause.left)):
            if isinstance(one, sa.ColumnClause) and one.table is not None:
                if isinstance(other, sa.BindParameter):
                    yield name_of(one), None
                elif isinstance(other, sa.ColumnClause) and other.table is not None:
                    yield name_of(one), name_of(other)
