"""Code of the standard library and of clients as a job: mistakes are found where they are, and no twin is accused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.explore import Verdict, explore
from tests.examples import FACTOR
from tests.explore.receiver import receiving
from tests.explore.test_planted import Planted, lines_named, mistakes
from tests.planted import borrowed, shop

PLANTED = [
    Planted(borrowed.moved_before_it_was_paid, borrowed.moved_after_it_was_paid, "lost"),
    Planted(borrowed.copies_a_tree, borrowed.copies_a_tree_again, "error on resume"),
    Planted(borrowed.adds_to_a_mailbox, borrowed.writes_a_mailbox, "duplicated"),
    Planted(borrowed.locks_a_mailbox, borrowed.writes_a_mailbox, "error on resume"),
    Planted(borrowed.gives_way_to_a_lock, borrowed.waits_for_a_lock, "lost"),
    Planted(borrowed.counts_under_a_lock, borrowed.counts_in_a_pipeline, "wrong total"),
    Planted(borrowed.posts_in_a_session, borrowed.puts_in_a_session, "duplicated"),
]
SAMPLE, ALL_SAMPLES = 8, 20
by_name = pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.wrong.__name__)


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path) -> Iterator[None]:
    shop.open_shop(str(tmp_path / "shop.db"))
    borrowed.fill_inbox()
    yield
    shop.close_shop()


@pytest.fixture(autouse=True)
def _server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with receiving(borrowed.RECEIVED) as address:
        monkeypatch.setattr(borrowed, "address", f"http://{address}")
        yield


def explored(job: Any, sample: int) -> Verdict:
    """Explore a job; where a request may come twice, what the server has from it is compared."""
    if job is borrowed.puts_in_a_session:
        return explore(job, outcome=received, witnesses={"received": borrowed.RECEIVED}, sample=sample)
    # How often a job asks for a lock is a matter of time: a crash in the midst of that may not come again.
    return explore(job, sample=sample, accept=["unreached"])


def received(left: Any) -> Any:
    """Return what the server has, and what was paid."""
    return {"received": sorted(borrowed.RECEIVED), "paid": sorted(row[1:3] for row in left["payments"].rows)}


@pytest.mark.sample(3)
@by_name
def test_a_mistake_is_found_where_it_is(planted: Planted) -> None:
    """The verdict is the right one, nothing is unseen, and a finding names the line."""
    sample = ALL_SAMPLES if FACTOR > 1 else SAMPLE
    verdict = explored(planted.wrong, sample)
    assert verdict.verdict == planted.verdict, verdict.text()
    assert lines_named(verdict) & mistakes(planted.wrong), verdict.text(50)
    assert not verdict.not_seen, verdict.text()


@pytest.mark.sample(3)
@by_name
def test_a_correct_twin_passes(planted: Planted) -> None:
    """No false alarm."""
    sample = ALL_SAMPLES if FACTOR > 1 else SAMPLE
    verdict = explored(planted.right, sample)
    assert verdict.good, verdict.text()
    assert set(verdict.trials) >= {"crash", "freeze", "pair"}
