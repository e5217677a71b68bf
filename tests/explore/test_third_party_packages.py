"""Code of packages as a job, in ``tox run -e full``: mistakes are found where they are, no twin is accused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.explore import Verdict, explore
from harness.explore.findings import TWO_AT_ONCE
from tests.explore.test_planted import Planted, lines_named, mistakes
from tests.planted import packages, shop

PLANTED = [
    Planted(packages.appends_a_frame, packages.writes_a_frame, "duplicated"),
    Planted(packages.inserts_a_frame, packages.inserts_a_frame_with_the_mark, "duplicated"),
    Planted(packages.replaces_a_table, packages.writes_a_frame, TWO_AT_ONCE),
    Planted(packages.migrates, packages.migrates_what_is_missing, "error on resume"),
    Planted(packages.gives_way_to_a_lock, packages.waits_for_a_lock, "lost"),
    Planted(packages.inserts_by_dataset, packages.inserts_by_dataset_at_once, "duplicated"),
]
by_name = pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.wrong.__name__)
OPTIONS: dict[Any, dict[str, Any]] = {
    # Alembic has one context for all threads of a process: two migrations at once are two processes.
    packages.migrates: {"actions": ["crash", "lost-reply", "freeze"]},
    packages.migrates_what_is_missing: {"actions": ["crash", "lost-reply", "freeze"]},
    # Each trial waits until the lock has expired, a second.
    packages.waits_for_a_lock: {"actions": ["crash", "freeze"], "sample": 2, "accept": ["unreached"]},
}
"""Options that differ from those of the other jobs."""

pytestmark = pytest.mark.filterwarnings("ignore:Changing the database schema:RuntimeWarning")


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path) -> Iterator[None]:
    shop.open_shop(str(tmp_path / "shop.db"))
    yield
    shop.close_shop()


def explored(job: Any) -> Verdict:
    """Explore a job."""
    return explore(job, **{"sample": 12, **OPTIONS.get(job, {})})


@by_name
def test_a_mistake_is_found_where_it_is(planted: Planted) -> None:
    """The verdict is the right one, nothing is unseen, and a finding names the line."""
    verdict = explored(planted.wrong)
    assert verdict.verdict == planted.verdict, verdict.text()
    assert lines_named(verdict) & mistakes(planted.wrong), verdict.text(50)
    assert not verdict.not_seen, verdict.text()


@by_name
def test_a_correct_twin_passes(planted: Planted) -> None:
    """No false alarm."""
    verdict = explored(planted.right)
    assert verdict.good, verdict.text()
    assert set(verdict.trials) >= {"crash", "freeze", "pair"}
