"""Enumerators as an iteration job uses them: resumed anywhere, refused, counted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import (
    Enumerator,
    items,
    nested,
    once,
    run,
    times,
)
from harness.errors import CursorError
from tests.jobs import CountByIteration

pytestmark = pytest.mark.usefixtures("form")


def pairs_of_numbers(cursor: Any) -> Enumerator[Any]:
    """Go through pairs of numbers, one within the other."""
    return nested(
        [
            lambda cursor: times(3, cursor=cursor),
            lambda outer, cursor: items([(outer, inner) for inner in range(outer + 1)], cursor=cursor),
        ],
        cursor=cursor,
    )


ENUMERATORS = {
    "items": lambda cursor: items(["a", "b", "c"], cursor=cursor),
    "items of one": lambda cursor: items(["a"], cursor=cursor),
    "items of none": lambda cursor: items([], cursor=cursor),
    "times": lambda cursor: times(4, cursor=cursor),
    "once": lambda cursor: once(cursor=cursor),
    "nested": pairs_of_numbers,
}


@pytest.mark.parametrize("make", ENUMERATORS.values(), ids=ENUMERATORS.keys())
def test_an_enumerator_resumed_from_each_cursor_yields_exactly_the_rest(make: Any) -> None:
    """The cursor means done up to and including here, for every enumerator."""
    whole = list(make(None))
    assert make(None).size in {None, len(whole)}
    for index, (_, cursor) in enumerate(whole):
        assert list(make(cursor)) == whole[index + 1 :]


@given(sizes=st.lists(st.integers(0, 4), max_size=5), at=st.integers(0, 20))
def test_nested_resumes_anywhere(sizes: list[int], at: int) -> None:
    """With inner levels of any size, each cursor splits the whole without loss or repetition."""

    def make(cursor: Any) -> Enumerator[Any]:
        return nested(
            [
                lambda cursor: items(sizes, cursor=cursor),
                lambda size, cursor: times(size, cursor=cursor),
                lambda _size, number, cursor: items([number, -number], cursor=cursor),
            ],
            cursor=cursor,
        )

    whole = list(make(None))
    assert len(whole) == 2 * sum(sizes)
    if whole:
        index = at % len(whole)
        assert list(make(whole[index][1])) == whole[index + 1 :]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: items("abc", cursor=None), TypeError, "a sequence such as a list"),
        (lambda: items({1}, cursor=None), TypeError, "got set"),  # type: ignore[arg-type]
        (lambda: items([1], cursor="x"), CursorError, "resumes from an int"),
        (lambda: times(-1, cursor=None), TypeError, "an int of 0 or more"),
        (lambda: nested([], cursor=None), TypeError, "functions that return enumerators"),
        (lambda: nested([lambda cursor: []], cursor=(1, 2)), CursorError, "a tuple of 1 elements"),
    ],
)
def test_an_enumerator_refuses_what_it_cannot_iterate(
    make: Any, error: type[Exception], message: str
) -> None:
    """The error says what was found and what is allowed (I21, I22, I29)."""
    with pytest.raises(error, match=message):
        make()


def test_batches_count_their_members() -> None:
    """The items of a batched enumerator are what is in its batches."""

    class Batched(CountByIteration):
        def build_enumerator(self, numbers: int, *, cursor: Any) -> Any:
            del cursor
            return Enumerator([([1, 2, 3], 0), ([4], 1)], size=numbers, batched=True)

        def each_iteration(self, item: Any, numbers: int) -> None:
            pass

    assert run(Batched, 4).done == 4
