"""Run one trial: restore external state, interrupt an execution, recover, and compare the outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Event, Thread
from typing import TYPE_CHECKING, Literal

from harness.errors import HarnessError, UsageError
from harness.explore import plan
from harness.explore.courses import Courses
from harness.explore.crash import current
from harness.explore.killing import KillAtPoint, run_and_kill
from harness.explore.planned import PlannedTrial
from harness.explore.shortcuts import CHECKS, Following, Shortcuts
from harness.explore.trials import Ending, Result, Watch, execute, run_to_end

if TYPE_CHECKING:
    from harness.explore.external_state import ExternalState
    from harness.explore.memory import Values
    from harness.explore.outcomes import Contents, Difference
    from harness.explore.points import Point
    from harness.explore.recording import Recording
    from harness.explore.targets import Target

Death = Literal["restored", "simulated", "killed"]

BUDGET = 20
"""Multiple of the clean run's crash points after which an interrupted run counts as endless."""


class Runner:
    """Runs trials of a recorded job.

    :param read: reads the outcome. :param limit: time limit of an execution, in seconds.
    :param deploys: whether executions after the interruption run a new version.
    :ivar recovered: for each crash, the number of points of each kind that its recovery passed. :ivar
        shortcuts: known results; None to run every trial to its end.
    """

    def __init__(
        self,
        target: Target,
        external: ExternalState,
        recording: Recording,
        read: Callable[[], Contents],
        limit: float,
        *,
        deploys: bool = False,
    ) -> None:
        self._target, self._external, self._recording = target, external, recording
        self._read, self._limit, self._deploys = read, limit, deploys
        self.recovered: dict[PlannedTrial, Mapping[str, int]] = {}
        self.shortcuts: Shortcuts | None = None
        self._confirmed: set[tuple[str, ...]] = set()
        self.courses = Courses(target, external, recording, read, limit)
        self._checked: dict[tuple[PlannedTrial, bool], tuple[Result, Mapping[str, int] | None]] = {}

    def shorten(self, window: int) -> bool:
        """Use shortcuts from now on if they save time and are correct; return whether they are used.

        To check them, some crashes are tried both ways. The results are kept: most of these crashes are tried anyway.
        """
        if self._deploys or self._target.counts_executions:
            return False
        shortcuts = Shortcuts(self._external, self._recording, window)
        crashes, short = plan.crashes(self._recording), False
        for trial in crashes[1:-window:][:: max(1, len(crashes) // CHECKS)]:
            whole = self._kept(trial, None)
            result = self._kept(trial, shortcuts)
            short = short or result.short
            if result.outcome != whole.outcome:
                short = False
                break
        self.shortcuts = shortcuts if short else None
        return short

    def _kept(self, trial: PlannedTrial, shortcuts: Shortcuts | None) -> Result:
        """Run one trial with or without shortcuts, and keep its result, but no error: it would keep frames."""
        self.shortcuts = shortcuts
        result = self.result(trial)
        if result.ending.error is None:
            self._checked[trial, shortcuts is not None] = result, self.recovered.get(trial)
        return result

    def _once(self, trial: PlannedTrial) -> Result:
        """Return the result of a trial, which the check of the shortcuts may have found already."""
        kept = self._checked.get((trial, self.shortcuts is not None))
        if kept is None:
            return self.result(trial)
        if kept[1] is not None:
            self.recovered[trial] = kept[1]
        return kept[0]

    def confirmed(self, trial: PlannedTrial) -> Result:
        """Run one trial with a shortcut if there is one; run it to its end if a new kind of mistake is found."""
        result = self._once(trial)
        kind = (trial.action, result.ending.kind, *(each.kind for each in result.differences[:1]))
        if not result.short or result.good or kind in self._confirmed:
            return result
        self._confirmed.add(kind)
        shortcuts, self.shortcuts = self.shortcuts, None
        recovered = self.recovered.get(trial)
        try:
            return self._once(trial)
        finally:
            self.shortcuts = shortcuts
            if recovered is not None:  # shortcuts must not change the set of pairs
                self.recovered[trial] = recovered

    def result(self, trial: PlannedTrial, death: Death = "restored") -> Result:
        """Run one trial.

        :param death: see :meth:`harness.explore.explorer.Explorer.result`.
        :raises UsageError: if the job does not reach the point.
        """
        recording, price = self.courses.get(trial.order), 0
        if trial.action == "order":
            return self._in_order(trial)
        point = recording.point(*trial.points[0])
        if trial.action == "cancel" and not point.awaits:
            raise UsageError(
                f"{trial}: no task waits there that could be cancelled; use a point of an async client"
            )
        if death == "killed":
            self._external.restore(self._external.first)
        if trial.action == "crash" and death != "simulated":
            watch, ending, begun, price = self._crash(trial, point, death)
        else:
            watch, ending, begun = self._interrupt(trial, point if death == "restored" else None)
        if watch.trial is not None and not watch.fired and ending.kind != "endless":
            raise Unreached(f"{trial}: the job did not reach that point")
        refused = None
        if self._deploys and ending.kind == "failed" and isinstance(ending.error, HarnessError):
            # Kept progress is useful only if the old version, deployed again, can resume with it.
            refused, begun = ending.why, [*begun, *watch.marks]
            back = self._watching(None)
            ending = run_to_end(self._target, self._external, back, self._limit)
            back.price, back.then, watch = watch.price, watch.then, back
        marks = [*begun, *watch.marked]
        repeated = len(marks) - len(set(marks)) - (len(recording.marks) - len(set(recording.marks)))
        differences = self._differences(watch, ending)
        following = watch.following
        if following is not None and trial.action == "crash" and len(trial.points) == 1:
            following.learn(point.state, ending, differences, watch.marks)
        return Result(
            trial, ending, differences, max(0, repeated), price + watch.price, watch.then, refused,
            watch.led or (following is not None and following.short),
        )  # fmt: skip

    def _in_order(self, trial: PlannedTrial) -> Result:
        self._external.restore(self._external.first)
        watch = self._watching(None, follow=False)
        watch.order = trial.order
        ending = run_to_end(self._target, self._external, watch, self._limit)
        return Result(trial, ending, self._differences(watch, ending))

    def _differences(self, watch: Watch, ending: Ending) -> list[Difference]:
        if ending.kind != "completed":
            return []
        following = watch.following
        if following is not None and following.short:
            return [] if following.ended is None else following.ended.differences
        return self._recording.reference.differences(self._read())

    def _interrupt(self, trial: PlannedTrial, point: Point | None) -> tuple[Watch, Ending, list[str]]:
        """Run a trial other than a crash, from a state shortly before its point if possible, else from the beginning.

        :param point: its point; None for a trial without shortcuts. :return: its observer, its end, and the
            items that a second execution began.
        """
        shortcuts = None if point is None else self.shortcuts
        lead = (
            None if point is None or shortcuts is None or trial.action == "twice" else shortcuts.lead(point)
        )
        for start in [None] if lead is None else [lead, None]:
            self._external.restore(self._external.first if start is None else self._recording.states[start])
            watch = self._watching(trial, dies=True, follow=point is not None)
            watch.order = trial.order
            watch.aligned, watch.led = start is None, start is not None
            begun: list[str] = []
            if trial.action == "freeze":
                ending = self._freeze(watch, begun)
            elif trial.action == "twice":
                watch.trial = PlannedTrial("freeze", trial.points[:1])
                ending = self._freeze(watch, begun, PlannedTrial("freeze", trial.points[1:]))
            else:
                ending = run_to_end(self._target, self._external, watch, self._limit)
            if shortcuts is not None and start is not None:
                shortcuts.misses = 0 if watch.fired else shortcuts.misses + 1
            if watch.fired:
                break
        return watch, ending, begun

    def _crash(self, trial: PlannedTrial, point: Point, death: Death) -> tuple[Watch, Ending, list[str], int]:
        """Recover from one or two crashes, with external state only.

        :return: the observer of the last recovery, its end, the items begun before it, and those of them that
            the durability lets it repeat.
        """
        recording, run = self.courses.get(trial.order), (self._target, self._external)
        if death == "killed":
            run_and_kill(
                *run,
                KillAtPoint(self._external, PlannedTrial("crash", trial.points[:1]), order=trial.order),
                self._limit,
            )
        else:
            self._external.restore(recording.states[point.state])
        begun, price = recording.marks[: point.marks], point.unsaved
        second = trial if len(trial.points) > 1 else None
        watch = self._watching(second, deployed=True, follow=death == "restored")
        watch.order = trial.order
        if watch.following is not None:
            watch.following.whole = second is None
        ending = run_to_end(*run, watch, self._limit)
        # A recovery that ran out of time ended at a random point: no second crash is counted from it.
        if ending.kind != "endless" and not trial.order:
            self.recovered[trial] = watch.counts
        if watch.left is None:
            return watch, ending, begun, price
        # Undo the first recovery's work after the second crash: it continued only for convenience.
        self._external.restore(watch.left)
        last = self._watching(None, deployed=True, follow=death == "restored")
        ending = run_to_end(*run, last, self._limit)
        return last, ending, [*begun, *watch.marks[: watch.begun]], price + watch.price

    def _watching(
        self, trial: PlannedTrial | None, *, dies: bool = False, deployed: bool = False, follow: bool = True
    ) -> Watch:
        following = Following(self.shortcuts) if follow and self.shortcuts is not None else None
        return Watch(
            self._external, trial, BUDGET * len(self._recording.points) + BUDGET,
            boundary=type(self._target).attempt.__code__, dies=dies, deployed=deployed, following=following,
        )  # fmt: skip

    def _freeze(self, watch: Watch, begun: list[str], until: PlannedTrial | None = None) -> Ending:
        """Pause an execution, let a second one complete the job, and continue the first one.

        :param until: point where the second one pauses until the first is done; None to complete the job.
        """
        paused, go_on = Event(), Event()

        def handover() -> None:
            paused.set()
            go_on.wait()

        last: list[Ending | bool] = []

        def first() -> None:
            # One execution after the other until the point.
            while not watch.fired:
                last.append(execute(self._target, self._external, watch, self._limit))
                if last[-1] is not False or not watch.aligned:
                    break
            paused.set()

        memory = self._external.memory
        memory.restore()
        watch.handover, watch.alone = handover, False
        thread = Thread(target=first, name="frozen worker", daemon=True)
        thread.start()
        paused.wait(self._limit)
        if not watch.fired:
            thread.join(self._limit)
            return Ending("left", "did not come to that point")
        # Two executions run: work of the first one after the second one is not in the clean run.
        following, watch.following = watch.following, None
        standing_still = memory.now()  # two processes, two memories
        memory.restore()
        second = self._watching(until, deployed=True, follow=False)
        second.alone = False
        if until is not None:
            ending = self._interleave(second, thread, go_on, standing_still)
            begun += second.marks
            failed = any(isinstance(each, Ending) and each.kind == "failed" for each in last[-1:])
            if not failed or not self._target.documented or ending.kind != "completed":
                return ending
            # The first one had claimed the job, so the second one stopped; the queue runs the job again.
            again = self._watching(None, deployed=True, follow=False)
            ending = run_to_end(self._target, self._external, again, self._limit)
            begun += again.marks
            return ending
        if following is not None and not self._target.documented:
            second.following = Following(following.shortcuts, joins=True)
        ending = run_to_end(self._target, self._external, second, self._limit)
        if second.following is not None and second.following.at is not None:
            self._external.restore(self._recording.final)
        begun += second.marked
        memory.restore(standing_still)
        go_on.set()
        thread.join(self._limit)
        return Ending("endless", "continues after it was superseded") if thread.is_alive() else ending

    def _interleave(self, second: Watch, first: Thread, go_on: Event, standing_still: Values) -> Ending:
        """Pause a second execution at its point, continue the first one to its end, and then the second one."""
        met, on, endings, memory = Event(), Event(), [], self._external.memory

        def handover() -> None:
            simulated = current()
            if simulated is None or self._external.held(simulated):
                return  # the first one would wait for the second one's lock
            with self._target.versions.aside():
                met.set()
                on.wait()

        def run() -> None:
            endings.append(run_to_end(self._target, self._external, second, self._limit))
            met.set()

        second.handover = handover
        worker = Thread(target=run, name="second worker", daemon=True)
        worker.start()
        met.wait(self._limit)
        waiting = memory.now()
        memory.restore(standing_still)
        go_on.set()
        first.join(self._limit)
        memory.restore(waiting)
        on.set()
        worker.join(self._limit)
        return endings[0] if endings else Ending("endless", "continues after another execution is done")


class Unreached(UsageError):
    """Trial whose crash point the job does not reach again."""
