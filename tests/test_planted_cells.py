"""Every mistake that is planted next to noise, in Redis or in a queue is found where it is, and no twin is accused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.explore import explore
from tests.planted import cells, elements, shop
from tests.test_planted import Planted, lines_named, mistakes

PLANTED = [
    Planted(cells.total_next_to_a_time, cells.total_next_to_a_time_at_the_end, "wrong total"),
    Planted(cells.receipts_under_random_keys, cells.receipts_with_the_mark, "duplicated"),
    Planted(cells.due_dates_from_memory, cells.due_dates_of_the_invoices, "wrong total"),
    Planted(cells.sums_in_json_from_memory, cells.sums_in_json_from_the_database, "wrong total"),
    Planted(cells.lines_with_times, cells.lines_with_times_written_at_once, "duplicated"),
    Planted(cells.InAnotherSession, cells.InItsSession, "duplicated"),
    Planted(cells.HelperMovesFirst, cells.HelperMovesLast, "lost"),
    Planted(elements.counted_in_a_hash, elements.written_to_a_hash, "wrong total"),
    Planted(elements.pushed_to_a_list, elements.added_to_a_set, "duplicated"),
    Planted(elements.scored_by_increments, elements.scored_by_invoice, "wrong total"),
    Planted(elements.added_to_a_stream, elements.added_to_a_stream_by_id, "duplicated"),
    Planted(elements.expires_a_moment_later, elements.expires_at_once, "lost"),
    Planted(elements.enqueued_before_the_mark, elements.enqueued_once, "duplicated"),
    Planted(elements.enqueued_after_the_mark, elements.enqueued_for_all, "lost"),
]
SAMPLE, ALL_SAMPLES = 8, 20
by_name = pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.wrong.__name__)


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path) -> Iterator[None]:
    shop.open_shop(str(tmp_path / "shop.db"))
    yield
    shop.close_shop()


@by_name
def test_a_mistake_is_found_where_it_is(planted: Planted, pytestconfig: pytest.Config) -> None:
    """The verdict is the right one, and a finding names the line."""
    sample = ALL_SAMPLES if pytestconfig.getoption("--full") else SAMPLE
    verdict = explore(planted.wrong, sample=sample, pairs=False)
    assert verdict.verdict == planted.verdict, verdict.text()
    assert lines_named(verdict) & mistakes(planted.wrong), verdict.text(50)


@by_name
def test_a_correct_twin_passes(planted: Planted, pytestconfig: pytest.Config) -> None:
    """A correct job is never accused."""
    sample = ALL_SAMPLES if pytestconfig.getoption("--full") else SAMPLE
    verdict = explore(planted.right, sample=sample)
    assert verdict.good, verdict.text()


def test_entries_that_a_dead_worker_has_taken_are_compared() -> None:
    """An entry of a stream that stays pending in its group is found; taking it first is right."""
    wrong = explore(elements.reads_new_entries_only, actions=["crash"])
    assert wrong.verdict == "lost", wrong.text()
    assert any("pending" in finding.what for finding in wrong.findings), wrong.text()
    right = explore(elements.reads_pending_entries_first, actions=["crash"])
    assert right.good, right.text()


def test_the_verdict_lists_the_cell_that_it_did_not_compare() -> None:
    """A verdict of exactly once says which cell differs between clean runs."""
    verdict = explore(cells.total_next_to_a_time_at_the_end, sample=2, pairs=False)
    assert verdict.good
    assert "not compared: metrics(name='last run').value: differs between two clean runs" in verdict.text()


def test_work_in_another_session_is_explained() -> None:
    """The finding says that with_transaction() does not cover a session of the job's own."""
    verdict = explore(cells.InAnotherSession, sample=3, pairs=False, actions=["crash"])
    assert verdict.worst is not None
    assert "with_transaction() covers only the session of step.transaction()" in verdict.worst.what


def test_a_finding_names_the_step_and_the_cursor_that_were_saved() -> None:
    """A lost item is reported with the cursor from which the next execution went on, and the line that set it."""
    verdict = explore(cells.HelperMovesFirst, sample=3, pairs=False, actions=["crash"])
    assert verdict.worst is not None
    assert "resumed from step 'pay', cursor " in str(verdict.worst)
    assert ", set at tests/planted/cells.py:" in str(verdict.worst)
