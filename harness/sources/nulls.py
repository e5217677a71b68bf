"""Columns whose NULLs a condition excludes.

A comparison with NULL is unknown, and WHERE keeps the rows for which its condition is true. So ``col > 3``,
``col.in_(…)`` and ``col.is_not(None)`` exclude NULL, ``not_in()`` does not: an empty list is true of
everything. Of an OR, each branch must exclude it. Unknown expressions, such as text() or a custom operator,
exclude nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import AsBoolean, CollectionAggregate, Grouping, Null, Tuple
from sqlalchemy.sql.functions import FunctionElement

Name: TypeAlias = tuple[sa.FromClause, str]
"""A table or alias and the key of a column: copies of a column with annotations are not all equal."""

_ORDERED = frozenset({operators.lt, operators.le, operators.gt, operators.ge})
_LIKE = frozenset({
    getattr(operators, f"{negated}{name}_op")
    for name in (
        "contains", "endswith", "icontains", "iendswith", "ilike", "istartswith", "like", "regexp_match", "startswith",
    )
    for negated in ("", "not_")
})  # fmt: skip
_COMPARISONS = _ORDERED | _LIKE | {operators.eq, operators.ne}
"""Operators that return NULL if one side is NULL."""

_COMPARISON_TEXTS = frozenset({"=", "==", "<>", "!=", "<", "<=", ">", ">="})
_ARITHMETIC = frozenset({
    operators.add, operators.sub, operators.mul, operators.truediv, operators.floordiv, operators.mod,
    operators.collate,
})  # fmt: skip
_FUNCTIONS = frozenset({"abs", "char_length", "length", "lower", "ltrim", "round", "rtrim", "trim", "upper"})
"""Functions that return NULL, on every database, if an argument is NULL."""


def name_of(column: Any) -> Name:
    """Return the name of a column that belongs to a table, an alias or a subquery."""
    return column.table, column.key


def excluded(condition: Any) -> set[Name]:
    """Return the columns that are not NULL in any row for which *condition* is true."""
    return set() if condition is None else _given(condition, true=True)


def strict(expression: Any) -> set[Name]:
    """Return the columns that are not NULL whenever *expression* is not NULL."""
    if isinstance(expression, sa.ColumnClause):
        return set() if expression.table is None else {name_of(expression)}
    if isinstance(expression, sa.BinaryExpression) and expression.operator not in _ARITHMETIC:
        return _binary(expression, true=True) & _binary(expression, true=False)
    return _union(map(strict, _operands(expression)))


def _operands(expression: Any) -> Iterable[Any]:
    """Return the parts of an expression that is NULL if one of them is."""
    found: Iterable[Any] = ()
    match expression:
        case Grouping() | sa.Label() | AsBoolean():
            found = [expression.element]
        case sa.Cast() | sa.TypeCoerce():
            found = [expression.clause]
        case sa.Extract():
            found = [expression.expr]
        case sa.UnaryExpression() if expression.operator in {operators.neg, operators.inv}:
            found = [expression.element]
        case sa.BinaryExpression():
            found = [expression.left, expression.right]
        case FunctionElement() if getattr(expression, "name", "").lower() in _FUNCTIONS:
            found = expression.clauses
    return found


def _given(condition: Any, *, true: bool) -> set[Name]:
    """Return the columns that are not NULL where *condition* is true, or where it is false."""
    match condition:
        case Grouping():
            return _given(condition.element, true=true)
        case sa.BooleanClauseList():
            parts = [_given(part, true=true) for part in condition.clauses]
            every = (condition.operator is operators.and_) is true
            return _union(parts) if every else set.intersection(*parts) if parts else set()
        case AsBoolean():
            return _given(condition.element, true=(condition.operator is operators.is_true) is true)
        case sa.UnaryExpression() if condition.operator is operators.inv:
            return _given(condition.element, true=not true)
        case sa.BinaryExpression():
            return _binary(condition, true=true)
    return strict(condition)


def _binary(condition: sa.BinaryExpression[Any], *, true: bool) -> set[Name]:
    left, right = condition.left, condition.right
    negated = _NEGATED.get(condition.operator)
    if negated is not None:
        operator, true = negated, not true
    else:
        operator = condition.operator
    if operator is operators.in_op:
        return _elements(left) if true else set()
    if operator is operators.between_op:
        return strict(left) | (_union(map(strict, right.get_children())) if true else set())
    if operator is operators.is_:
        return _is(left, right, true=true)
    if operator is operators.is_not_distinct_from:
        null = isinstance(left, Null) or isinstance(right, Null)
        return strict(left) | strict(right) if null and not true else set()
    return _compared(condition, true=true) if _compares(condition) else set()


_NEGATED: dict[Any, Any] = {
    operators.not_in_op: operators.in_op,
    operators.not_between_op: operators.between_op,
    operators.is_not: operators.is_,
    operators.is_distinct_from: operators.is_not_distinct_from,
}


def _is(left: Any, right: Any, *, true: bool) -> set[Name]:
    """Return the non-NULL columns that follow if *left* is, or is not, NULL, true or false."""
    wanted = isinstance(right, sa.True_ | sa.False_) if true else isinstance(right, Null)
    return strict(left) if wanted else set()


def _compares(condition: sa.BinaryExpression[Any]) -> bool:
    operator = condition.operator
    if isinstance(operator, operators.custom_op):
        return operator.opstring in _COMPARISON_TEXTS
    return operator in _COMPARISONS


def _compared(condition: sa.BinaryExpression[Any], *, true: bool) -> set[Name]:
    sides = [condition.left, condition.right]
    whole = [each.element if isinstance(each, Grouping) else each for each in sides]
    if any(isinstance(each, CollectionAggregate) for each in whole):
        # For an empty array, ANY is false and ALL is true.
        some = all(
            each.operator is operators.any_op for each in whole if isinstance(each, CollectionAggregate)
        )
        return _union(map(strict, whole)) if some and true else set()
    if any(isinstance(each, Tuple) for each in whole):
        # The first elements that differ decide, so those after them may be NULL.
        if true and condition.operator is operators.eq:
            return _union(map(_elements, whole))
        ordered = true and condition.operator in _ORDERED
        return _union(
            strict(next(iter(each.clauses))) for each in whole if isinstance(each, Tuple) and ordered
        )
    return _union(map(strict, sides))


def _elements(expression: Any) -> set[Name]:
    expression = expression.element if isinstance(expression, Grouping) else expression
    return _union(map(strict, expression.clauses)) if isinstance(expression, Tuple) else strict(expression)


def _union(parts: Iterable[set[Name]]) -> set[Name]:
    return set().union(*parts)
