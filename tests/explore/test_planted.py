"""Every planted mistake is found where it is, and no correct twin is accused of one."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.explore import Verdict, explore
from harness.explore.findings import TWO_AT_ONCE
from tests.examples import FACTOR
from tests.planted import alone, cursors, doubles, effects, endings, outside, shop, totals


@dataclass(frozen=True)
class Planted:
    """A mistake with its twin.

    :ivar verdict: what it must be found to be. :ivar outcome: what is compared, where not all tables are.
    """

    wrong: Any
    right: Any
    verdict: str
    outcome: Any = None


def message_ids(left: Any) -> set[Any]:
    """Return the Message-IDs of the mails: who gets one twice shows it once."""
    return {label.rpartition(" ")[2] for (label,) in left["mails"].rows}


def mails(left: Any) -> int:
    """Return how many different Message-IDs there are."""
    return len(message_ids(left))


PLANTED = [
    Planted(cursors.CursorBeforeEffect, cursors.CursorAfterEffect, "lost"),
    Planted(cursors.OffByOne, cursors.OnTheDot, "lost"),
    Planted(cursors.OffsetOverShrinkingFilter, cursors.FilterThatShrinks, "lost"),
    Planted(cursors.SortedByCustomer, cursors.SortedByCustomerAndId, "lost"),
    Planted(cursors.InnerCursorNotReset, cursors.InnerCursorReset, "lost"),
    Planted(cursors.NaiveTime, cursors.TimeInUtc, "lost"),
    Planted(cursors.StepNamedByData, cursors.StepWithOneName, "error on resume"),
    Planted(cursors.BatchHalfDone, cursors.BatchAtOnce, "duplicated"),
    Planted(totals.TotalInMemory, totals.TotalInAttribute, "wrong total"),
    Planted(totals.CountedInEveryExecution, totals.CountedOnce, "wrong total"),
    Planted(totals.added_apart, totals.added_together, "wrong total"),
    Planted(totals.read_then_written, totals.summed_in_the_database, "wrong total"),
    Planted(effects.effect_before_commit, effects.effect_with_commit, "duplicated"),
    Planted(effects.commit_before_effect, effects.commit_before_effect_with_key, "lost"),
    Planted(effects.random_key, effects.key_of_the_invoice, "duplicated"),
    Planted(effects.deleted_before_copied, effects.copied_and_deleted, "lost"),
    Planted(effects.remembered_in_the_module, effects.remembered_in_the_database, "duplicated"),
    Planted(effects.remembered_in_a_cache, effects.remembered_in_the_database, "duplicated"),
    Planted(effects.remembered_in_the_environment, effects.remembered_in_the_database, "duplicated"),
    Planted(effects.looked_before_it_paid, effects.paid_if_it_was_pending, TWO_AT_ONCE),
    Planted(doubles.paid_after_a_look, doubles.paid_where_pending, TWO_AT_ONCE),
    Planted(doubles.added_to_what_it_read, doubles.added_in_the_database, TWO_AT_ONCE),
    Planted(doubles.numbered_after_the_last, doubles.numbered_by_the_invoice, TWO_AT_ONCE),
    Planted(doubles.paid_from_a_list, doubles.paid_from_a_list_under_a_key, TWO_AT_ONCE),
    Planted(doubles.counted_up_in_redis, doubles.counted_with_watch, TWO_AT_ONCE),
    Planted(effects.TouchedBeforeNow, effects.TouchedBeforeTheFirstExecution, "duplicated"),
    Planted(effects.counted_in_redis, effects.written_to_redis, "wrong total"),
    Planted(effects.appended_to_a_file, effects.written_and_renamed, "duplicated"),
    Planted(effects.mailed_under_a_new_id, effects.mailed_under_its_id, "wrong total", mails),
    Planted(endings.SwallowsTheInterrupt, endings.LetsItThrough, "lost"),
    Planted(endings.finally_done, endings.done_at_the_end, "lost"),
    Planted(endings.lock_left_behind, endings.lock_taken_over, "error on resume"),
    Planted(endings.swallows_errors, endings.lets_errors_through, "lost"),
    Planted(endings.retries_by_itself, endings.retries_what_is_not_paid, "duplicated"),
    Planted(endings.summary_once_more, endings.summary_by_key, "duplicated"),
    Planted(outside.appended_at_the_end, outside.written_at_the_end, "duplicated"),
    Planted(outside.written_unless_there, outside.renamed_unless_there, "lost"),
    Planted(outside.moved_at_the_end, outside.moved_if_it_is_there, "error on resume"),
    Planted(outside.counted_at_the_end, outside.set_at_the_end, "wrong total"),
    Planted(outside.driver_commits_twice, outside.driver_commits_once, "duplicated"),
    Planted(outside.driver_without_transactions, outside.driver_with_its_own_transactions, "duplicated"),
    Planted(alone.script_marks_first, alone.script_in_a_transaction, "lost"),
    Planted(alone.rows_unless_there_are_some, alone.rows_under_keys, "lost"),
    Planted(alone.sqlalchemy_rows_unless_there_are_some, alone.sqlalchemy_rows_under_keys, "lost"),
    Planted(outside.pool_commits_twice, outside.pool_commits_once, "duplicated"),
    Planted(outside.written_by_descriptor, outside.written_whole_by_descriptor, "duplicated"),
    Planted(outside.twice_in_a_thread, outside.once_in_a_thread, "duplicated"),
    Planted(outside.error_lost_in_a_thread, outside.once_in_a_thread, "lost"),
    Planted(outside.twice_in_a_pool, outside.once_in_a_pool, "duplicated"),
    Planted(outside.counted_by_asyncio, outside.written_by_asyncio, "wrong total"),
    Planted(outside.script_adds, outside.script_sets, "wrong total"),
]
SAMPLE, SAMPLE_OF_TWINS, ALL_SAMPLES = 10, 5, 20
"""Numbers of crash points of each kind that are tried: of wrong jobs, of right ones, and with HARNESS_EXAMPLES."""
by_name = pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.wrong.__name__)


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path) -> Iterator[None]:
    shop.open_shop(str(tmp_path / "shop.db"))
    yield
    shop.close_shop()


@pytest.mark.sample(3)
@by_name
def test_a_mistake_is_found_where_it_is(planted: Planted) -> None:
    """The verdict is the right one, and a finding names the line."""
    sample = ALL_SAMPLES if FACTOR > 1 else SAMPLE
    verdict = explore(planted.wrong, outcome=planted.outcome, sample=sample)
    assert verdict.verdict == planted.verdict, verdict.text()
    assert lines_named(verdict) & mistakes(planted.wrong), verdict.text(50)


@pytest.mark.sample(3)
@by_name
def test_a_correct_twin_passes(planted: Planted) -> None:
    """No false alarm."""
    sample = ALL_SAMPLES if FACTOR > 1 else SAMPLE_OF_TWINS
    verdict = explore(planted.right, outcome=planted.outcome, sample=sample)
    assert verdict.good, verdict.text()
    assert set(verdict.trials) >= {"crash", "freeze", "pair"}


def lines_named(verdict: Verdict) -> set[str]:
    """Return the lines that findings of the verdict's kind name."""
    worst = verdict.worst
    assert worst is not None
    findings = [finding for finding in verdict.findings if finding.verdict == worst.verdict]
    return {line for finding in findings for line in (*finding.lines, *finding.written)}


def mistakes(job: Any) -> set[str]:
    """Return the lines of the job's source that are marked as mistakes, as ``file:line``."""
    source, start = inspect.getsourcelines(sys.modules[job.__module__] if job in SHARED else job)
    path = Path(inspect.getsourcefile(job) or "").relative_to(Path.cwd())
    return {f"{path}:{max(start, 1) + index}" for index, line in enumerate(source) if "mistake" in line}


SHARED = {
    effects.mailed_under_a_new_id, outside.twice_in_a_thread, outside.error_lost_in_a_thread, outside.twice_in_a_pool,
    outside.counted_by_asyncio,
}  # fmt: skip
"""Jobs whose mistake is in another function."""
