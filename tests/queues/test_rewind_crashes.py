"""Rewind and fork, explored: the process that does it crashes at each of its commands, or loses each answer.

Every place that the job has reached is tried. Whether it is tried again or not, the job does each item that it must,
and repeats only what comes after the place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product
from typing import Any, NamedTuple

import fakeredis
import pytest
from redis import Redis
from redis.exceptions import ConnectionError as LostAnswer
from rq import Queue
from rq.job import Job as RQJob
from rq.job import JobStatus

from harness.errors import Died, UsageError
from harness.explore.crash import SimulatedProcess, living
from harness.explore.probes.redis import probes
from harness.queues.rq import enqueue, fork, recover, rewind
from harness.stores.redis import RedisStore
from tests.jobs import DONE, ThreeSteps
from tests.queues.crashes import CrashAt
from tests.queues.test_fork import Keyed
from tests.queues.test_requeue import work

ITEMS = 4
ALL_STEPS = ["load", 0, 1, 2, 3, "send"]
PLACES: list[tuple[Any, dict[str, Any], list[Any]]] = [
    *((Keyed, {"cursor": cursor}, list(range(cursor + 1, ITEMS))) for cursor in (0, ITEMS - 1)),
    (Keyed, {}, list(range(ITEMS))),
    (ThreeSteps, {"step": "load"}, ALL_STEPS),
    (ThreeSteps, {"step": "count"}, ALL_STEPS[1:]),
    (ThreeSteps, {"step": "count", "cursor": 2}, ALL_STEPS[3:]),
    (ThreeSteps, {"step": "send"}, ALL_STEPS[5:]),
]
"""A job, a place in it, and what is done again from there."""

STORED: dict[str, Callable[[Redis], Any]] = {"rq_meta": lambda redis: None, "own": RedisStore}


class Trial:
    """A finished job, and somebody who rewinds or forks it and may crash."""

    def __init__(self, job_class: Any, place: dict[str, Any], action: str) -> None:
        self.redis: Redis = fakeredis.FakeRedis(server=fakeredis.FakeServer())
        self.queue = Queue("test", connection=self.redis, serializer="json")
        self.place, self.action = place, action
        self.job = enqueue(self.queue, job_class, *([ITEMS] if job_class is Keyed else []))

    def act(self) -> None:
        """Rewind or fork."""
        if self.action == "rewind":
            rewind(self.redis, self.job.id, **self.place)
        else:
            fork(self.redis, self.job.id, **self.place, new_id="new")

    def crash_at(self, number: int, *, lose: bool) -> bool:
        """Act until a crash point; return whether there is one of that number."""
        observer = CrashAt(number, lose=lose)
        with probes(), living(SimulatedProcess(observer)), suppress(Died, LostAnswer):
            self.act()
        return observer.reached >= number

    def done(self) -> list[Any]:
        """Let a worker do what there is to do, and return it."""
        DONE.clear()
        recover(self.redis)
        work(self.queue)
        return [each[0] if isinstance(each, tuple) else each for each in DONE]

    def statuses(self) -> set[JobStatus]:
        """Return the statuses of the jobs that there are."""
        ids = [self.job.id, *(["new"] if self.redis.exists("rq:job:new") else [])]
        return {RQJob.fetch(each, connection=self.redis, serializer="json").get_status() for each in ids}


def trials(new: Callable[[], Trial], *, lose: bool) -> Iterator[Trial]:
    """Yield a trial for each crash point, after the crash."""
    number = 0
    while True:
        number += 1
        trial = new()
        trial.done()
        if not trial.crash_at(number, lose=lose):
            assert number > 5, "there are crash points"
            return
        yield trial


QUICK = 29
"""One case in so many is tried without ``--full``."""


class Case(NamedTuple):
    """A job, a place in it, what is done again from there, and what happens.

    :ivar lose: whether the answer is lost; else the process crashes. :ivar repeat: whether it is tried again.
    """

    job_class: Any
    place: dict[str, Any]
    again: list[Any]
    action: str
    kept: str
    lose: bool
    repeat: bool

    def __str__(self) -> str:
        how = "lost answer" if self.lose else "crash"
        return f"{self.action} {self.job_class.__name__} {self.place}, {self.kept}, {how}{', again' * self.repeat}"


CASES = [
    Case(*place, *rest)
    for place, *rest in product(PLACES, ("rewind", "fork"), STORED, (False, True), (False, True))
]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=() if number % QUICK == 0 else pytest.mark.full)
        for number, case in enumerate(CASES)
    ],
    ids=str,
)
def test_a_crash_at_each_command(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the crash the work is done from the place or not at all; after a second try it is done once."""
    seen = []

    def new() -> Trial:
        trial = Trial(case.job_class, case.place, case.action)
        monkeypatch.setattr(Keyed, "store", STORED[case.kept](trial.redis))
        return trial

    for trial in trials(new, lose=case.lose):
        if case.repeat:
            with suppress(UsageError):  # it was done, and only the answer is missing
                trial.act()
        seen.append(trial.done())
        assert trial.statuses() == {JobStatus.FINISHED}
    wanted = [case.again] if case.repeat or not case.again else [case.again, []]
    assert [done for done in seen if done not in wanted] == []
    assert [done for done in wanted if done not in seen] == []
