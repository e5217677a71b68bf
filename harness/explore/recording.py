"""Clean run: the crash points that a job passes, and the external state at each."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.explore.crash import current, is_awaiting
from harness.explore.external_state import FILE
from harness.explore.history import History
from harness.explore.insides import fingerprint
from harness.explore.outcomes import Contents, Reference
from harness.explore.points import Line, Point, innermost, lines_here, lines_of
from harness.explore.trials import COMPARED, SAVES, Watch, run_to_end
from harness.explore.turns import party_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.explore.external_state import ExternalState, State
    from harness.explore.outcomes import Difference
    from harness.explore.targets import Target


LONG = 200
"""Number of states whose contents are kept in memory."""


@dataclass
class Recorder(Watch):
    """Numbers the crash points, and stores the external state after each change."""

    points: list[Point] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    makers: list[Point] = field(default_factory=list)
    insides: list[bytes | None] = field(default_factory=list)
    tallies: list[tuple[int, int, float]] = field(default_factory=list)

    def _lines(self, kind: str) -> tuple[Line, ...]:
        """Return the lines of the call stack; at the end, those of the last point."""
        assert self.boundary is not None  # noqa: S101 - record() sets it
        here = lines_here(self.boundary)
        return self.points[-1].lines if kind == "end" and not here and self.points else here

    def look(self, kind: str, label: str) -> object:
        """Record the point."""
        simulated = current()
        assert simulated is not None and self.boundary is not None  # noqa: S101, PT018 - only a simulated process reaches points
        state = self.external.look()
        files_only = False
        if state is not None:
            before = self.states[-1]
            files_only = all(key.startswith(FILE) for key in state if state[key] != before.get(key))
            self.states.append(state)
        held = kind.startswith("before-") and self.external.held(simulated)
        self.points.append(
            Point(
                kind, self.counts[kind], label, self._lines(kind), len(self.states) - 1, len(self.marks),
                self.unsaved_here, held, is_awaiting(), party_here() is not None,
            )
        )  # fmt: skip
        compared = kind in COMPARED
        self.insides.append(fingerprint(simulated, self.boundary, self.external.memory) if compared else None)
        self.tallies.append((self.unsaved, self.checkpoints, self.now))
        if state is not None:
            # A file changes some time after it was opened, when it is flushed or closed; no event reports when.
            written = [point for point in self.points if point.kind == "write"] if files_only else []
            self.makers.append(written[-1] if written else self.points[-1])
        return None


@dataclass(frozen=True)
class Recording:
    """Record of the clean run.

    :ivar states: external state after each change; the first is the initial state.
    :ivar makers: for each state except the first, the point that created it.
    :ivar marks: the items begun, in order. :ivar read: reads a state.
    :ivar insides: for each point, the fingerprint of the process there, if it has one.
    :ivar tallies: for each point, the numbers of items and checkpoints since the last save, and the time.
    :ivar final: external state after the end.
    :ivar courses: the same for other orders of concurrent items, by the number of the order. :ivar several: whether
        items take turns. :ivar astray: whether the run of an order did not end like the clean run.
    """

    points: list[Point]
    states: list[State]
    makers: list[Point]
    marks: list[str]
    reference: Reference
    read: Callable[[State], Contents]
    insides: list[bytes | None]
    tallies: list[tuple[int, int, float]]
    final: State
    courses: dict[int, Recording] = field(default_factory=dict)
    several: bool = False
    astray: bool = False
    _contents: dict[int, Contents] = field(default_factory=dict)
    _history: list[History] = field(default_factory=list)
    _named: dict[tuple[str, int], Point] = field(default_factory=dict)
    _indices: dict[tuple[str, int], int] = field(default_factory=dict)
    _kinds: dict[str, list[int]] = field(default_factory=dict)

    def maker(self, state: int) -> Point | None:
        """Return the point that created a state; None for the initial state."""
        return self.makers[state - 1] if state else None

    def after(self, point: Point) -> Point | None:
        """Return the next point at which the external state changes."""
        return self.makers[point.state] if point.state < len(self.makers) else None

    def point(self, kind: str, number: int) -> Point:
        """Return the point of that name.

        :raises UsageError: if the clean run does not pass it.
        """
        if not self._named:
            self._named.update({(point.kind, point.number): point for point in self.points})
        if (kind, number) in self._named:
            return self._named[kind, number]
        kinds = sorted({f"{each.kind}#1 to #{self.count(each.kind)}" for each in self.points})
        raise UsageError(f"there is no crash point {kind}#{number}; the job passes {', '.join(kinds)}")

    def written(self, difference: Difference, before: int) -> int:
        """Return the latest state, up to one, whose point wrote the row of a difference; 0 for none."""
        if not self._history:
            self._history.append(History(self.reference, self.contents, len(self.states)))
        return self._history[0].written(difference, before)

    def contents(self, state: int) -> Contents:
        """Return the content of a state."""
        if state not in self._contents:
            if len(self._contents) > LONG:
                self._contents.pop(next(iter(self._contents)))
            self._contents[state] = self.read(self.states[state])
        return self._contents[state]

    def index(self, point: Point) -> int:
        """Return the index of a point."""
        if not self._indices:
            self._indices.update({(each.kind, each.number): index for index, each in enumerate(self.points)})
        return self._indices[point.kind, point.number]

    def counts(self, index: int) -> Counter[str]:
        """Return the number of points of each kind up to one."""
        if not self._kinds:
            for each, point in enumerate(self.points):
                self._kinds.setdefault(point.kind, []).append(each)
        return Counter({kind: bisect_right(indices, index) for kind, indices in self._kinds.items()})

    def saved(self, state: int) -> int:
        """Return the latest state with a save of progress, up to a state."""
        return max((p.state for p in self.points if p.kind in SAVES and p.state <= state), default=0)

    def count(self, kind: str) -> int:
        """Return the number of points of a kind."""
        return sum(point.kind == kind for point in self.points)


def record(
    target: Target,
    external: ExternalState,
    read: Callable[[], Contents],
    seconds: float,
    *,
    deploys: bool = False,
) -> Recording:
    """Run the job twice, cleanly, and its new version once.

    :param read: reads the outcome. :param deploys: whether there is a new version.
    :raises UsageError: if the job fails without an interruption, or if it changes no external state.
    """
    boundary, began = type(target).attempt.__code__, time.time()
    recorder = Recorder(external, boundary=boundary)
    recorder.states.append(external.first)
    _clean(target, external, recorder, seconds)
    clean, left, final = read(), external.contents(), external.now()
    later = _found_later(external) if read == external.contents else dict
    # Resources are found during the run: their initial content is part of every state.
    first = external.first
    states = [{**first, **state} for state in recorder.states]
    external.restore(first)
    before = read()
    # A crash may leave a value that the job would remove, such as a lock, so there is something to explore.
    if before == clean and all(external.contents(state) == left for state in states):
        raise UsageError(
            f"{target.name} changes no external state except its progress, so nothing can be lost or done twice; "
            "give it something to do: rows to work on, or witnesses= for what it changes elsewhere"
            f"{_not_seen(external)}"
        )
    _clean(target, external, Watch(external), seconds)
    again, new = read(), None
    if deploys:
        external.restore(first)
        _clean(target, external, Watch(external, deployed=True), seconds)
        new = read()
    return Recording(
        recorder.points,
        states,
        recorder.makers,
        recorder.marks,
        Reference(before, clean, again, new, began=began, later=later),
        external.contents,
        recorder.insides,
        recorder.tallies,
        {**first, **final},
        several=any(point.inside for point in recorder.points),
    )


def _found_later(external: ExternalState) -> Callable[[], Contents]:
    """Return a function that returns the initial contents of all resources if some were found since its last call."""
    known = len(external.first)

    def later() -> Contents:
        nonlocal known
        before, known = known, len(external.first)
        return {} if before == known else external.contents(external.first)

    return later


def _clean(target: Target, external: ExternalState, watch: Watch, seconds: float) -> None:
    ending = run_to_end(target, external, watch, seconds, retries=0)
    if ending.kind != "completed":
        way = ending.lines or (lines_of(ending.error) if ending.error else ())
        lines = tuple(str(line) for line in [innermost(way, target.files)] if line is not None)
        name = f"the new version of {target.name}" if watch.deployed else target.name
        raise CleanRunFailed(name, ending.why, lines) from ending.error
    if not watch.passed:
        raise UsageError(
            f"{target.name} accesses no external state, so there is no crash point: no SQL, no Redis, no mail, no "
            f"request, no file, no checkpoint{_not_seen(external)}"
        )


def _not_seen(external: ExternalState) -> str:
    return f"; not seen: {external.not_seen}" if external.not_seen else ""


class CleanRunFailed(UsageError):
    """The job fails without an interruption, so there is nothing to compare with."""

    def __init__(self, name: str, why: str, lines: tuple[str, ...]) -> None:
        where = f", at {lines[0]}" if lines else ""
        super().__init__(f"{name} fails even without an interruption: {why}{where}")
        self.why, self.lines = why, lines
