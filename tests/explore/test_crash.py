"""A simulated crash has the same outcome as a real one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import fakeredis
import pytest
from sqlalchemy import select
from sqlalchemy.engine.default import DefaultDialect

from harness.errors import Died
from harness.explore import Explorer, PlannedTrial, probes
from harness.explore.crash import SimulatedProcess, current, living
from harness.explore.running import Death
from harness.queues.periodic import PeriodicThread
from tests.planted import cursors, effects, endings, shop, totals
from tests.workers import PATIENCE

JOBS = [
    cursors.CursorBeforeEffect, cursors.BatchHalfDone, totals.TotalInMemory, totals.added_apart,
    effects.effect_before_commit, effects.commit_before_effect, effects.mailed_under_its_id, endings.finally_done,
    endings.lock_left_behind, endings.SwallowsTheInterrupt,
]  # fmt: skip


class Dying:
    """Observes a simulated process, and ends it at the first crash point of a kind."""

    def __init__(self, kind: str) -> None:
        self.kind, self.seen = kind, []  # type: ignore[var-annotated]

    def reach(self, simulated: SimulatedProcess, kind: str, label: str, lost: Any) -> object:
        """Crash there."""
        self.seen.append(kind)
        if kind == self.kind:
            simulated.die()
        return None

    def meet(self, thing: Any) -> None:
        """Need nothing."""

    def serves(self, raw: Any) -> bool:
        """Know of no PostgreSQL."""
        del raw
        return False

    def sent(self, kind: str, label: str, body: bytes = b"") -> None:
        """Take it down."""
        self.seen.append(f"{kind} arrived")

    def unseen(self, name: str, what: str, line: str) -> None:
        """Take it down."""
        self.seen.append(f"{name} not seen: {what} at {line}")


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path) -> Iterator[None]:
    shop.open_shop(str(tmp_path / "shop.db"))
    yield
    shop.close_shop()


def statuses() -> list[str]:
    """Return the status of every invoice."""
    with shop.session() as session:
        return list(session.scalars(select(shop.Invoice.status).order_by(shop.Invoice.id)))


@pytest.mark.sample(3)
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.__name__)
def test_a_restored_a_simulated_and_a_real_death_have_one_outcome(job: Any) -> None:
    """The three outcomes are equal at a sample of all crash points, even points that the explorer treats as equal."""
    with Explorer(job) as explorer:
        points = Random(7).sample(  # noqa: S311 - to be repeatable
            explorer.record().points, 8
        )
        for point in points:
            trial = PlannedTrial("crash", ((point.kind, point.number),))
            outcomes = [outcome(explorer, trial, death) for death in ("restored", "simulated", "killed")]
            assert outcomes[0] == outcomes[1] == outcomes[2], trial


def outcome(explorer: Explorer, trial: PlannedTrial, death: Death) -> Any:
    """Return what a trial shows."""
    result = explorer.result(trial, death)
    return result.ending.kind, result.ending.why, result.differences


def test_what_was_not_committed_is_rolled_back() -> None:
    """A simulated crash rolls back the transaction, as the server does when the connection is gone."""
    simulated = SimulatedProcess(Dying("before-commit"))
    with probes.installed(), living(simulated), pytest.raises(Died), shop.session() as session:
        shop.pay_once(session, 1)
    assert simulated.dead
    assert set(statuses()) == {"pending"}


def test_what_was_committed_stays() -> None:
    """A crash after the commit undoes nothing."""
    with (
        probes.installed(),
        living(SimulatedProcess(Dying("commit"))),
        pytest.raises(Died),
        shop.session() as session,
    ):
        shop.pay_once(session, 1)
    assert statuses()[:2] == ["paid", "pending"]


def test_except_and_finally_run_into_a_wall() -> None:
    """After a simulated crash, except and finally blocks have no effect, whatever they catch and try."""
    observer = Dying("commit")
    attempts = []

    def job() -> None:
        with shop.session() as session:
            try:
                shop.pay_once(session, 1)
            except BaseException:  # noqa: BLE001 - a job that catches everything
                attempts.append("except")
                session.rollback()
                shop.pay_once(session, 2)
            finally:
                attempts.append("finally")
                with shop.session() as another:
                    shop.pay_once(another, 3)

    with probes.installed(), living(SimulatedProcess(observer)), pytest.raises(Died):
        job()
    assert attempts == ["except", "finally"]
    assert statuses()[:3] == ["paid", "pending", "pending"]
    assert observer.seen[-1] == "commit", "nothing is observed after a death"


def test_threads_die_with_their_process() -> None:
    """A thread that the job started runs into the wall, too."""
    simulated = SimulatedProcess(Dying("commit"))
    died = threading.Event()

    def later() -> None:
        died.wait()
        with shop.session() as session:
            shop.pay_once(session, 2)

    with probes.installed():
        with living(simulated), shop.session() as session:
            threading.Thread(target=later).start()
            with pytest.raises(Died):
                shop.pay_once(session, 1)
        died.set()
        for thread in simulated.threads:
            thread.join()
    assert statuses()[:2] == ["paid", "pending"]


def test_the_heartbeat_of_a_job_is_no_crash_point() -> None:
    """Commands of the heartbeat are no crash points, because the clock decides when they come."""
    observer = Dying("commit")
    told = threading.Event()

    def tell() -> None:
        fakeredis.FakeRedis().ping()
        told.set()

    beat = PeriodicThread("harness-heartbeat-17", 0.0, tell)
    with probes.installed(), living(SimulatedProcess(observer)):
        beat.start()
        assert told.wait(PATIENCE)
        beat.close()
    assert observer.seen == []


def test_outside_of_a_trial_nothing_is_hooked() -> None:
    """After the block every method is the one that it was; inside, a thread of no simulated process is not observed."""
    before = DefaultDialect.do_commit, threading.Thread.start
    with probes.installed():
        assert (DefaultDialect.do_commit, threading.Thread.start) != before
        assert current() is None
        with shop.session() as session:
            assert shop.pay_once(session, 1)
    assert (DefaultDialect.do_commit, threading.Thread.start) == before
