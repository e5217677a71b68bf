"""Find columns that identify each row of a select and sort all rows without losing any.

This finds the key of the pages of :mod:`harness.sources.keyset`, from the facts of
:mod:`harness.sources.selects` about the tables, and from the declarations of a mapper or the caller.
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
from harness.sources.selects import Column, Sources, mapped_key, of_model, read_from, unique

MOST_KNOWN = 200
"""Number of select shapes whose keys are cached."""

_AGGREGATES = frozenset({
    "aggregate_strings", "avg", "count", "group_concat", "json_group_array", "json_group_object", "max", "min",
    "string_agg", "sum", "total",
})  # fmt: skip
"""Aggregates that SQLite computes for a page without an error; PostgreSQL refuses them next to a key."""


@dataclass(frozen=True)
class Key:
    """Columns to sort by.

    :ivar columns: each with whether it descends. :ivar vouched: whether only a mapper or the caller declares
        that they identify each row, so that reading checks it. :ivar nullable: columns that are not NULL only
        according to that declaration. :ivar declared: columns, besides those of primary keys, that are not NULL only
        according to the model.
    """

    columns: list[tuple[Column, bool]]
    vouched: bool
    nullable: list[Column]
    declared: list[Column]


_known: dict[Any, Key] = {}


def key_of(name: str, select: sa.Select[Any], given: Any, *, vouched: bool = False) -> Key:
    """Return the columns of the key: the given ones, and those needed to identify each row.

    :param name: name of the called function, for errors. :param given: columns from the caller, or None for
        the primary key. :param vouched: whether the caller declares that the given columns identify each row
        and are never NULL. :raises JobDefinitionError: if there is no such key.
    """
    if given is not None:
        return _found(name, select, given, vouched=vouched)
    if vouched:
        raise JobDefinitionError(
            f"{name} got unique=True without columns=; name columns that identify each row in columns="
        )
    # Selects of one shape have one key, independent of their parameters. A job that reads another select for
    # each item asks once per item, and finding the key takes as long as reading some hundred rows.
    shape = select._generate_cache_key()  # noqa: SLF001 - what SQLAlchemy's own cache of statements goes by
    known = _known.get(shape.key) if shape else None
    if known is not None:
        return known
    key = _found(name, select, given, vouched=False)
    # Aliases of one table have one shape, but different columns.
    if shape and all(isinstance(column.table, sa.Table) for column, _ in key.columns):
        while len(_known) >= MOST_KNOWN:
            del _known[next(iter(_known))]
        _known[shape.key] = key
    return key


def unordered(name: str, select: sa.Select[Any], key: Key) -> sa.Select[Any]:
    """Return a select without its ORDER BY, if that is the order of the key.

    :raises JobDefinitionError: if it is another order.
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
            f"{name} cannot read a select with ORDER BY in pages: pages come in the order of the key, here "
            f"{wanted}; remove ORDER BY, and name the columns in columns="
        )
    return select.order_by(None)


def _found(name: str, select: sa.Select[Any], given: Any, *, vouched: bool) -> Key:
    for column in select.selected_columns:
        if (found := next(filter(None, map(_computed, _parts(column))), None)) is not None:
            raise JobDefinitionError(
                f"{name} cannot read a select with {found} in pages: each page would compute it with its own "
                "rows only; compute it in a subquery or in the job"
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
    declared: list[Column] = []
    for column, _ in key.values():
        believed = vouched or name_of(column) in sources.believed
        if (objection := _objection(sources, column, believed=believed)) is not None:
            raise JobDefinitionError(f"{name} cannot sort by {column}: {objection}")
        if believed and sources.may_be_null(column):
            nullable.append(column)
        elif of_model(column) and name_of(column) not in sources.filled:
            # The database may lack NOT NULL, as before a migration. Pages would skip such rows without an error.
            declared.append(column)
    return Key(list(key.values()), not proven or bool(sources.believed), nullable, declared)


def _missing(name: str, sources: Sources, table: sa.FromClause, key: dict[Name, Any]) -> list[Column]:
    """Return the columns that the key still needs to identify the rows of *table*; none if a mapper declares it."""
    if table in sources.fleeting and any(unique(table)):
        raise JobDefinitionError(
            f"{name} cannot identify the rows of {table.description}, which a relationship joins under an "
            "unknown name; join the table explicitly instead of the relationship"
        )
    missing: list[Column] = [column for column in table.primary_key if name_of(column) not in key]
    if missing:
        return missing
    if believed := sources.believe(table):
        return [column for column in believed if name_of(column) not in key]
    raise JobDefinitionError(
        f"{name} cannot identify the rows of {table.description}: no primary key is known; name columns that "
        "identify each row in columns=[…] with unique=True, or set primary_key= of the mapper of its class, or if it "
        "only filters rows, use it in where() with exists()"
    )


def _objection(sources: Sources, column: Column, *, believed: bool) -> str | None:
    """Return why sorting by *column* would lose rows, or None."""
    if column.table not in sources.tables:
        read = ", ".join(table.description for table in sources.tables)
        return f"the select does not read its table or alias; use a column of {read}"
    if not believed and column.table in sources.optional:
        return (
            "an outer join may leave it NULL, and no comparison with NULL is true; use an inner join or "
            f"none, or exclude such rows with .where({column}.is_not(None))"
        )
    if not believed and sources.may_be_null(column):
        return (
            "it is nullable, and no comparison with NULL is true; exclude such rows with "
            f".where({column}.is_not(None)), use another column, or declare it NOT NULL"
        )
    if isinstance(column.type, sa.Float):
        return "a float may differ from the value that was read; use another column, such as the primary key"
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
    """Return a part of ORDER BY without labels and the wrapper of :func:`harness.sources.keyset.ranges`."""
    if isinstance(clause, sa.UnaryExpression) and clause.modifier in {operators.desc_op, operators.asc_op}:
        return (sa.desc if clause.modifier is operators.desc_op else sa.asc)(_bare(clause.element))
    while isinstance(clause, sa.TypeCoerce | _label_reference):
        clause = clause.clause if isinstance(clause, sa.TypeCoerce) else clause.element
    return clause


def _plain(column: Any) -> Column:
    # Without the ORM's annotations: for a class that is read with its subclasses, they would join all of them
    # again.
    found: Column = column.table.c[column.key]
    return found


def _parts(element: Any) -> Iterator[Any]:
    """Yield the parts of an expression of a select, except subqueries."""
    if not isinstance(element, sa.ColumnClause | sa.SelectBase):
        yield element
        for child in element.get_children():
            yield from _parts(child)


def _computed(part: Any) -> str | None:
    """Return the kind of a part of an expression that depends on other rows, or None."""
    if isinstance(part, sa.Over):
        return "a window function"
    if isinstance(part, sa.WithinGroup | sa.FunctionFilter):
        return "an aggregate"
    name = part.name.lower() if isinstance(part, FunctionElement) and hasattr(part, "name") else ""
    # With several arguments, SQLite's max and min use one row.
    of_one_row = name in {"max", "min"} and len(part.clauses) > 1
    return f"the aggregate {name}()" if name in _AGGREGATES and not of_one_row else None
