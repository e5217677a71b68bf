"""Choose the trials: all trials that can show a difference, or a seeded sample if there are too many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING

from harness.explore.planned import PlannedTrial
from harness.explore.trials import CHANGING

if TYPE_CHECKING:
    from harness.explore.points import Point
    from harness.explore.recording import Recording

ALIKE = 25
"""Number of consecutive trials with a finding after which only some of the others are run."""
ALL_TWICE, SOME_TWICE = 100, 40
"""Maximum number of pairs of points up to which all are tried, and the number tried if there are more."""
LEAST = 12
"""Minimum number of freezes that are tried, even in a long job."""
ENOUGH = 1_000
"""Maximum number of points of a job for which the whole sample is tried."""


def crashes(recording: Recording) -> list[PlannedTrial]:
    """Return one crash for each external state: crashes in the same state have the same effect."""
    firsts: dict[int, Point] = {}
    for point in recording.points:
        firsts.setdefault(point.state, point)
    return [PlannedTrial("crash", ((point.kind, point.number),)) for _, point in sorted(firsts.items())]


def stops(recording: Recording) -> list[PlannedTrial]:
    """Return a stop at every checkpoint."""
    return [PlannedTrial("stop", (("checkpoint", n + 1),)) for n in range(recording.count("checkpoint"))]


def lost_replies(recording: Recording) -> list[PlannedTrial]:
    """Return a lost answer for every change of external state, except in files, which give no answer."""
    found, state = [], 0
    for point in recording.points:
        if point.state != state and point.kind in CHANGING and point.kind != "write":
            found.append(PlannedTrial("lost-reply", ((point.kind, point.number),)))
        state = point.state
    return found


def cancellations(recording: Recording) -> list[PlannedTrial]:
    """Return a cancellation at each await of a watched client."""
    return [
        PlannedTrial("cancel", ((point.kind, point.number),)) for point in recording.points if point.awaits
    ]


def freezes(recording: Recording) -> list[PlannedTrial]:
    """Return a freeze before each external effect, except where the frozen execution would block others by a lock."""
    return [
        PlannedTrial("freeze", ((point.kind, point.number),)) for point in recording.points if _waits(point)
    ]


def twice(recording: Recording, most: int | None, seed: int) -> list[PlannedTrial]:
    """Return pairs of points at which two concurrent executions pause: all for a small job, and some for others.

    Each execution pauses only at points where it does not block the other.

    :param most: maximum number of pairs; None for the limits in :data:`ALL_TWICE` and :data:`SOME_TWICE`.
    """
    points = [(point.kind, point.number) for point in recording.points if _waits(point)]
    every = range(number_of_twice(recording))
    if most is None:
        most = ALL_TWICE if len(every) <= ALL_TWICE else some(SOME_TWICE, len(recording.points))
    chosen = every if len(every) <= most else sorted(Random(f"{seed} twice").sample(every, most))  # noqa: S311
    return [
        PlannedTrial("twice", (points[each // len(points)], points[each % len(points)])) for each in chosen
    ]


def number_of_twice(recording: Recording) -> int:
    """Return the number of pairs of points at which two executions can pause."""
    return sum(map(_waits, recording.points)) ** 2


def _waits(point: Point) -> bool:
    return point.kind.startswith("before-") and not point.held


class Thinned:
    """Iterator over trials; after :data:`ALIKE` consecutive wrong trials it skips more and more of the rest.

    :param wrong: returns the number of wrong trials so far; None to return all trials.
    """

    def __init__(self, trials: Sequence[PlannedTrial], wrong: Callable[[], int] | None = None) -> None:
        self._trials, self._wrong = trials, wrong
        self._index, self._row, self._before = -1, 0, 0

    def __iter__(self) -> Thinned:
        return self

    def __next__(self) -> PlannedTrial:
        if self._wrong is not None and self._index >= 0:
            self._row = self._row + 1 if self._wrong() > self._before else 0
        self._index = self._after(self._index, self._row)
        if self._index >= len(self._trials):
            raise StopIteration
        if self._wrong is not None:
            self._before = self._wrong()
        return self._trials[self._index]

    def ahead(self, most: int) -> list[PlannedTrial]:
        """Return the next trials, if they are wrong or right like the last ones."""
        found: list[PlannedTrial] = []
        index, row = self._index, self._row
        while len(found) < most:
            row += bool(row)
            index = self._after(index, row)
            if index >= len(self._trials):
                break
            found.append(self._trials[index])
        return found

    def _after(self, index: int, row: int) -> int:
        if index < 0 or row < ALIKE:
            return index + 1
        return index + max(1, (len(self._trials) - index) // ALIKE)


def pairs(recovered: Mapping[PlannedTrial, Mapping[str, int]]) -> list[PlannedTrial]:
    """Return, for each crash, a second one after each possible change of external state during the recovery.

    :param recovered: number of points of each kind that the recovery from each crash passed.
    """
    return [
        PlannedTrial("crash", (*first.points, (kind, n + 1)))
        for first, counts in recovered.items()
        for kind in CHANGING
        for n in range(counts.get(kind, 0))
    ]


def some(most: int, points: int) -> int:
    """Return the number of trials to run that do the whole job twice: fewer in a job of many points."""
    return max(min(most, LEAST), min(most, most * ENOUGH // max(1, points)))


def sampled(trials: list[PlannedTrial], most: int | None, seed: int) -> list[PlannedTrial]:
    """Return at most *most* trials, in their order; equal seeds give equal samples."""
    if most is None or len(trials) <= most:
        return trials
    chosen = sorted(Random(f"{seed} {most}").sample(range(len(trials)), most))  # noqa: S311 - to be repeatable
    return [trials[index] for index in chosen]
