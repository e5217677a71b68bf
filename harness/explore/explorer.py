"""Record a job once, then interrupt it everywhere, and compare what it leaves outside with what the clean run left."""

from __future__ import annotations

import gc
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import HarnessError, UsageError
from harness.explore import plan, probes
from harness.explore.crash import current
from harness.explore.findings import Finding, Verdict
from harness.explore.judging import Judge
from harness.explore.killing import Suicide, run_and_kill
from harness.explore.outcomes import reading
from harness.explore.points import Point
from harness.explore.probes.steps import at_checkpoint
from harness.explore.recording import CleanRunFailed, Recording, record
from harness.explore.rq import RQTarget
from harness.explore.targets import Target, target_of
from harness.explore.trials import ACTIONS, Action, Ending, Result, Trial, Watch, execute, parse, run_to_end
from harness.explore.versions import Versions
from harness.explore.world import World
from harness.ledger import marking
from harness.overrides import Overrides, overriding

if TYPE_CHECKING:
    from harness.durability import Durability
    from harness.progress import Store

Death = Literal["restored", "simulated", "killed"]

Progress = Callable[[int, int, str], object]
"""Callback after each trial: number done, number known so far, and the name of the latest."""

SAMPLE = 60
"""Default limit of the number of pairs, and of the number of freezes, that are tried."""
LIMIT_SECONDS = 60.0
"""Limit of an execution in seconds, unless another is given: longer than a busy machine needs for a job that ends."""
QUEUES = ("inline", "rq")
COLLECTION = 8
"""After how many trials garbage is collected."""
BUDGET = 20
"""Multiple of the clean run's crash points after which an interrupted run counts as endless."""


def explore(
    job: Any,
    *args: Any,
    seed: int = 0,
    outcome: Callable[..., Any] | None = None,
    only: str | None = None,
    **options: Any,
) -> Verdict:
    """Interrupt a job everywhere and say whether it does everything exactly once.

    :param job: a ContinuableJob, an IterationJob, or any function that uses SQLAlchemy, Redis or SMTP.
    :param args: what it is enqueued with; ``kwargs=`` for those with names.
    :param outcome: returns what is compared with the clean run; by default all tables, mails and keys. If it takes
        an argument, it is given these, by name, as :class:`~harness.explore.places.Table`.
    :param only: the name of a trial: run just that one.
    :param options: what :class:`Explorer` takes.
    """
    with Explorer(job, *args, seed=seed, outcome=outcome, **options) as explorer:
        return explorer.run(None if only is None else [parse(only)])


class Explorer:
    """Explorer of a job; a context manager that installs the probes and removes them.

    :param actions: what to try, of :data:`~harness.explore.trials.ACTIONS`. :param pairs: whether to crash twice.
    :param sample: how many trials of each sort at most; None for all, but :data:`SAMPLE` pairs and freezes.
    :param queue: ``inline``, or ``rq`` for RQ's worker in this process, with fakeredis.
    :param durability: in place of the job's own. :param store: in place of the job's, or of the explorer's.
    :param witnesses: objects outside, see :class:`~harness.explore.world.World`.
    :param limit: seconds that an execution may last.
    :param first: stop at the first finding. :param progress: called after each trial.
    :param command: repeats a trial, with ``{trial}`` for its name.
    :param deploy: a new version of the job: executions after the interruption run this one, under the old one's name.
    :param strict: whether it is a finding that the new version refuses by name to go on, though nothing is lost.
    """

    def __init__(
        self,
        job: Any,
        *args: Any,
        kwargs: dict[str, Any] | None = None,
        seed: int = 0,
        outcome: Callable[..., Any] | None = None,
        actions: Sequence[Action] = ACTIONS,
        pairs: bool = True,
        sample: int | None = None,
        durability: Durability | None = None,
        store: Store | None = None,
        queue: str = "inline",
        witnesses: Mapping[str, Any] | None = None,
        limit: float = LIMIT_SECONDS,
        first: bool = False,
        progress: Progress | None = None,
        command: str | None = None,
        deploy: Any = None,
        strict: bool = False,
    ) -> None:
        wrong = [action for action in actions if action not in ACTIONS]
        if wrong:
            raise UsageError(f"actions={wrong!r}: allowed are {', '.join(ACTIONS)}")
        if queue not in QUEUES:
            raise UsageError(f"queue={queue!r}: allowed are {', '.join(QUEUES)}")
        self._versions = versions = Versions(job, deploy)
        self._target: Target = (
            RQTarget(versions, args, kwargs or {})
            if queue == "rq"
            else target_of(versions, args, kwargs or {}, durability, store)
        )
        modules = [getattr(each, "__module__", "?") for each in versions.all]
        self._world = World(witnesses or {}, modules)
        shown = "".join(f" {json.dumps(each, default=repr)!r}" for each in args)
        asked = f" --durability '{durability}'" if durability else ""
        asked += f" --deploy {versions.name}" if versions.deploys else ""
        self._command = command or f"harness explore {self._target.name}{shown}{asked} --trial {{trial}}"
        self._strict = strict
        self._store = store
        self._some = SAMPLE if sample is None else sample
        self._outcome = outcome
        self._read = reading(outcome, self._world.contents)
        self._seed, self._actions, self._pairs, self._sample = seed, actions, pairs, sample
        self._durability, self._limit, self._first, self._progress = durability, limit, first, progress
        self._recovered: dict[Trial, Mapping[str, int]] = {}
        self._tried: set[int] = set()
        self._expected = 0
        self._stack = ExitStack()
        self.recording: Recording | None = None

    def __enter__(self) -> Explorer:
        overrides = Overrides(
            (at_checkpoint,), self._durability, self._store, _clock, poll_seconds=0.0, delay_seconds=0.0
        )
        self._stack.callback(self._world.close)
        # A crashed process leaves objects open through no fault of the job, and each crash would log a warning.
        self._stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", ResourceWarning)
        self._stack.callback(gc.collect)
        # Garbage is collected between trials, and not among everything that was imported, again and again.
        if gc.isenabled():
            self._stack.callback(gc.enable)
            gc.disable()
        if not gc.get_freeze_count():
            self._stack.callback(gc.unfreeze)
            gc.freeze()
        self._stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.CRITICAL)
        self._stack.enter_context(probes.installed())
        self._stack.enter_context(marking(_mark))
        self._stack.enter_context(overriding(overrides))
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._world.restore(self._world.first)
        finally:
            self._stack.close()

    def record(self) -> Recording:
        """Run the job cleanly and number its crash points, unless that was done.

        :raises UsageError: if it does not end well.
        """
        if self.recording is None:
            self.recording = record(
                self._target, self._world, self._read, self._limit, deploys=self._versions.deploys
            )
        return self.recording

    def run(self, trials: Sequence[Trial] | None = None) -> Verdict:
        """Run the trials, by default all that there are, and return the verdict."""
        began = time.perf_counter()
        verdict = Verdict(self._target.name, self._seed)
        verdict.deploy = self._versions.name if self._versions.deploys else None
        try:
            reference = self.record().reference
            verdict.unseen, verdict.ignored = reference.unseen, reference.ignored
        except CleanRunFailed as failed:
            if failed.__cause__ is not None:
                raise
            why = "never finishes" if failed.why == "never ends" else failed.why
            verdict.findings.append(Finding(why, "none", str(failed), lines=failed.lines))
            return verdict
        self._expected = len(trials or ())
        for trial in self._planned(verdict) if trials is None else trials:
            self._try(trial, verdict)
            if self._first and verdict.findings:
                break
        self._cover(verdict)
        verdict.seconds = time.perf_counter() - began
        return verdict

    def names(self) -> list[str]:
        """Return the names of all trials but pairs, or of a sample of them."""
        plans = self._plans()
        return [str(trial) for action in self._actions for trial in plan.sampled(*plans[action], self._seed)]

    def result(self, trial: Trial, death: Death = "restored") -> Result:
        """Run one trial.

        :param death: how a crash comes about: ``restored`` begins with what was outside then, which is all that a death
            leaves; ``simulated`` runs to the point and dies in this process; ``killed`` in another one, by SIGKILL.
        :raises UsageError: if the job does not come to the point.
        """
        recording = self.record()
        point = recording.point(*trial.points[0])
        if trial.action != "crash" or death != "restored":
            self._world.restore(self._world.first)
        if trial.action == "crash" and death != "simulated":
            watch, ending, begun, price = self._crash(trial, point, death)
        else:
            watch, begun, price = self._watching(trial, dies=True), [], 0
            if trial.action == "freeze":
                ending = self._freeze(watch, begun)
            else:
                ending = run_to_end(self._target, self._world, watch, self._limit)
        if watch.trial is not None and not watch.fired and ending.kind != "endless":
            raise UsageError(f"{trial}: the job did not come to that point")
        refused = None
        if self._versions.deploys and ending.kind == "failed" and isinstance(ending.error, HarnessError):
            # Kept progress has a value only if the old version, deployed again, can resume with it.
            refused, begun = ending.why, [*begun, *watch.marks]
            back = self._watching(None)
            ending = run_to_end(self._target, self._world, back, self._limit)
            back.price, back.then, watch = watch.price, watch.then, back
        marks = [*begun, *watch.marks]
        repeated = len(marks) - len(set(marks)) - (len(recording.marks) - len(set(recording.marks)))
        differences = recording.reference.differences(self._read()) if ending.kind == "completed" else []
        return Result(trial, ending, differences, max(0, repeated), price + watch.price, watch.then, refused)

    def _crash(self, trial: Trial, point: Point, death: Death) -> tuple[Watch, Ending, list[str], int]:
        """Recover from a crash, or from two; nothing but the outside outlives one.

        :return: the watch over the last recovery, how it ended, the items begun before it, and what of these durability
            lets it repeat.
        """
        recording, run = self.record(), (self._target, self._world)
        if death == "killed":
            run_and_kill(*run, Suicide(self._world, Trial("crash", trial.points[:1])), self._limit)
        else:
            self._world.restore(recording.states[point.state])
        begun, price = recording.marks[: point.marks], point.unsaved
        watch = self._watching(trial if len(trial.points) > 1 else None, deployed=True)
        ending = run_to_end(*run, watch, self._limit)
        if (
            ending.kind != "endless"
        ):  # where its time ended a recovery is by chance: no second crash is counted from it
            self._recovered[trial] = watch.counts
        if watch.left is None:
            return watch, ending, begun, price
        # What the first recovery did after the second crash is undone: that it went on there was for convenience.
        self._world.restore(watch.left)
        last = self._watching(None, deployed=True)
        ending = run_to_end(*run, last, self._limit)
        return last, ending, [*begun, *watch.marks[: watch.begun]], price + watch.price

    def _watching(self, trial: Trial | None, *, dies: bool = False, deployed: bool = False) -> Watch:
        assert self.recording is not None  # noqa: S101 - result() has recorded
        budget = BUDGET * len(self.recording.points) + BUDGET
        boundary = type(self._target).attempt.__code__
        return Watch(self._world, trial, budget, boundary=boundary, dies=dies, deployed=deployed)

    def _freeze(self, watch: Watch, begun: list[str]) -> Ending:
        """Let an execution stand still, a second one complete the job, and the first one go on."""
        paused, go_on = Event(), Event()

        def handover() -> None:
            paused.set()
            go_on.wait()

        def first() -> None:
            # One execution after the other until the point; the result of the last one is not used.
            while not watch.fired and execute(self._target, self._world, watch, self._limit) is False:
                pass
            paused.set()

        memory = self._world.memory
        memory.restore()
        watch.handover, watch.alone = handover, False
        thread = Thread(target=first, name="frozen worker", daemon=True)
        thread.start()
        paused.wait(self._limit)
        standing_still = memory.now()  # two processes, two memories
        memory.restore()
        second = self._watching(None, deployed=True)
        second.alone = False
        ending = run_to_end(self._target, self._world, second, self._limit)
        begun += second.marks
        memory.restore(standing_still)
        go_on.set()
        thread.join(self._limit)
        return Ending("endless", "goes on after it was superseded") if thread.is_alive() else ending

    def _planned(self, verdict: Verdict) -> Iterator[Trial]:
        """Go through all trials; pairs come last, made of what the single crashes showed."""
        plans = self._plans()
        verdict.planned.update({action: len(plans[action][0]) for action in self._actions})
        chosen = [trial for action in self._actions for trial in plan.sampled(*plans[action], self._seed)]
        self._expected = len(chosen)
        yield from chosen
        if self._pairs and "crash" in self._actions:
            pairs = plan.pairs(self._recovered)
            verdict.planned["pair"] = len(pairs)
            chosen = plan.sampled(pairs, self._some, self._seed)
            self._expected += len(chosen)
            yield from chosen

    def _plans(self) -> dict[Action, tuple[list[Trial], int | None]]:
        """Return the trials of each sort, and how many of them at most."""
        recording = self.record()
        return {
            "crash": (plan.crashes(recording), self._sample),
            "stop": (plan.stops(recording), self._sample),
            "lost-reply": (plan.lost_replies(recording), self._sample),
            "freeze": ([] if self._world.one_process else plan.freezes(recording), self._some),
        }

    def _try(self, trial: Trial, verdict: Verdict) -> None:
        result = self.result(trial)
        if not sum(verdict.trials.values()) % COLLECTION:
            gc.collect()
        verdict.trials["pair" if len(trial.points) > 1 else trial.action] += 1
        judge = Judge(self._target, self.record(), self._outcome is None, self._strict, self._command)
        finding = judge.finding(result)
        if finding is not None:
            verdict.findings.append(finding)
        if result.refused:
            verdict.refused[result.refused] += 1
        if trial.action == "crash":
            self._tried.add(self.record().point(*trial.points[0]).state)
        if self._progress:
            self._progress(sum(verdict.trials.values()), self._expected, str(trial))

    def _cover(self, verdict: Verdict) -> None:
        recording = self.record()
        verdict.points, verdict.states = len(recording.points), len(recording.states)
        verdict.tried = len(self._tried)
        lines = {(point.lines[-1], point.state in self._tried) for point in recording.points if point.lines}
        verdict.all_lines = len({line for line, _ in lines})
        verdict.lines = len({line for line, tried in lines if tried})


def _mark(item: str) -> None:
    life = current()
    if life is not None and isinstance(life.observer, Watch):
        life.observer.mark(item)


def _clock() -> float:
    life = current()
    return life.observer.now if life is not None and isinstance(life.observer, Watch) else 0.0
