"""Explorations on Celery and Dramatiq: brokers in memory, and deliveries in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from harness.errors import UsageError
from harness.explore import Explorer, explore
from harness.explore.planned import parse_trial
from harness.progress import Position
from tests.commands import harness
from tests.planted import cursors, effects, shop

QUEUES = ["celery", "dramatiq"]
both = pytest.mark.parametrize("queue", QUEUES)


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path) -> Iterator[None]:
    shop.open_shop(str(tmp_path / "shop.db"))
    yield
    shop.close_shop()


class Stops(cursors.CursorAfterEffect):
    """A correct job that stops once by itself."""

    def should_stop(self) -> bool:
        """Stop after three items of the first execution."""
        at: Position = self.execution
        return at.items == at.done == 3


def fails() -> None:
    """Fail always."""
    raise LookupError("no such shop")


@both
@pytest.mark.parametrize(
    "job", [pytest.param(effects.effect_with_commit, marks=pytest.mark.full), cursors.CursorAfterEffect]
)
def test_a_correct_job_passes(job: Any, queue: str) -> None:
    """It may die at each write of its ticket, stand still there, or lose an answer."""
    verdict = explore(job, queue=queue, sample=2)
    assert verdict.good, verdict.text()
    assert verdict.planned["crash"] > 5


@both
def test_a_mistake_is_found(queue: str) -> None:
    """As inline; the command that repeats the trial names the queue."""
    verdict = explore(effects.effect_before_commit, queue=queue, sample=3)
    assert verdict.verdict == "duplicated", verdict.text()
    assert f" --queue {queue} --trial crash:" in verdict.text()


@both
def test_a_job_that_goes_back_may_die_around_its_message(queue: str) -> None:
    """An interrupted job changes its ticket and sends a message: each is a crash point, and no crash does harm."""
    with Explorer(Stops, queue=queue, actions=["crash", "lost-reply"], pairs=False) as explorer:
        kinds = [point.kind for point in explorer.record().points]
        sent = kinds.index("before-publish")
        assert kinds[sent + 1] == "publish"
        assert "before-ack" in kinds
        verdict = explorer.run([*_around(explorer)])
    assert verdict.good, verdict.text()
    assert verdict.trials["crash"] > 2
    assert verdict.trials["lost-reply"] > 0


@both
def test_a_function_that_fails_is_refused(queue: str) -> None:
    """What fails by itself cannot be explored, whichever queue runs it."""
    with pytest.raises(UsageError, match="fails even without an interruption: LookupError: no such shop"):
        explore(fails, queue=queue)


def test_on_a_real_redis_the_verdict_is_the_same(broker: Redis, redis_url: str) -> None:
    """Tickets are in the server that the command line names; it is empty afterwards."""
    right = "tests.planted.effects:effect_with_commit"
    found = harness("explore", right, "--queue", "celery", "--redis", redis_url, "--sample", "2")
    assert found.exit_code == 0, found.output
    assert broker.dbsize() == 0


def test_without_lua_a_redis_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where fakeredis cannot run the scripts of tickets, the error says what to install."""
    monkeypatch.setattr("harness.explore.ticketed.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'fakeredis\[lua\]'"):
        explore(cursors.CursorAfterEffect, queue="celery")


def _around(explorer: Explorer) -> Iterator[Any]:
    """Yield the crashes and lost answers at the points from the stop to the next execution."""
    points = explorer.record().points
    sent = next(index for index, point in enumerate(points) if point.kind == "publish")
    states = set()
    for point in points[sent - 6 : sent + 6]:
        if point.state not in states:
            states.add(point.state)
            yield parse_trial(f"crash:{point.name}")
    yield parse_trial(f"lost-reply:{points[sent].name}")
