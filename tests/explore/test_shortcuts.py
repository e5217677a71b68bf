"""Shortcuts of the explorer: known futures give the verdict that running every trial to its end gives."""

from __future__ import annotations

import dis
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from harness import every, mark
from harness.explore import Explorer, explore, running, trials
from harness.explore.liveness import live
from harness.explore.plan import Thinned, crashes, stops
from harness.explore.planned import Action, PlannedTrial
from harness.explore.shortcuts import Shortcuts
from tests.examples import FACTOR
from tests.explore.test_planted import PLANTED, Planted
from tests.planted import cursors, effects, shop, totals

INVOICES = 24
"""Number of invoices: enough for an execution to come to where the clean run was, long before the end."""
SAMPLE = 11
"""Number of planted jobs that are tried both ways; with HARNESS_EXAMPLES all of them, at every point."""
ALL_JOBS = [(planted, kind) for planted in PLANTED for kind in ("wrong", "right")]
JOBS = ALL_JOBS if FACTOR > 1 else ALL_JOBS[:: len(ALL_JOBS) // SAMPLE]


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(shop, "INVOICES", INVOICES)
    shop.open_shop(str(tmp_path / "shop.db"))
    yield
    shop.close_shop()


def found(
    job: Any,
    outcome: Any,
    *,
    shortcuts: bool,
    chosen: Callable[[Any], list[PlannedTrial]],
) -> dict[str, Any]:
    """Return how each trial ended."""
    with Explorer(job, outcome=outcome, shortcuts=shortcuts) as explorer:
        recording = explorer.record()
        runner = explorer._runner
        assert runner is not None
        runner.shortcuts = Shortcuts(explorer._external, recording) if shortcuts else None
        return {str(trial): runner.result(trial).outcome for trial in chosen(recording)}


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("planted", "kind"), JOBS, ids=[f"{getattr(planted, kind).__name__}" for planted, kind in JOBS]
)
def test_a_shortcut_comes_to_the_outcome_of_the_whole_trial(planted: Planted, kind: str) -> None:
    """Crashes, stops and lost answers of a planted job end with the same differences, by shortcuts and without."""

    def some(recording: Any) -> list[PlannedTrial]:
        single, polite = crashes(recording), stops(recording)
        lost = [
            PlannedTrial("lost-reply", ((point.kind, point.number),))
            for point in recording.points
            if point.kind == "commit"
        ]
        step = 1 if FACTOR > 1 else 5
        return [*single[::step], *polite[:: step + 1], *lost[2 :: step + 1]]

    job = getattr(planted, kind)
    short = found(job, planted.outcome, shortcuts=True, chosen=some)
    assert short == found(job, planted.outcome, shortcuts=False, chosen=some)


ON_RQ = ALL_JOBS if FACTOR > 1 else ALL_JOBS[1 :: len(ALL_JOBS) // 8]
"""Planted jobs that are tried both ways on RQ."""


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("planted", "kind"), ON_RQ, ids=[f"{getattr(planted, kind).__name__}" for planted, kind in ON_RQ]
)
def test_a_shortcut_on_rq_comes_to_the_outcome_of_the_whole_trial(planted: Planted, kind: str) -> None:
    """The records of RQ's executions and workers differ in each trial, and no execution depends on them."""
    with Explorer(getattr(planted, kind), outcome=planted.outcome, queue="rq") as explorer:
        recording = explorer.record()
        runner, shortcuts = explorer._runner, Shortcuts(explorer._external, recording)
        assert runner is not None
        single = [each for each in crashes(recording) if each.points[0][0] in {"commit", "redis", "write"}]
        for trial in [*single[:: 1 if FACTOR > 1 else 4], *stops(recording)[::5]]:
            runner.shortcuts = shortcuts
            short = runner.result(trial).outcome
            runner.shortcuts = None
            assert short == runner.result(trial).outcome, trial


class Marked(cursors.InSteps):
    """Pays every invoice after the cursor, and marks each."""

    durability = every(items=1)

    def pay(self, step: Any) -> None:
        """Pay the invoices."""
        for invoice_id in shop.all_ids(self.session):
            if invoice_id > (step.cursor or 0):
                mark(f"invoice {invoice_id}")
                shop.pay_once(self.session, invoice_id)
                step.set(invoice_id)


@pytest.mark.sample(1)
@pytest.mark.parametrize("queue", ["inline", pytest.param("rq", marks=pytest.mark.full)])
@pytest.mark.parametrize("job", [effects.effect_with_commit, Marked])
def test_the_cost_of_a_crash_does_not_grow_with_the_job(
    job: Any, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recovery passes a few external states and then ends, wherever the crash was."""
    passed: Counter[str] = Counter()
    run = trials.run_to_end

    def counted(target: Any, external: Any, watch: Any, seconds: float) -> Any:
        ending = run(target, external, watch, seconds)
        passed["points"] += watch.passed
        passed["runs"] += 1
        return ending

    actions: list[Action] = ["crash"] if queue == "rq" else ["crash", "stop", "lost-reply"]
    with Explorer(job, pairs=False, actions=actions, queue=queue, processes=1) as explorer:
        points = len(explorer.record().points)
        monkeypatch.setattr(running, "run_to_end", counted)
        verdict = explorer.run()
    assert verdict.good, verdict.text()
    # Each execution on RQ passes points of its worker, too.
    assert passed["points"] / passed["runs"] < points / (2 if queue == "rq" else 3)


class Distant(cursors.InSteps):
    """Skips the tenth invoice after the one that it resumed at, by what it remembers in a local variable."""

    def pay(self, step: Any) -> None:
        """Pay the invoices."""
        resumed = step.cursor
        for invoice_id in shop.all_ids(self.session):
            if invoice_id > (step.cursor or 0):
                if resumed is None or invoice_id != resumed + 10:
                    shop.pay_once(self.session, invoice_id)
                step.set(invoice_id)


def test_what_an_execution_remembers_is_no_clean_run() -> None:
    """A mistake that shows long after the resume is found, because the variable it comes from is compared."""
    assert explore(Distant, actions=["crash"], pairs=False).verdict == "lost"


def closed_over() -> None:
    """Lose the tenth invoice after the first one that it finds to be pending, by a closure and a generator."""
    with shop.session() as session:
        first = [invoice.id for invoice in shop.pending(session)][:1]

        def wanted(invoice_id: int) -> bool:
            return first in ([1], []) or invoice_id != first[0] + 10

        for invoice_id in (each for each in shop.all_ids(session) if wanted(each)):
            shop.pay_once(session, invoice_id)


def test_what_a_closure_remembers_is_no_clean_run() -> None:
    """A mistake that shows long after the crash is found, because closures and generators are compared."""
    assert explore(closed_over, actions=["crash"], pairs=False).verdict == "lost"


def test_shortcuts_can_be_switched_off() -> None:
    """Every trial then runs to its end, and comes to the same verdict."""
    with Explorer(totals.added_apart, shortcuts=False, sample=3) as explorer:
        verdict = explorer.run()
        assert explorer._runner is not None
        assert explorer._runner.shortcuts is None
    assert verdict.verdict == "wrong total"


def test_only_names_that_are_read_again_are_live() -> None:
    """A list that a loop goes through is not read again; a counter that is printed at the end is."""
    frames: list[tuple[FrameType, int]] = []

    def here() -> None:
        frame = sys._getframe(1)
        frames.append((frame, frame.f_lasti))

    def work(rows: list[int]) -> int:
        again, total, unused = list(rows), 0, 1
        for row in again:
            here()
            total += row
        try:
            here()
        except ValueError:
            frames.append((sys._getframe(), unused))
        here()
        return total

    assert work([1, 2]) == 3
    found = [live(frame.f_code, last) & {"rows", "again", "total", "unused", "row"} for frame, last in frames]
    assert found == [
        {"total", "row", "unused"},
        {"total", "row", "unused"},
        {"total", "unused"},
        {"total", "unused"},
    ]
    assert {each.opname for each in dis.get_instructions(work)} & {"FOR_ITER"}


def test_after_many_mistakes_in_a_row_only_some_trials_are_run() -> None:
    """All trials are run while one ends well every now and then, and a few dozen of a thousand if none does."""
    planned = [PlannedTrial("crash", (("commit", number),)) for number in range(1, 1001)]
    assert list(Thinned(planned, lambda: 0)) == planned
    wrong = itertools.count()
    run = list(Thinned(planned, lambda: next(wrong)))
    assert 50 < len(run) < 200
    assert run[:25] == planned[:25]
    assert run[-1] == planned[-1]
