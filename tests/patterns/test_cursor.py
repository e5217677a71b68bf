"""Cursors come back equal and of the same type, or are refused when they are set."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import cursor_type, successor
from harness.cursor import decode, encode, freeze
from harness.errors import CorruptProgress, CursorError, JobDefinitionError, UnadvanceableCursor


@cursor_type
@dataclass(frozen=True)
class Position:
    """A registered cursor type."""

    row: int
    seen: tuple[str, ...] = ()


@cursor_type
class Phase(Enum):
    """A registered enum."""

    LOAD = 1
    PRICE = 2


class Level(IntEnum):
    """An enum that is not registered."""

    LOW = 1


@dataclass
class Unregistered:
    """A dataclass that is not registered."""

    row: int


zones = st.one_of(
    st.none(),
    st.just(UTC),
    st.integers(-12 * 60, 12 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kolkata"]).map(ZoneInfo),
)
atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
    st.dates(),
    st.datetimes(timezones=zones),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.binary(max_size=20),
    st.sampled_from(Phase),
    st.builds(Position, st.integers(), st.lists(st.text(max_size=3), max_size=2).map(tuple)),
)
cursors = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=4), st.just("$tuple")), inner, max_size=3),
    ),
    max_leaves=8,
)


def same(one: Any, other: Any) -> bool:
    """Return True if two values are equal and of the same types at every level."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, datetime):
        return bool(one == other) and one.tzinfo == other.tzinfo and one.fold == other.fold
    return bool(one == other)


@given(cursors)
def test_whatever_is_accepted_comes_back_equal_and_of_the_same_type(value: Any) -> None:
    """A cursor that goes through JSON text is the same value as before."""
    assert same(decode(json.loads(json.dumps(encode(value), allow_nan=False))), value)


@given(st.one_of(st.integers(), st.text(), st.booleans(), st.lists(st.integers())))
def test_values_of_json_are_stored_as_they_are(value: Any) -> None:
    """A cursor of JSON's own types reads in storage as what it is (C5)."""
    assert encode(value) == value


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({1, 2}, "cursor: builtins.set"),
        ([0, 1, {"when": object()}], "cursor[2]['when']: builtins.object"),
        (math.nan, "cursor: nan has no JSON form"),
        (Decimal("NaN"), "cursor: Decimal('NaN') is not equal to itself"),
        ({1: "a"}, "cursor: the key 1 would come back as a str"),
        (Unregistered(1), "decorate the class with @cursor_type"),
        (Level.LOW, "decorate the class with @cursor_type"),
        (type("Text", (str,), {})("x"), "Text would not come back equal"),
    ],
)
def test_what_would_not_come_back_is_refused_with_its_place(value: Any, place: str) -> None:
    """A refusal names the place inside the value and what is allowed (I39)."""
    with pytest.raises(CursorError) as refused:
        encode(value)
    assert place in str(refused.value)
    assert "; use " in str(refused.value) or "not equal to itself" in str(refused.value)


@pytest.mark.parametrize(
    "data", [{"$set": [1]}, {"$date": "yesterday"}, {"$dataclass": ["os:system", {}]}, {"$uuid": 3}]
)
def test_foreign_data_is_refused_by_name(data: Any) -> None:
    """decode() refuses data that encode() never wrote, and looks up no class by its name."""
    with pytest.raises(CorruptProgress, match="stored cursor"):
        decode(data)


def test_a_class_without_fields_cannot_be_registered() -> None:
    """@cursor_type takes what can be rebuilt from fields or members only."""
    with pytest.raises(JobDefinitionError, match="takes a dataclass or an Enum"):
        cursor_type(object)


def test_a_frozen_cursor_does_not_change_with_the_original() -> None:
    """A copy is taken of what could be changed in place (C17)."""
    live = {"row": [1]}
    frozen = freeze(live)
    live["row"].append(2)
    assert frozen == {"row": [1]}


@pytest.mark.parametrize(
    ("value", "following"),
    [
        (7, 8),
        ("az", "ba"),
        ("Zz9", "AAa0"),
        ("a-9", "b-0"),
        (date(2024, 2, 28), date(2024, 2, 29)),
        (UUID(int=255), UUID(int=256)),
        (Phase.LOAD, Phase.PRICE),
    ],
)
def test_successors(value: Any, following: Any) -> None:
    """successor() returns the one next value of a value that has one (C15)."""
    assert successor(value) == following


def test_a_type_of_ones_own_can_be_taught_to_advance() -> None:
    """successor.register adds one."""

    class Version(tuple[int, ...]):
        pass

    successor.register(Version, lambda version: Version((*version[:-1], version[-1] + 1)))
    assert successor(Version((1, 9))) == (1, 10)


@pytest.mark.parametrize("value", [None, 1.5, True, datetime(2024, 1, 1, tzinfo=UTC), Phase.PRICE, "§", [1]])
def test_what_has_no_next_value_says_so(value: Any) -> None:
    """The error names the value, its type and the way out (C16)."""
    with pytest.raises(UnadvanceableCursor, match=r"step\.set"):
        successor(value)


def test_a_tuple_is_copied_only_if_something_in_it_may_change() -> None:
    """A key of several columns is taken as it is; a list in a tuple is not the job's own (C17)."""
    key, held = (3, "b", None), [1]
    assert freeze(key) is key
    frozen = freeze((1, held))
    held.append(2)
    assert frozen == (1, [1])
    with pytest.raises(CursorError, match=r"cursor\[1\]: builtins\.object"):
        freeze((1, object()))
