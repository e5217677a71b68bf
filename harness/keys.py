"""Which columns tell the rows of a select apart, and can be sorted by without losing any.

Of a select this finds its tables, what their declared keys and the joins say about them, and so the key that
:mod:`harness.keyset` reads pages by.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.sql import operators
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import FromGrouping

from harness.errors import JobDefinitionError

Column: TypeAlias = sa.ColumnElement[Any]
Name: TypeAlias = tuple[sa.FromClause, str]
Key: TypeAlias = list[tuple[Column, bool]]

MOST_KNOWN = 200
"""How many shapes of selects are remembered with their keys."""

_AGGREGATES = frozenset({
    "aggregate_strings", "avg", "count", "group_concat", "json_group_array", "json_group_object", "max", "min",
    "string_agg", "sum", "total",
})  # fmt: skip
"""Those that SQLite computes of a page without a complaint; PostgreSQL refuses them beside a key."""

_known: dict[Any, Key] = {}


def key_of(name: str, select: sa.Select[Any], given: Any) -> Key:
    """Return the columns of the key, and whether they descend: those given, and what tells all rows apart.

    :param name: of the function that is called, for errors.
    :param given: the columns that its caller named, or None for the primary key.
    :raises JobDefinitionError: if there is no such key.
    """
    if given is not None:
        return _found(name, select, given)
    # Selects of one shape have one key, whatever they compare with. A job within whose items another select is read
    # asks once an item, and to find the key takes as long as to read some hundred rows.
    shape = select._generate_cache_key()  # noqa: SLF001 - what SQLAlchemy's own cache of statements goes by
    known = _known.get(shape.key) if shape else None
    if known is not None:
        return known
    key = _found(name, select, given)
    # Aliases of one table have one shape, but the columns of one are none of the other's.
    if shape and all(isinstance(column.table, sa.Table) for column, _ in key):
        while len(_known) >= MOST_KNOWN:
            del _known[next(iter(_known))]
        _known[shape.key] = key
    return key


def _found(name: str, select: sa.Select[Any], given: Any) -> Key:
    for column in select.selected_columns:
        if (found := next(filter(None, map(_computed, _parts(column))), None)) is not None:
            raise JobDefinitionError(
                f"{name} cannot read a select with {found} in pages: each page would compute it anew, of its own "
                "rows; compute it in a subquery or in the job"
            )
    sources = _Sources(select)
    if given is None:
        given = [column for source in select.columns_clause_froms[:1] for column in source.primary_key]
    key: dict[Name, tuple[Column, bool]] = {}
    descending = False
    for each in given if isinstance(given, list | tuple) else (given,):
        column, descending = _ordered(name, each)
        key.setdefault(_name_of(column), (column, descending))
    while (table := sources.ambiguous(key)) is not None:
        if table in sources.fleeting and any(_unique(table)):
            raise JobDefinitionError(
                f"{name} cannot tell the rows of {table.description} apart, which a relationship joins under a name "
                "that is not known; join it by itself, in place of the relationship"
            )
        missing = [column for column in table.primary_key if _name_of(column) not in key]
        if not (missing and any(_unique(table))):
            raise JobDefinitionError(
                f"{name} cannot tell the rows of {table.description} apart, for it has no primary key; "
                "name columns that are unique, or if it is a subquery, use it in where() with exists()"
            )
        key.update((_name_of(column), (_plain(column), descending)) for column in missing)
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
        again = {table for source in bare.get_final_froms() for table in _tables(source)}
        # A relationship joins its secondary table under an alias made anew each time the select is compiled.
        self.fleeting = {table for table in self.tables if table not in again}

    def _add(self, source: sa.FromClause) -> list[sa.FromClause]:
        source = _ungrouped(source)
        if not isinstance(source, sa.Join):
            return [source]
        left, right = self._add(source.left), self._add(source.right)
        outer = source.isouter or source.full
        self.optional.update(right if outer else (), left if source.full else ())
        # The outer side follows from the other, and not the other from it.
        self.equals += [each for each in _equalities(source.onclause) if not outer or each[0][0] in right]
        return left + right

    def ambiguous(self, key: Collection[Name]) -> sa.FromClause | None:
        """Return a table of which one value of the key may stand for several rows, if there is one."""
        known: set[sa.FromClause] = set()

        def fixed(column: Name) -> bool:
            equals = [other for one, other in self.equals if one == column]
            return column in key or any(each is None or each in key or each[0] in known for each in equals)

        def told_apart(table: sa.FromClause) -> bool:
            return any(all(map(fixed, columns)) for columns in _unique(table))

        while found := {table for table in self.tables if told_apart(table)} - known:
            known |= found
        # One whose columns cannot be had comes last: the others may tell its rows apart as well.
        return min(
            set(self.tables) - known,
            key=lambda table: (table in self.fleeting, self.tables.index(table)),
            default=None,
        )

    def objection(self, column: Column) -> str | None:
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


def _ordered(name: str, given: Any) -> tuple[Column, bool]:
    """Return a column that the caller named, and whether it descends."""
    try:
        ordered = given if isinstance(given, sa.UnaryExpression) else sa.asc(given)
        column, descending = ordered.element, ordered.modifier is operators.desc_op
    except (sa.exc.ArgumentError, NotImplementedError):
        column = None
    if not (isinstance(column, sa.Column) and (descending or ordered.modifier is operators.asc_op)):
        shown = repr(given) if isinstance(given, str) else str(given)
        raise JobDefinitionError(
            f"{name} sorts by columns such as Order.due, each with or without desc(), found {shown}"
        )
    return _plain(column), descending


def _plain(column: Column) -> Column:
    # Without what the ORM notes on it: of a class that is read with its subclasses, that would join all of them again.
    return column.table.c[column.key]  # type: ignore[no-any-return]  # of any kind of table


def _parts(element: Any) -> Iterator[Any]:
    """Yield what an expression of a select is made of, subqueries aside."""
    if not isinstance(element, sa.ColumnClause | sa.SelectBase):
        yield element
        for child in element.get_children():
            yield from _parts(child)


def _computed(part: Any) -> str | None:
    """Return what a part of an expression is, if it depends on other rows."""
    if isinstance(part, sa.Over):
        return "a window function"
    if isinstance(part, sa.WithinGroup | sa.FunctionFilter):
        return "an aggregate"
    name = part.name.lower() if isinstance(part, FunctionElement) and hasattr(part, "name") else ""
    # Of several arguments, SQLite's max and min are of one row.
    of_one_row = name in {"max", "min"} and len(part.clauses) > 1
    return f"the aggregate {name}()" if name in _AGGREGATES and not of_one_row else None


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


def _name_of(column: Any) -> Name:
    # Not the column: SQLAlchemy makes copies of it with annotations, of which not all are equal.
    return column.table, column.key


def _equalities(clause: Any) -> Iterator[tuple[Name, Name | None]]:
    """Yield each column that *clause* sets equal to a column, and that, or to a parameter, and None."""
    if isinstance(clause, sa.BooleanClauseList) and clause.operator is operators.and_:
        for part in clause.clauses:
            yield from _equalities(part)
    elif isinstance(clause, sa.BinaryExpression) and clause.operator is operators.eq:
        for one, other in ((clause.left, clause.right), (clause.right, clause.left)):
            if isinstance(one, sa.Column) and isinstance(other, sa.Column | sa.BindParameter):
                yield _name_of(one), None if isinstance(other, sa.BindParameter) else _name_of(other)


def _unique(table: sa.FromClause) -> Iterator[list[Name]]:
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
