"""The progress record: JSON with a version, a size cap, and errors that leave what they found alone."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from harness.errors import CorruptProgress, ProgressTooLarge, UnsupportedProgress
from harness.progress import Progress


def test_progress_comes_back_equal() -> None:
    """Every field survives the stored form."""
    progress = Progress(
        "7", job="m:J", epoch=3, state="interrupted", reason="stopping", completed=["load"], step="price",
        cursor=(date(2024, 2, 29), 17), attributes={"seen": [1, 2]}, done=17, total=20, resumptions=2,
        interruptions=2, errors=1, runtime_s=1.5,
    )  # fmt: skip
    assert Progress.from_json("7", progress.to_json()) == progress


def test_the_format_is_the_originals() -> None:
    """Completed steps are names; current is absent between steps, and a pair in one (C3)."""
    between = json.loads(Progress("7", completed=["load"]).to_json())
    within = json.loads(Progress("7", completed=["load"], step="price").to_json())
    assert (between["version"], between["completed"], "current" in between) == (1, ["load"], False)
    assert within["current"] == ["price", None]


def test_fields_that_are_missing_get_their_defaults() -> None:
    """Data that an older release wrote is read (C4)."""
    assert Progress.from_json("7", '{"version": 1, "completed": ["load"]}') == Progress(
        "7", completed=["load"]
    )


def test_progress_of_another_job_is_refused() -> None:
    """Progress with the id of another job is refused."""
    with pytest.raises(CorruptProgress, match="the progress of job 7 was written for job 8"):
        Progress.from_json("7", Progress("8").to_json())


def test_a_newer_version_is_refused_by_number() -> None:
    """Both versions are named."""
    with pytest.raises(UnsupportedProgress, match=r"version 99, this release reads up to 2"):
        Progress.from_json("7", '{"version": 99}')


@pytest.mark.parametrize(
    "text",
    [
        "{", "[" * 100_000, "[]", "null", "{}", '{"version": "1"}', '{"version": 0}', '{"version": 1, "completed": 3}',
        '{"version": 1, "state": "dreaming"}', '{"version": 1, "current": ["price"]}',
        '{"version": 1, "attributes": []}',
        '{"version": 1, "epoch": true}', '{"version": 1, "current": ["price", {"$set": []}]}',
    ],
)  # fmt: skip
def test_what_is_no_progress_is_refused(text: Any) -> None:
    """Truncated and foreign data raise an error that names the problem."""
    with pytest.raises(CorruptProgress):
        Progress.from_json("7", text)


def test_progress_has_a_size_cap() -> None:
    """A cursor is a position, not the data."""
    with pytest.raises(ProgressTooLarge, match="keep large data in the database"):
        Progress("7", step="price", cursor="x" * 200_000).to_json()
