"""Courses: runs of a job with concurrent items, in an order other than the clean run's.

In the clean run an item continues until it is done or waits for another one. So the outcome is the same as without
concurrency. A course has no interruption either, and must end with the same outcome. Its crash points are recorded, so
that the job can be interrupted while several items are in progress.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.explore.plan import sampled
from harness.explore.planned import PlannedTrial
from harness.explore.recording import Recorder, Recording
from harness.explore.trials import run_to_end

if TYPE_CHECKING:
    from harness.explore.external_state import ExternalState
    from harness.explore.outcomes import Contents
    from harness.explore.points import Point
    from harness.explore.targets import Target

ORDERS = 8
"""Number of orders in which a job runs."""
MOST = 60
"""Maximum number of interruptions of each kind in these orders, and of switches."""


def has_several(jobs: Sequence[Any]) -> bool:
    """Return whether a job may have several items in progress."""
    numbers = [getattr(job, "concurrency", 1) for job in jobs]
    return any(type(number) is not int or number > 1 for number in numbers)


class Courses:
    """Records courses of a job.

    :param read: reads the outcome. :param seconds: time limit of an execution.
    """

    def __init__(
        self,
        target: Target,
        external: ExternalState,
        recording: Recording,
        read: Callable[[], Contents],
        seconds: float,
    ) -> None:
        self._target, self._external, self._recording = target, external, recording
        self._read, self._seconds = read, seconds

    def get(self, number: int) -> Recording:
        """Return the record of an order, and run the job in it at the first call; 0 is the clean run's order."""
        if number and number not in self._recording.courses:
            self._recording.courses[number] = self._recorded(number)
        return self._recording.courses[number] if number else self._recording

    def _recorded(self, number: int) -> Recording:
        external, first = self._external, self._external.first
        external.restore(first)
        recorder = Recorder(external, boundary=type(self._target).attempt.__code__, order=number)
        recorder.states.append(first)
        ending = run_to_end(self._target, external, recorder, self._seconds)
        astray = ending.kind != "completed" or bool(self._recording.reference.differences(self._read()))
        return replace(
            self._recording, points=recorder.points, states=[{**first, **state} for state in recorder.states],
            makers=recorder.makers, marks=recorder.marks, insides=recorder.insides, tallies=recorder.tallies,
            final={**first, **external.now()}, courses={}, astray=astray,
            _contents={}, _history=[], _named={}, _indices={},
        )  # fmt: skip


def numbers(seed: int) -> range:
    """Return the numbers of the orders of a seed."""
    return range(abs(seed) * ORDERS + 1, abs(seed) * ORDERS + ORDERS + 1)


def orders(recording: Recording) -> list[PlannedTrial]:
    """Return a run in each order."""
    return [PlannedTrial("order", (("seed", number),), number) for number in recording.courses]


def switches(recording: Recording) -> list[PlannedTrial]:
    """Return a switch to other items before each effect of an item, and at each sleep."""
    return [
        PlannedTrial("switch", ((point.kind, point.number),))
        for point in recording.points
        if _may_switch(point)
    ]


def _may_switch(point: Point) -> bool:
    return (
        point.inside
        and not point.held
        and (point.kind.startswith("before-") or point.kind in {"sleep", "write"})
    )


def in_all(
    recording: Recording, seed: int, most: int | None, plan: Callable[[Recording], list[PlannedTrial]]
) -> tuple[list[PlannedTrial], int | None]:
    """Return interruptions of the clean run, with their maximum number; for concurrent items, also of each order.

    :param plan: returns the interruptions of one run.
    """
    clean = plan(recording)
    if not recording.courses:
        return clean, most
    found = [
        replace(trial, order=number)
        for number, course in recording.courses.items() if not course.astray
        for trial in plan(course)
    ]  # fmt: skip
    return sampled(clean, most, seed) + sampled(found, MOST if most is None else min(MOST, most), seed), None
