"""Trials: one run of a job from an external state to its end, watched and interrupted."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import Died, UsageError
from harness.explore.crash import SimulatedProcess, current, living
from harness.explore.external_state import State, leave
from harness.explore.orders import Order
from harness.explore.points import Line, is_own, lines_here, lines_of
from harness.explore.turns import set_aside

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    from harness.explore.crash import Lost
    from harness.explore.external_state import ExternalState
    from harness.explore.outcomes import Difference
    from harness.explore.planned import PlannedTrial
    from harness.explore.shortcuts import Following
    from harness.explore.targets import Target

RETRIES = 3
"""Number of errors in a row after which the job counts as failed."""
MAX_EXECUTIONS = 500
"""Limit of executions, more than any explored job should need."""
SECOND_LOOK = 0.05
"""Seconds after which a job that did not end at its time limit is interrupted again."""
LOOKS = 100
"""Number of times that library code may continue before the job is ended inside of it."""


@dataclass
class Ending:
    """End of a run.

    :ivar kind: ``completed``, ``failed`` (it failed repeatedly), ``endless``, or ``left`` (its process).
    :ivar why: the reason as text. :ivar lines: position of the job at its time limit, or where it left its process.
    """

    kind: Literal["completed", "failed", "endless", "left"]
    why: str = ""
    error: BaseException | None = None
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True)
class Result:
    """Result of a trial.

    :ivar repeated: items begun before the interruption and again after it. :ivar price: number that the
        durability allows.
    :ivar then: next external effect that the interrupted execution attempted.
    :ivar refused: reason why the new version refused; the old version then ran, and this is its end.
    :ivar short: whether a shortcut was taken, see :mod:`harness.explore.shortcuts`.
    """

    trial: PlannedTrial
    ending: Ending
    differences: list[Difference]
    repeated: int = 0
    price: int = 0
    then: tuple[Line, ...] = ()
    refused: str | None = None
    short: bool = False

    @property
    def good(self) -> bool:
        """True if it ended like the clean run."""
        return self.ending.kind == "completed" and not self.differences

    @property
    def outcome(self) -> tuple[str, list[str], int]:
        """Its end, its differences, and the number of repeated items."""
        return self.ending.kind, list(map(str, self.differences)), self.repeated


@dataclass
class Watch:
    """Observer of the executions of a run, which interrupts them at a given point.

    :ivar trial: the interruption; None for none. :ivar budget: number of crash points after which the run
        counts as endless. :ivar fired: whether the interruption happened. :ivar counts: number of points of
        each kind passed. :ivar marks: the items begun. :ivar unsaved: number of items since the last save.
        :ivar price: number of items that the durability lets the interruption repeat: those begun since
        progress was saved.
    :ivar now: simulated time of the job, in seconds; it increases at each checkpoint.
    :ivar deployed: whether executions run the new version, if there is one; those after the interruption do.
    :ivar alone: whether no other execution is alive. :ivar boundary: the function that calls the job.
    :ivar dies: whether a crash is simulated immediately; otherwise the run continues, ``left`` is the
        external state at that moment, and ``begun`` the number of items begun.
    :ivar then: next external effect that the interrupted execution attempted.
    :ivar following: compares the executions with the clean run; None to run each of them to its end.
    :ivar led: whether the trial started in the middle of the job.
    :ivar aligned: whether points are counted as in the clean run; otherwise counting starts when an execution joins
        the clean run.
    :ivar endless: reason why the run does not end, if it does not.
    :ivar order: number of the order in which concurrent items continue. :ivar loops: number of executions with items.
    :ivar busy: number of items in progress. :ivar still: whether the process is paused.
    """

    external: ExternalState
    trial: PlannedTrial | None = None
    budget: int = 1_000_000
    handover: Callable[[], None] | None = None
    fired: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    marks: list[str] = field(default_factory=list)
    unsaved: int = 0
    price: int = 0
    passed: int = 0
    checkpoints: int = 0
    now: float = 0.0
    deployed: bool = False
    alone: bool = True
    boundary: CodeType | None = None
    dies: bool = False
    left: State | None = None
    begun: int = 0
    then: tuple[Line, ...] = ()
    following: Following | None = None
    aligned: bool = True
    led: bool = False
    endless: str = "never ends"
    order: int = 0
    loops: int = 0
    busy: int = 0
    still: bool = False
    _interrupted: SimulatedProcess | None = None

    def reach(self, simulated: SimulatedProcess, kind: str, label: str, lost: Lost | None) -> object:
        """Count a point, and interrupt if it is the trial's."""
        self.passed += kind != "end"
        if self.passed > self.budget:
            simulated.die(self.endless)
        self.counts[kind] += 1
        if kind in SAVES:
            self.unsaved = self.checkpoints = 0
        elif kind == "checkpoint":
            self.now += TICK
            self.checkpoints += 1
        if self.pending and self.aligned and (kind, self.counts[kind]) == self.trial.points[-1]:  # type: ignore[union-attr]
            self._interrupted = None if self.trial.action == "switch" else simulated  # type: ignore[union-attr]
            return self._interrupt(simulated, lost)
        if self._interrupted is simulated and not self.then and self.boundary is not None:
            self.then = lines_here(self.boundary)
        answer = self.look(kind, label)
        if self.following is not None and self.boundary is not None and not (self.pending and self.aligned):
            self._follow(self.following, simulated, kind)
        return answer

    @property
    def pending(self) -> bool:
        """True if an interruption is still pending."""
        return self.trial is not None and not self.fired

    @property
    def unsaved_here(self) -> int:
        """Number of items that a crash here may repeat: those begun since the last save, and others in progress."""
        return max(self.unsaved, self.checkpoints + 1) + max(0, self.busy - 1)

    def next_order(self) -> Order:
        """Return the order of the items of the next execution."""
        self.loops += 1
        return Order(self.order, self.loops)

    @property
    def marked(self) -> list[str]:
        """The items begun, including those of executions that were skipped because their result is known."""
        following = self.following
        return self.marks if following is None else [*self.marks, *following.rest]

    def look(self, kind: str, label: str) -> object:
        """Receive the external state after a point; used for recording."""
        del kind, label
        return None

    def meet(self, thing: Any) -> None:
        """Add it to the external state."""
        self.external.meet(thing)

    def serves(self, raw: Any) -> bool:
        """Return whether a connection leads to the PostgreSQL database of the external state."""
        return self.external.serves(raw)

    def sent(self, kind: str, label: str, body: bytes = b"") -> None:
        """Add it to the external state."""
        self.external.sent(kind, label, body)

    def unseen(self, name: str, what: str, line: str) -> None:
        """Add it to the external state."""
        self.external.not_seen.add(name, what, line)

    def mark(self, item: str) -> None:
        """Record that an item was begun."""
        simulated = current()
        if simulated is not None and not simulated.dead:
            self.marks.append(item)
            self.unsaved += 1

    @property
    def joined(self) -> bool:
        """True if an execution ended because it joined the clean run."""
        return self.following is not None and self.following.at is not None

    def begin(self) -> Ending | None:
        """Return the known end of an execution that would start now, or None."""
        return None if self.following is None or self.pending else self.following.begin()

    def _follow(self, following: Following, simulated: SimulatedProcess, kind: str) -> None:
        """Compare the execution with the clean run: end it if it is equal, or continue to count."""
        assert self.boundary is not None  # noqa: S101 - reach() has looked
        at = following.meet(kind, simulated, self.boundary)
        if self.aligned:
            if at is not None:
                following.at = at
                simulated.die(KNOWN)
        elif at is None:
            if self.passed > following.patience:
                simulated.die(KNOWN)
        else:
            recording = following.shortcuts.recording
            self.counts, self.aligned = recording.counts(at), True
            self.marks = recording.marks[: recording.points[at].marks]
            self.unsaved, self.checkpoints, self.now = recording.tallies[at]

    def _interrupt(self, simulated: SimulatedProcess, lost: Lost | None) -> object:
        assert self.trial is not None  # noqa: S101 - reach() has looked
        self.fired = True
        self.price = self.unsaved_here
        if self.trial.action == "crash" and self.dies:
            simulated.die()
        if self.trial.action == "crash":
            self.left, self.begun = self.external.now(), len(self.marks)
        if self.trial.action == "lost-reply":
            if lost is None:
                raise UsageError(f"{self.trial}: nothing is answered there, so no answer can be lost")
            raise lost()
        if self.trial.action == "cancel":
            _cancel()
        if self.trial.action == "switch":
            set_aside()
        if self.trial.action == "freeze" and self.handover is not None:
            self.still = True
            self.handover()
            self.still = False
        return str(self.trial) if self.trial.action == "stop" else None


def _cancel() -> None:
    """Cancel the task that is about to wait, so that the wait is cancelled."""
    task = asyncio.current_task()
    if task is not None:
        task.cancel()


KNOWN = "its result is known"
"""Cause of the end of a process that need not continue."""
CHANGING = ("commit", "mail", "publish", "redis", "request", "save", "write")

COMPARED = {"checkpoint", *CHANGING}
"""Kinds of points at which an execution is compared with the clean run."""
LATE = "is not done within the limit"
"""Beginning of the reason of an execution that took too long."""
SAVES = {"save", "saved"}
"""Kinds of points at which progress was saved."""
TICK = 0.02
"""Simulated seconds between two checkpoints, as in the lab."""


def run_to_end(
    target: Target, external: ExternalState, watch: Watch, seconds: float, *, retries: int = RETRIES
) -> Ending:
    """Run executions until the job is done or has failed.

    :param seconds: time limit of an execution. :param retries: number of executions that may fail.
    """
    failures = 0
    for _ in range(MAX_EXECUTIONS):
        known = watch.begin()
        if known is not None:
            return known
        ending = execute(target, external, watch, seconds)
        if watch.joined:
            ending = True
        elif not watch.aligned:
            return Ending("left", "did not come to where the clean run was")
        if isinstance(ending, Ending):
            if ending.kind != "failed":
                return ending
            failures += 1
            if failures > retries:
                return ending
        elif ending:
            return Ending("completed")
    return Ending("endless", f"is not done after {MAX_EXECUTIONS} executions")


def execute(target: Target, external: ExternalState, watch: Watch, seconds: float) -> Ending | bool:
    """Run one execution in its own simulated process; return whether the job is done, or its other end."""
    simulated = SimulatedProcess(watch)
    deployed = watch.deployed or watch.fired
    if watch.alone:
        external.memory.restore()
    error: BaseException | None = None
    done = False
    ended_at: tuple[Line, ...] = ()
    try:
        with living(simulated), limited(simulated, watch, seconds):
            done = target.attempt(external, deployed=deployed)
    except Died as died:
        ended_at = lines_of(died)
    # Whatever a job raises is what the queue would see; asyncio.run() raises the cancellation of its task.
    except (Exception, SystemExit, asyncio.CancelledError) as raised:  # noqa: BLE001
        error = raised
    dead, cause = simulated.dead, simulated.cause
    leave(simulated, alone=watch.alone)
    if dead:
        if cause is None or cause == KNOWN:
            return False
        # A job that ended at no crash point may have left a statement open, and with it a lock, in a cycle of frames.
        gc.collect()
        return Ending("endless" if cause == watch.endless else "left", cause, lines=ended_at)
    return done if error is None else Ending("failed", f"{type(error).__name__}: {error}", error)


@contextmanager
def limited(simulated: SimulatedProcess, watch: Watch, seconds: float) -> Iterator[None]:
    """End a process that exceeds the limit; only in the main thread, where Python runs signal handlers.

    It ends at its next crash point, or when the job's own code runs. An error inside a library could leave
    partial work, or be swallowed; so it is raised there only if the library does not return.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    looks = 0

    def end(_number: int, frame: FrameType | None) -> None:
        nonlocal looks
        looks += 1
        watch.budget, watch.endless = 0, f"{LATE} of {seconds:g} s; raise it by --limit or limit="
        if looks > LOOKS or (frame is not None and is_own(frame.f_code)):
            simulated.end(watch.endless)
            raise Died

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds, SECOND_LOOK)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
