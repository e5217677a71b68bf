"""Rules of :mod:`harness.sources.nulls`: a column it calls never NULL has no NULL in SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from harness.sources.nulls import excluded
from tests.databases import KINDS, empty_database
from tests.examples import examples

table = sa.Table(
    "nullable",
    sa.MetaData(),
    sa.Column("a", sa.Integer),
    sa.Column("b", sa.Integer),
    sa.Column("name", sa.String),
    sa.Column("flag", sa.Boolean),
)
a, b, name, flag = table.c
VALUES: dict[str, list[Any]] = {
    "a": [None, 1, 2],
    "b": [None, 1, 2],
    "name": [None, "", "x"],
    "flag": [None, True, False],
}
numbers = sa.select(sa.literal(1)).scalar_subquery()

EXCLUDES_A = [
    a.is_not(None), a != None, ~(a == None), a.is_distinct_from(None), sa.not_(a.is_not_distinct_from(None)),  # noqa: E711
    sa.not_(sa.or_(a.is_(None), b > 1)), sa.not_(sa.or_(a == None, b == 1)),  # noqa: E711
    a > 1, a >= 1, a < 1, a <= 1, a == 1, a != 1, a > 1, ~(a > 1), sa.literal(1) == a, a == b, a == numbers,
    a.between(1, 2), ~a.between(1, 2), sa.between(1, a, 5), sa.literal(1).between(a, 9), sa.literal(1).between(0, a),
    a.in_([1]), a.in_([]), a.in_(sa.select(sa.literal(1))), ~a.not_in([1]),
    sa.tuple_(a, b) == (1, 2), sa.tuple_(b, a) == (1, 2), sa.tuple_(b, a).in_([(1, 2)]), sa.tuple_(a, b) > (1, 2),
    -a > 1, a + b > 1, a * 2 == 2, a % 2 == 0, sa.cast(a, sa.String) == "1", sa.func.abs(a) == 1,
    (a + 1).is_not(None), (a > 1).is_(True), (a > 1).is_(False), (a > 1).is_not(None),
    a.op(">")(1), a.bool_op("=")(1), sa.and_(b > 1, a > 1), sa.and_(sa.or_(a > 1, b > 1), a < 2),
    sa.or_(a > 1, sa.and_(a < 1, b > 1)), sa.or_(a > 1, a < 1), sa.or_(a == 1, sa.not_(sa.or_(a.is_(None), b == 1))),
]  # fmt: skip
EXCLUDES_NAME = [
    name.like("x"), name.ilike("x"), ~name.like("x"), name.not_ilike("x"), name.startswith("x"), name.endswith("x"),
    name.contains("x"), name.icontains("x"), name.like("x", escape="/"), sa.func.lower(name) == "x",
    sa.func.upper(name).in_(["X"]), sa.func.length(name) > 0, sa.func.lower(name).is_not(None), name.regexp_match("x"),
]  # fmt: skip
EXCLUDES_FLAG = [flag, ~flag, flag.is_(True), flag.is_(False), flag == sa.true(), sa.and_(flag, a > 1)]
KEEPS_A = [
    a.is_(None), a.not_in([1]), a.not_in([]), ~a.in_([1]), sa.or_(a > 1, b > 1), sa.or_(a > 1, a.is_(None)),
    sa.or_(a.is_not(None), b > 1), ~sa.and_(a > 1, b > 1), sa.tuple_(b, a) > (1, 2), sa.tuple_(b, a) != (1, 2),
    ~(sa.tuple_(a, b) == (1, 2)), (a > 1).is_not(True), a.is_not_distinct_from(b), a.is_distinct_from(1),
    sa.func.coalesce(a, 1) > 0, sa.case((a == 1, True), else_=True), ~sa.literal(1).between(5, a), sa.text("a > 1"),
    sa.exists().where(a == 1), ~(a.is_not(None)), sa.true(), sa.func.nullif(a, 1).is_(None),
]  # fmt: skip
"""Conditions of which a row with NULL in a may be true, or of which nothing is known."""


def named(condition: Any) -> set[str]:
    """Return the names of the columns that are excluded."""
    return {key for _, key in excluded(condition)}


@pytest.fixture(scope="module", params=KINDS)
def connection(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[sa.Connection]:
    """Yield a connection to a table with each combination of values."""
    with empty_database(request, tmp_path_factory.mktemp("nulls")) as engine, engine.connect() as connection:
        table.create(connection)
        rows = [dict(zip(VALUES, values, strict=True)) for values in product(*VALUES.values())]
        connection.execute(table.insert(), rows)
        yield connection


@pytest.mark.parametrize("condition", EXCLUDES_A, ids=str)
def test_what_excludes_null_is_known(condition: Any) -> None:
    """Each spelling by which a select leaves out NULL is recognised."""
    assert "a" in named(condition)


@pytest.mark.parametrize("condition", EXCLUDES_NAME, ids=str)
def test_comparisons_of_text_exclude_null(condition: Any) -> None:
    """LIKE in each of its forms, and functions of text, leave out NULL."""
    assert named(condition) == {"name"}


@pytest.mark.parametrize("condition", EXCLUDES_FLAG, ids=str)
def test_a_boolean_excludes_null(condition: Any) -> None:
    """A boolean column is a condition of its own, negated or not."""
    assert "flag" in named(condition)


@pytest.mark.parametrize("condition", KEEPS_A, ids=str)
def test_what_may_keep_null_is_not_taken_for_an_exclusion(condition: Any) -> None:
    """A condition that may be true for NULL, or is not understood, excludes no column."""
    assert "a" not in named(condition)


def left(connection: sa.Connection, condition: Any) -> set[str]:
    """Return the columns that have a NULL in a row for which the condition is true."""
    rows = connection.execute(sa.select(table).where(condition)).mappings().all()
    return {key for row in rows for key, value in row.items() if value is None}


@pytest.mark.parametrize("condition", EXCLUDES_A + EXCLUDES_NAME + EXCLUDES_FLAG, ids=str)
def test_the_database_agrees(connection: sa.Connection, condition: Any) -> None:
    """No row with NULL in an excluded column comes out of the database."""
    assert not named(condition) & left(connection, condition)


PARTS = [
    *EXCLUDES_A, *EXCLUDES_NAME, *EXCLUDES_FLAG,
    *(each for each in KEEPS_A if not isinstance(each, sa.TextClause | sa.True_)),
]  # fmt: skip
conditions = st.recursive(
    st.sampled_from(PARTS),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: sa.and_(*parts)),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: sa.or_(*parts)),
        inner.map(sa.not_),
    ),
    max_leaves=6,
)


@given(condition=conditions)
@examples(150)
def test_the_database_agrees_on_any_condition(connection: sa.Connection, condition: Any) -> None:
    """For any combination of AND, OR and NOT, the database returns no NULL in an excluded column."""
    assert not named(condition) & left(connection, condition)
