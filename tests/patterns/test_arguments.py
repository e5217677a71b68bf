"""Arguments of a job are checked when it is enqueued or run, against the methods that will be called with them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest
from rq import Queue

from harness import ContinuableJob, InlineRun, IterationJob, Portion, run
from harness.errors import UsageError
from harness.queues.rq import enqueue
from tests.commands import harness, one_line

if TYPE_CHECKING:
    from somewhere import Known  # type: ignore[import-not-found]


class Import(ContinuableJob):
    """Takes a number, perhaps a text, and more."""

    def perform(
        self, import_id: int, name: str | None = None, *, share: float = 1.0, rows: Sequence[int] = ()
    ) -> None:
        """Do nothing."""


class Rows(IterationJob):
    """Takes a list."""

    def build_enumerator(self, rows: list[int], *, cursor: Any) -> Any:
        """Go through the rows."""
        return ((row, index) for index, row in enumerate(rows) if cursor is None or index > cursor)

    def each_iteration(self, row: int, rows: list[int]) -> None:
        """Do nothing."""


class Uneven(IterationJob):
    """Takes an argument in one method and not in the other."""

    def build_enumerator(self, import_id: int, *, cursor: Any) -> Any:
        """Go through nothing."""
        return iter(())

    def each_iteration(self, row: int) -> None:
        """Do nothing."""


def decorated(function: Any) -> Any:
    """Return a function that calls another."""

    @functools.wraps(function)
    def calling(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return calling


class Loose(ContinuableJob):
    """Takes whatever type checkers alone know, behind a decorator."""

    @decorated
    def perform(self, known: Known, *rest: int, **more: str) -> None:
        """Do nothing."""


WRONG: list[tuple[Any, tuple[Any, ...], dict[str, Any], str]] = [
    (Import, (), {}, r"perform cannot be called with these arguments: .* 'import_id'; it takes \("),
    (Import, (1, "a", 3), {}, "too many positional arguments"),
    (Import, (1,), {"nmae": "a"}, "got an unexpected keyword argument 'nmae'"),
    (Import, ("1",), {}, "got '1' of type str for 'import_id'; use int"),
    (Import, (1, 2), {}, "got 2 of type int for 'name'; use str"),
    (Import, (1,), {"share": "half"}, "got 'half' of type str for 'share'; use float or int"),
    (Rows, (), {}, r"Rows.build_enumerator cannot be called with these arguments: missing a required argument: 'rows'"),
    (Rows, ({"a": 1},), {}, "of type dict for 'rows'; use list"),
    (Uneven, (1,), {}, r"Uneven.each_iteration cannot be called with these arguments: too many .*; it takes"),
    (Loose, (), {}, "missing a required argument: 'known'"),
    (Loose, ("a", 1, "b"), {}, "got 'b' of type str for 'rest'; use int"),
    (Loose, ("a",), {"b": 1}, "got 1 of type int for 'more'; use str"),
]  # fmt: skip


@pytest.mark.parametrize(("job_class", "args", "kwargs", "message"), WRONG)
def test_wrong_arguments_are_refused_before_anything_is_enqueued(
    queue: Queue, job_class: Any, args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    """Missing, extra and wrongly typed arguments are a UsageError of enqueue() and of an inline run."""
    with pytest.raises(UsageError, match=message):
        enqueue(queue, job_class, *args, **kwargs)
    assert queue.count == 0
    with pytest.raises(UsageError, match=message):
        InlineRun(job_class, *args, **kwargs)


@pytest.mark.parametrize(
    ("job_class", "args", "kwargs"),
    [
        (Import, (1,), {}), (Import, (True, None), {}), (Import, (1, "a"), {"share": 2, "rows": (1, 2)}),
        (Import, (), {"import_id": 1}), (Rows, ([1, 2],), {}), (Loose, (object, 1, 2), {"a": "b"}),
    ],
)  # fmt: skip
def test_right_arguments_are_taken(job_class: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """An int does for a float, a bool for an int, and annotations of other types allow everything."""
    job_class.check_call(args, kwargs)


def test_a_job_that_runs_gets_what_was_checked() -> None:
    """The check adds nothing to the arguments."""
    assert run(Rows, [1, 2, 3]).done == 3
    assert InlineRun(Rows, [1, 2, 3], portion=Portion(limit=1)).drain()


def test_the_commands_refuse_in_one_line(jobs_queue: Queue, redis_url: str) -> None:
    """Wrong arguments are one line and exit code 2 for `enqueue` and for `run`."""
    refused = one_line(harness("enqueue", "tests.patterns.test_arguments:Import", "--redis", redis_url))
    assert "missing a required argument: 'import_id'" in refused
    assert "too many positional" in one_line(
        harness("run", "tests.patterns.test_arguments:Import", "1", "a", "2")
    )
    assert jobs_queue.count == 0
