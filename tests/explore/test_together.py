"""The explorer on jobs with several items at a time: their orders, and interruptions in each of them."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.explore import PlannedTrial, Verdict, explore, parse_trial
from tests.planted import shop, together

ALONE: tuple[Any, ...] = ("switch", "order", "crash", "stop", "lost-reply", "cancel")
"""Actions with a single execution: a lock of a process does not guard against another process."""
SAMPLE = 8


@dataclass(frozen=True)
class Pair:
    """A mistake with its correct twins.

    :ivar verdict: what the mistake must be found to be. :ivar locked: a twin that is right within one process.
    """

    wrong: Any
    right: Any
    verdict: str
    locked: Any = None


PAIRS = [
    Pair(together.CustomersInAString, together.CustomersInASet, "lost", together.CustomersUnderALock),
    Pair(together.StateInSelf, together.StateInAVariable, "lost"),
    Pair(together.KeyBeforeEffect, together.KeyWithEffect, "lost"),
    Pair(together.SumBeforeAWait, together.SumAfterTheWait, "wrong total"),
    Pair(together.SumAcrossASleep, together.SumAfterASleep, "wrong total"),
    Pair(together.RowsAfterALook, together.RowsByTheirKey, "duplicated"),
    Pair(together.NumbersInAString, together.NumbersInASet, "lost", together.NumbersUnderALock),
    Pair(together.InvoiceInSelf, together.InvoiceInAVariable, "lost"),
    Pair(together.TotalReadByThreads, together.TotalAtTheEnd, "wrong total"),
]
by_name = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.wrong.__name__)


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path) -> Iterator[None]:
    shop.open_shop(str(tmp_path / "shop.db"))
    yield
    shop.close_shop()


def explored(job: Any, **options: Any) -> Verdict:
    """Explore a sample of a job in this process."""
    return explore(job, **{"sample": SAMPLE, "processes": 1, "limit": 30, **options})


def mistakes(job: Any) -> set[str]:
    """Return the lines that are marked as mistakes, as ``file:line``, of a job and of its bases."""
    found = set()
    for each in job.__mro__:
        if each.__module__ == together.__name__:
            source, start = inspect.getsourcelines(each)
            path = Path(together.__file__).relative_to(Path.cwd())
            found |= {f"{path}:{start + index}" for index, line in enumerate(source) if "mistake" in line}
    return found


@pytest.mark.sample(1)
@by_name
def test_a_mistake_of_concurrent_items_is_found_where_it_is(pair: Pair) -> None:
    """The verdict is the right one, and the first finding of that verdict names the line."""
    verdict = explored(pair.wrong, actions=ALONE)
    assert verdict.verdict == pair.verdict, verdict.text()
    assert verdict.worst is not None
    named = {*verdict.worst.lines, *verdict.worst.written}
    assert named & mistakes(pair.wrong), verdict.text(50)


@pytest.mark.sample(2)
@by_name
def test_a_correct_twin_is_not_accused(pair: Pair) -> None:
    """Neither another order of its items, nor an interruption in one, makes a difference."""
    verdict = explored(pair.right)
    assert verdict.good, verdict.text()
    assert set(verdict.trials) >= {"switch", "order", "crash", "stop", "freeze", "pair"}
    assert verdict.trials["switch"]
    assert verdict.trials["order"] == 8
    if pair.locked is not None:
        verdict = explored(pair.locked, actions=ALONE)
        assert verdict.good, verdict.text()


@pytest.mark.parametrize(
    "job",
    [
        together.StateInSelf,
        pytest.param(together.KeyBeforeEffect, marks=pytest.mark.full),
        pytest.param(together.InvoiceInSelf, marks=pytest.mark.full),
    ],
)
def test_the_same_seed_gives_the_same_trials_and_findings(job: Any) -> None:
    """Two explorations differ in nothing but their time, also in two processes; another seed has other orders."""
    options = [{"seed": 2}, {"seed": 2, "processes": 2}, {"seed": 3}]
    records = [{**explored(job, sample=4, **each).record, "seconds": 0} for each in options]
    assert records[0] == records[1]
    orders = [{each["trial"] for each in record["findings"] if "@" in each["trial"]} for record in records]
    assert orders[0].isdisjoint(orders[2])


def test_a_finding_is_repeated_by_its_name() -> None:
    """The name of a trial has all that its order needs."""
    found = {
        each.trial.partition(":")[0]: each for each in explored(together.StateInSelf, actions=ALONE).findings
    }
    assert found.keys() >= {"switch", "order"}
    for each in found.values():
        verdict = explored(together.StateInSelf, only=each.trial)
        assert [again.what for again in verdict.findings] == [each.what]


def test_items_are_interrupted_while_others_are_in_progress() -> None:
    """Crashes, stops, lost answers and cancellations are tried in the orders, too; nothing is lost in any."""
    verdict = explored(together.StateInAVariable, sample=None, pairs=False, actions=ALONE)
    assert verdict.good, verdict.text()
    points = verdict.points
    for action in ("crash", "cancel", "stop", "lost-reply"):
        assert verdict.trials[action] >= 60, (action, points)


@pytest.mark.sample(1)
@pytest.mark.parametrize("job", [together.Coroutines, together.Threads])
def test_work_and_completion_in_one_commit_happen_exactly_once(job: Any) -> None:
    """With ``with_transaction()``, no order and no interruption loses or doubles a row."""
    verdict = explored(job, sample=4)
    assert verdict.verdict == "exactly once", verdict.text()


@pytest.mark.sample(1)
@pytest.mark.parametrize("job", [together.Posts, together.PostsInThreads])
def test_what_a_crash_may_repeat_is_at_least_once(job: Any) -> None:
    """An effect without a key comes again for unsaved items and for those in progress, and the verdict says so."""
    verdict = explored(job, sample=12)
    assert verdict.verdict.startswith("at least once, repeated ≤"), verdict.text()


def test_threads_of_an_execution_end_with_it() -> None:
    """No thread of an item waits for its turn when the exploration is over."""
    before = threading.active_count()
    explored(together.InvoiceInAVariable, sample=2)
    assert threading.active_count() <= before


def test_trials_of_orders_have_names() -> None:
    """A name says the order; one that makes no sense is refused."""
    assert parse_trial("order:seed#3") == PlannedTrial("order", (("seed", 3),), 3)
    assert parse_trial("cancel:before-commit#2@7") == PlannedTrial("cancel", (("before-commit", 2),), 7)
    for trial in ("switch:sleep#1", "order:seed#3", "crash:commit#12@7"):
        assert str(parse_trial(trial)) == trial
    for wrong in ("order:commit#1", "crash:seed#1", "freeze:commit#1@2", "crash:commit#1+commit#2@3"):
        with pytest.raises(UsageError, match="unknown trial"):
            parse_trial(wrong)
