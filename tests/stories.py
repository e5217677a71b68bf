"""Stories of jobs: what they iterate, how each execution is cut short, and what changes before the next one.

They are plain data: hypothesis draws them, and shows a failing one in its smallest form. :mod:`tests.changes` plays
them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from harness import every, on_stop, with_transaction
from harness.durability import Durability

DURABILITIES = [
    on_stop(), every(items=1), every(items=2), every(items=3), every(seconds=1), with_transaction(),
    with_transaction(items=2),
]  # fmt: skip
TICK = 0.5
"""Seconds that an item takes."""

NUMBERED = {"times", "once"}
"""Kinds whose rows are known by their number alone."""
TABLES = {"records", "batches", "ranges", "throttled records"}
FILES = {"csv_rows", "csv_batches", "csv_rows of a file"}
LISTS = {"items", "throttled items"}
GROUPED = {"batches", "ranges", "csv_batches"}
"""Kinds with several rows in an item."""
KINDS = ["items", "times", "once", *sorted(FILES), *sorted(TABLES), "throttled items"]

DATA = ["insert", "delete", "rerank", "note", "leave or enter", "move"]
INNER = [f"inner {change}" for change in DATA]
CODE = ["batch size", "inner batch size", "column order", "column name"]
PLANS = [
    "stop",
    "crash before",
    "crash after",
    "crash at checkpoint",
    "crash at the end",
    "error",
    "throttle",
]

SWAPPED = ["items", "records", "batches", "ranges", "csv_rows", "csv_batches", "csv_rows of a file"]
"""Kinds that can take one another's place in a new version of the code."""

FUNCTION = "by a function"
"""Way in which a parallel run shares the items of an enumerator."""


@dataclass(frozen=True)
class Row:
    """A row, wherever it is kept."""

    id: int
    rank: int = 0
    note: str = "a"
    active: bool = True


@dataclass(frozen=True)
class Code:
    """Differences that a new version of the code may have; the layout of files counts as code."""

    kind: str = "items"
    batch_size: int = 2
    inner_batch_size: int = 2
    order: str = "id"
    column_order: int = 0
    column_name: str = "note"
    guard: bool = False
    shared: str = ""
    instances: int = 1
    slices: int | None = None
    steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class World:
    """The data and the code that an execution finds."""

    rows: tuple[Row, ...]
    children: dict[int, tuple[Row, ...]]
    code: Code


@dataclass(frozen=True)
class Story:
    """Plan of the events of a job.

    :ivar rows: ranks of the rows at first, :ivar children: how many each row has.
    :ivar executions: how each is cut short, at which item, and what changes after it.
    :ivar several: how many items are at work at a time, in one execution after the other.
    :ivar turns: how many turns of the event loop an item takes, one after the other.
    :ivar marks: True if a row that is done leaves the select: a row, or the outer row of the last row within it.
    """

    code: Code
    inner: str | None
    rows: list[int]
    children: int
    durability: Durability
    executions: list[tuple[str, int, list[tuple[str, int, int]]]]
    marks: bool = False
    several: tuple[int, ...] = (1,)
    turns: tuple[int, ...] = (0,)


def stories(
    kind: Any, inner: Any = None, *, changes: Sequence[str] = (), **code: Any
) -> st.SearchStrategy[Story]:
    """Draw stories.

    :param kind: a name or a strategy of names. :param inner: likewise, of the inner enumerator.
    :param changes: half of all changes are one of these, if any.
    """
    kinds = st.just(kind) if isinstance(kind, str) else kind
    inners = st.just(inner) if inner is None or isinstance(inner, str) else inner
    usual = [*DATA, *CODE, *(INNER if inner is not None else ())]
    names = st.sampled_from(usual)
    if changes:
        names = st.one_of(st.sampled_from(changes), names)
    change = st.tuples(names, st.integers(0, 9), st.integers(0, 9))
    plans = (
        ["stop", *PLANS]
        if not isinstance(kind, str) or kind.startswith("throttled")
        else ["stop", *PLANS[:-1]]
    )
    nests = inner is not None
    last = 6 if nests else 3
    execution = st.tuples(st.sampled_from(plans), st.integers(0, last), st.lists(change, max_size=3))
    size = st.integers(1, 3)
    codes = {
        "order": st.sampled_from(["id", "rank", "descending"]), "batch_size": size, "inner_batch_size": size,
        "guard": st.sampled_from([False, False, True]), **code,
    }  # fmt: skip
    return st.builds(
        Story,
        code=st.builds(Code, kind=kinds, **codes),
        inner=inners,
        rows=st.lists(
            st.integers(0, 2), min_size=2 if inner is not None else 4, max_size=4 if inner is not None else 8
        ),
        children=st.integers(2, 3),
        durability=st.sampled_from(DURABILITIES),
        executions=st.lists(execution, min_size=2, max_size=4),
        marks=st.sampled_from([False, False, True]),
    )


def changed_code(code: Code, name: str, a: int) -> Code:
    """Return another version of the code."""
    values: dict[str, Callable[[], dict[str, Any]]] = {
        "batch size": lambda: {"batch_size": 1 + a % 4},
        "inner batch size": lambda: {"inner_batch_size": 1 + a % 4},
        "column order": lambda: {"column_order": a % 3},
        "column name": lambda: {"column_name": ["note", "remark"][a % 2]},
        "order": lambda: {"order": ["id", "rank", "descending", "rank alone"][a % 4]},
        "guard": lambda: {"guard": not code.guard},
        "kind": lambda: {"kind": SWAPPED[a % len(SWAPPED)]},
        "instances": lambda: {"instances": 1 + a % 4, "slices": None},
        "slices": lambda: {"slices": code.instances + a},
    }
    return replace(code, **values[name]())
