"""Shortcuts: known results with which a trial can end early.

There are two kinds, for jobs that behave the same in each run:

* **An execution that starts** in the same state as an earlier trial ends like that trial. A new process depends only
  on external state, and that is equal: each row, each key, and the stored progress (:mod:`.sameness`).
* **A running execution** that reaches a state of the clean run ends like the clean run. Three parts are equal: external
  state, the position in the job's code, and everything visible in the process that its future depends on
  (:mod:`.insides`). This is compared at :data:`WINDOW` consecutive external states.

With the second kind, a trial in the middle of a job need not start at the beginning either: it starts a few states
earlier, and interrupts the execution when that has reached a state of the clean run.

**Requirements.** The job must be deterministic, which every exploration needs, and everything that its future depends
on must be visible. The visible parts are local variables of the job's own functions (except those that are no longer
read), attributes of the job, closures, generators, and variables of the modules and classes of its package. A process
with an open file, a transaction, a session with changes, its own thread or an object of an unknown kind counts as
different from all others.

**Not visible** are the remaining items of a ``for`` loop, if no variable has them; the memory of libraries, such as the
rows in a session or in ``functools.lru_cache``; and the clock. A mistake is missed only if it shows through one of
these, more than :data:`WINDOW` external states after the start of an execution, and after no other state: an execution
starts in each of them.

**Check.** Before shortcuts are used, :data:`CHECKS` crashes of the job are tried both ways. If the results differ,
all trials run to their end, as with ``shortcuts=False``. They also do so on Celery and Dramatiq, with another version
of the code, for jobs that set items aside, and if rows have times or random values: their states are never equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.explore.insides import fingerprint
from harness.explore.sameness import digest
from harness.explore.trials import COMPARED, Ending

if TYPE_CHECKING:
    from types import CodeType

    from harness.explore.crash import SimulatedProcess
    from harness.explore.external_state import ExternalState
    from harness.explore.outcomes import Difference
    from harness.explore.points import Point
    from harness.explore.recording import Recording

WINDOW = 3
"""Number of consecutive external states in which an execution must equal the clean run to count as joined."""
CHECKS = 5
"""Number of crashes that are tried both ways."""
LEAD = 4
"""Number of external states between the start of a trial and its interruption."""
PATIENCE = 400
"""Number of crash points within which such a trial must join the clean run; otherwise it starts at the beginning."""
MOST_MISSES = 8
"""Number of consecutive trials that did not join, after which no more trials start there."""


@dataclass(frozen=True)
class Future:
    """Result of an execution that starts in a state.

    :ivar marks: the items that it and later executions began; those from ``at`` on are the clean run's. :ivar
        at: index of the point where it joined the clean run; None if it ran to its end.
    """

    ending: Ending
    differences: list[Difference]
    marks: list[str]
    at: int | None


@dataclass
class Shortcuts:
    """Known results of a job.

    :ivar misses: number of consecutive trials that did not join the clean run.
    """

    external: ExternalState
    recording: Recording
    window: int = WINDOW
    misses: int = 0
    futures: dict[bytes, Future] = field(default_factory=dict)
    _digests: dict[int, bytes] = field(default_factory=dict)
    _points: dict[tuple[str, bytes, bytes], int] = field(default_factory=dict)
    _insides: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        for index, point in enumerate(self.recording.points):
            inside = self.recording.insides[index]
            if inside is not None:
                self._insides.add(inside)
                self._points.setdefault((point.kind, inside, self.of_state(point.state)), index)

    def of_state(self, state: int) -> bytes:
        """Return the digest of a state of the clean run."""
        if state not in self._digests:
            self._digests[state] = digest(self.external.each(self.recording.states[state]))
        return self._digests[state]

    def now(self) -> bytes:
        """Return the digest of the current state."""
        return digest(self.external.each())

    def find(self, kind: str, simulated: SimulatedProcess, boundary: CodeType) -> int | None:
        """Return the index of the clean run's point that equals the current one; None for none."""
        inside = fingerprint(simulated, boundary, self.external.memory)
        if inside is None or inside not in self._insides:
            return None
        return self._points.get((kind, inside, self.now()))

    def lead(self, point: Point) -> int | None:
        """Return the start state of a trial that interrupts at a point; None for the beginning."""
        if self.misses >= MOST_MISSES or point.state <= LEAD:
            return None
        return point.state - LEAD


@dataclass
class Following:
    """Comparison of one trial's executions with the clean run.

    :ivar joins: whether it only finds the matching point of the clean run, and uses no results of earlier executions.
    :ivar whole: whether executions do not end with known results of earlier ones: the points that a recovery passes
        must not depend on the trials before it.
    :ivar at: index of the point of the clean run that an execution has joined, after enough equal states.
    :ivar ended: known result of an execution that would have started.
    """

    shortcuts: Shortcuts
    joins: bool = False
    whole: bool = False
    at: int | None = None
    ended: Future | None = None
    patience: int = PATIENCE
    _states: list[int] = field(default_factory=list)

    def learn(self, state: int, ending: Ending, differences: list[Difference], marks: list[str]) -> None:
        """Remember the result of an execution that started in a state of the clean run and was not interrupted."""
        if self.ended is None and ending.kind in {"completed", "failed"}:
            future = Future(ending, differences, marks, self.at)
            self.shortcuts.futures.setdefault(self.shortcuts.of_state(state), future)

    @property
    def short(self) -> bool:
        """True if anything was skipped."""
        return self.at is not None or self.ended is not None

    @property
    def rest(self) -> list[str]:
        """Items that the skipped part would have begun."""
        found = [] if self.ended is None else self.ended.marks
        at = self.at if self.ended is None else self.ended.at
        recording = self.shortcuts.recording
        return found if at is None else [*found, *recording.marks[recording.points[at].marks :]]

    def meet(self, kind: str, simulated: SimulatedProcess, boundary: CodeType) -> int | None:
        """Compare an execution with the clean run; return the point where it joined, if it did."""
        if kind not in COMPARED:
            return None
        index = self.shortcuts.find(kind, simulated, boundary)
        if index is None:
            self._states.clear()
            return None
        state = self.shortcuts.recording.points[index].state
        if self._states and state < self._states[-1]:
            self._states.clear()
        of_state = self.shortcuts.of_state
        if not self._states or (state > self._states[-1] and of_state(state) != of_state(self._states[-1])):
            self._states.append(state)
        return index if len(self._states) >= self.shortcuts.window else None

    def begin(self) -> Ending | None:
        """Return the known end of an execution that would start here, or None."""
        self._states.clear()
        if self.joins or self.whole or not self.shortcuts.futures:
            return None
        self.ended = self.shortcuts.futures.get(self.shortcuts.now())
        return None if self.ended is None else self.ended.ending
