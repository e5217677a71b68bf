"""Find columns that identify each row of a select and sort all rows without losing any.

This finds the key that :mod:`harness.sources.keyset` reads pages by, from what :mod:`harness.sources.selects` knows of
the tables, and from what a mapper or the caller vouches for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import _label_reference
from sqlalchemy.sql.functions import FunctionElement

from harness.errors import JobDefinitionError
from harness.sources.nulls import Name, name_of
from harness.sources.selects import Column, Sources, mapped_key, read_from, unique

MOST_KNOWN = 200
"""Number of select shapes whose keys are cached."""

_AGGREGATES = frozenset({
    "aggregate_strings", "avg", "count", "group_concat", "json_group_array", "json_group_object", "max", "min",
    "string_agg", "sum", "total",
})  # fmt: skip
"""Aggregates that SQLite computes of a page without a complaint; PostgreSQL refuses them next to a key."""


@dataclass(frozen=True)
class Key:
    """The columns to sort by.

    :ivar columns: each with whether it descends.
    :ivar vouched: whether only a mapper or the caller says that they tell all rows apart, so that reading checks it.
    :ivar nullable: those of which nothing but that word says that they are not NULL.
    """

    columns: list[tuple[Column, bool]]
    vouched: bool
    nullable: list[Column]


_known: dict[Any, Key] = {}


def key_of(name: str, select: sa.Select[Any], given: Any, *, vouched: bool = False) -> Key:
    """Return the columns of the key: those given, and what tells all rows apart.

    :param name: of the function that is called, for errors.
    :param given: the columns that its caller named, or None for the primary key.
    :param vouched: whether the caller says that the columns given tell all rows apart and are never NULL.
    :raises JobDefinitionError: if there is no such key.
    """
    if given is not None:
        return _found(name, select, given, vouched=vouched)
    if vouched:
        raise JobDefinitionError(
            f"{name} got unique=True without columns=; name the columns that tell all rows apart in columns="
        )
    # Selects of one shape have one key, whatever they compare with. A job within whose items another select is read
    # asks once an item, and to find the key takes as long as to read some hundred rows.
    shape = select._generate_cache_key()  # noqa: SLF001 - what SQLAlchemy's own cache of statements goes by
    known = _known.get(shape.key) if shape else None
    if known is not None:
        return known
    key = _found(name, select, given, vouched=False)
    # Aliases of one table have one shape, but the columns of one are none of the other's.
    if shape and all(isinstance(column.table, sa.Table) for column, _ in key.columns):
        while len(_known) >= MOST_KNOWN:
            del _known[next(iter(_known))]
        _known[shape.key] = key
    return key


def unordered(name: str, select: sa.Select[Any], key: Key) -> sa.Select[Any]:
    """Return a select without its ORDER BY, if that is the order of the key.

    :raises JobDefinitionError: if it is another.
    """
    clauses = select._order_by_clauses  # noqa: SLF001 - no public way to ask
    order = [(name_of(column), descending) for column, descending in key.columns]
    try:
        given = [_ordered(name, _bare(clause)) for clause in clauses]
    except JobDefinitionError:
        given = []
    if not given or [(name_of(column), descending) for column, descending in given] != order[: len(given)]:
        wanted = ", ".join(f"{column}{' DESC' if descending else ''}" for column, descending in key.columns)
        raise JobDefinitionError(
            f"{name} cannot read a select with ORDER BY in pages: pages come in the order of the key, here {wanted}; "
            "leave ORDER BY out, and name the columns in columns="
        )
    return select.order_by(None)


def _found(name: str, select: sa.Select[Any], given: Any, *, vouched: bool) -> Key:
    for column in select.selected_columns:
        if (found := next(filter(None, map(_computed, _parts(column))), None)) is not None:
            raise JobDefinitionError(
                f"{name} cannot read a select with {found} in pages: each page would compute it of its own rows "
                "only; compute it in a subquery or in the job"
            )
    sources = Sources(select)
    if given is None:
        given = [
            column
            for source in read_from(select)[:1]
            for column in list(source.primary_key) or mapped_key(source)
        ]
    key: dict[Name, tuple[Column, bool]] = {}
    descending = False
    for each in given if isinstance(given, list | tuple) else (given,):
        column, descending = _ordered(name, each)
        key.setdefault(name_of(column), (column, descending))
    proven = True
    while (table := sources.ambiguous(key)) is not None:
        if vouched:
            proven = False
            break
        missing = _missing(name, sources, table, key)
        key.update((name_of(column), (_plain(column), descending)) for column in missing)
    if not key:
        raise JobDefinitionError(f"{name} cannot read a select without a table in pages")
    nullable: list[Column] = []
    for column, _ in key.values():
        believed = vouched or name_of(column) in sources.believed
        if (objection := _objection(sources, column, believed=believed)) is not None:
            raise JobDefinitionError(f"{name} cannot sort by {column}: {objection}")
        if believed and sources.may_be_null(column):
            nullable.append(column)
    return Key(list(key.values()), not proven or bool(sources.believed), nullable)


def _missing(name: str, sources: Sources, table: sa.FromClause, key: dict[Name, Any]) -> list[Column]:
    """Return the columns that the key still needs to tell the rows of *table* apart; none if a mapper vouches."""
    if table in sources.fleeting and any(unique(table)):
        raise JobDefinitionError(
            f"{name} cannot tell the rows of {table.description} apart, which a relationship joins under a name "
            "that is not known; join it by itself, in place of the relationship"
        )
    missing: list[Column] = [column for column in table.primary_key if name_of(column) not in key]
    if missing:
        return missing
    if believed := sources.believe(table):
        return [column for column in believed if name_of(column) not in key]
    raise JobDefinitionError(
        f"{name} cannot tell the rows of {table.description} apart, for it has no primary key that is known; name "
        "columns that do in columns=[…] with unique=True, or give primary_key= to the mapper of its class, or if it "
        "is only there to choose rows, use it in where() with exists()"
    )


def _objection(sources: Sources, column: Column, *, believed: bool) -> str | None:
    """Say why sorting by *column* would lose rows, if it would."""
    if column.table not in sources.tables:
        read = ", ".join(table.description for table in sources.tables)
        return f"the select does not read its table or alias; take a column of {read}"
    if not believed and column.table in sources.optional:
        return (
            "an outer join may leave it NULL, which compares with nothing; use an inner join or none, or leave such "
            f"rows out with .where({column}.is_not(None))"
        )
    if not believed and sources.may_be_null(column):
        return (
            "it is nullable, and NULL compares with nothing; leave such rows out with "
            f".where({column}.is_not(None)), or take another column, or declare it NOT NULL"
        )
    if isinstance(column.type, sa.Float):
        return "a float may differ from what was read of it; take another column, such as the primary key"
    return None


def _ordered(name: str, given: Any) -> tuple[Column, bool]:
    """Return a column that the caller named, and whether it descends."""
    try:
        ordered = given if isinstance(given, sa.UnaryExpression) else sa.asc(given)
        column, descending = ordered.element, ordered.modifier is operators.desc_op
    except (sa.exc.ArgumentError, NotImplementedError):
        column = None
    of_table = isinstance(column, sa.ColumnClause) and column.table is not None
    if not (of_table and (descending or ordered.modifier is operators.asc_op)):
        shown = repr(given) if isinstance(given, str) else str(given)
        raise JobDefinitionError(
            f"{name} sorts by columns such as Order.due, each with or without desc(); got {shown}; to sort by an "
            "expression, label it in a subquery, select from that, and name its column in columns="
        )
    return _plain(column), descending


def _bare(clause: Any) -> Any:
    """Return a part of ORDER BY without what :func:`harness.sources.keyset.ranges` and labels put around it."""
    if isinstance(clause, sa.UnaryExpression) and clause.modifier in {operators.desc_op, operators.asc_op}:
        return (sa.desc if clause.modifier is operators.desc_op else sa.asc)(_bare(clause.element))
    while isinstance(clause, sa.TypeCoerce | _label_reference):
        clause = clause.clause if isinstance(clause, sa.TypeCoerce) else clause.element
    return clause


def _plain(column: Any) -> Column:
    # Without what the ORM notes on it: of a class that is read with its subclasses, that would join all of them again.
    found: Column = column.table.c[column.key]
    return found


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
