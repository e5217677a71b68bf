"""Every mistake that is planted next to noise, in Redis or in a queue is found where it is, and no twin is accused."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.explore import explore
from harness.explore.files import FileResource
from tests.examples import FACTOR
from tests.explore.receiver import receiving
from tests.explore.test_planted import Planted, lines_named, mistakes
from tests.planted import cells, elements, folders, shop

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
    Planted(folders.makes_its_directory, folders.makes_it_if_need_be, "error on resume"),
    Planted(folders.moves_its_directory, folders.moves_it_once, "duplicated"),
    Planted(folders.logs_before_it_pays, folders.writes_its_log_at_the_end, "duplicated"),
    Planted(
        folders.appends_under_the_temporary_folder, folders.renames_under_the_temporary_folder, "duplicated"
    ),
]
SAMPLE, ALL_SAMPLES = 6, 20
by_name = pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.wrong.__name__)


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path) -> Iterator[None]:
    shop.open_shop(str(tmp_path / "shop.db"))
    with tempfile.TemporaryDirectory() as folders_temporary, (tmp_path / "log.txt").open("a+") as folders.log:
        folders.temporary = Path(folders_temporary)
        yield
    folders.log = None
    shop.close_shop()


@pytest.fixture
def address() -> Iterator[str]:
    """Yield the address of a server."""
    with receiving([]) as found:
        yield found


@pytest.mark.sample(3)
@by_name
def test_a_mistake_is_found_where_it_is(planted: Planted) -> None:
    """The verdict is the right one, and a finding names the line."""
    sample = ALL_SAMPLES if FACTOR > 1 else SAMPLE
    verdict = explore(planted.wrong, sample=sample, pairs=False)
    assert verdict.verdict == planted.verdict, verdict.text()
    assert lines_named(verdict) & mistakes(planted.wrong), verdict.text(50)


@pytest.mark.sample(2)
@by_name
def test_a_correct_twin_passes(planted: Planted) -> None:
    """A correct job is never accused."""
    sample = ALL_SAMPLES if FACTOR > 1 else SAMPLE
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


def test_what_a_mail_says_is_compared() -> None:
    """A mail to the right one that says something else is a wrong total, and its twin passes a polite stop."""
    verdict = explore(folders.MailsASumFromMemory, actions=["stop"], sample=SAMPLE)
    assert verdict.verdict == "wrong total", verdict.text()
    assert verdict.worst is not None
    assert "bodies of mails: (mail='to boss@shop.example: Invoice " in verdict.worst.what
    assert lines_named(verdict) & mistakes(folders.MailsASumFromMemory)
    assert explore(folders.MailsASumFromItsAttribute, actions=["stop"], sample=SAMPLE).good


@pytest.mark.parametrize("job", [folders.posts_numbers_from_memory, folders.posts_ids_from_memory])
def test_what_a_request_says_is_compared(job: Any, address: str) -> None:
    """A request to the right address with another body is found, also if the body is a fixed random id."""
    verdict = explore(job, address, actions=["crash"], pairs=False, sample=SAMPLE)
    assert any("bodies of requests: (request='PUT http://127.0.0.1" in each.what for each in verdict.findings)


def test_messages_are_compared() -> None:
    """A message that is published twice is found, at its line."""
    verdict = explore(folders.publishes_before_it_pays, pairs=False, sample=SAMPLE)
    assert verdict.verdict == "duplicated", verdict.text()
    assert lines_named(verdict) & mistakes(folders.publishes_before_it_pays)
    assert any(
        "bodies of messages" in each.what or "messages: paid" in each.what for each in verdict.findings
    )


def test_a_directory_is_put_back(tmp_path: Path) -> None:
    """After the exploration a directory, its files and its links are as they were."""
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "old.txt").write_text("old\n")
    (tmp_path / "reports" / "link").symlink_to("old.txt")
    place = FileResource(str(tmp_path / "reports"))
    kept, contents = place.keep(), place.contents()
    shutil.rmtree(tmp_path / "reports")
    assert place.changed()
    assert place.contents() == {}
    (tmp_path / "reports").write_text("a file now")
    place.restore(kept)
    assert place.keep() == kept
    assert place.contents() == contents
    assert (tmp_path / "reports" / "link").readlink() == Path("old.txt")
    place.restore(None)
    assert not (tmp_path / "reports").exists()


def test_binary_files_and_unfinished_lines_are_compared(tmp_path: Path) -> None:
    """Bytes that are no text differ by their hash, and a last line without an end is another one."""
    path = tmp_path / "file"
    place, name = FileResource(str(path)), f"file {path}"
    path.write_bytes(b"\xff\x00")
    one = place.contents()[name].rows
    path.write_bytes(b"\xfe\x00")
    assert place.contents()[name].rows != one
    path.write_text("a\nb")
    assert place.contents()[name].rows == [("a",), ("b (without an end of line)",)]
