"""Record a job once, interrupt it at every point, and compare the external state with that of the clean run."""

from __future__ import annotations

import gc
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.explore import courses, coverage, plan, probes
from harness.explore.crash import current
from harness.explore.external_state import ExternalState
from harness.explore.findings import Finding, Verdict
from harness.explore.judging import Judge
from harness.explore.outcomes import reading
from harness.explore.planned import ACTIONS, Action, PlannedTrial, parse_trial
from harness.explore.probes import items
from harness.explore.probes.older import descriptors, older, positions, traced
from harness.explore.probes.steps import at_checkpoint
from harness.explore.processes import Ahead, Crew, Found, check, crew
from harness.explore.queued import QueuedTarget, check_queue, command_for, target_on
from harness.explore.recording import CleanRunFailed, Recording, record
from harness.explore.running import Death, Runner, Unreached
from harness.explore.shortcuts import WINDOW
from harness.explore.trials import LATE, Result, Watch
from harness.explore.versions import Versions
from harness.ledger import marking
from harness.overrides import Overrides, overriding

if TYPE_CHECKING:
    from harness.durability import Durability
    from harness.progress import Store

Progress = Callable[[int, int, str], object]
"""Callback after each trial: number of trials done, number planned so far, and name of the latest trial."""

Announce = Callable[[int, float], object]
"""Callback before the trials: number planned, and their estimated duration in seconds."""

SAMPLE = 60
"""Default maximum number of pairs, and of freezes."""
LIMIT_SECONDS = 60.0
"""Default time limit of an execution in seconds: longer than any finishing job needs on a busy machine."""
COLLECTION, WHOLE_COLLECTION = 8, 64
"""Numbers of trials after which garbage is collected: the young generations, and all generations."""


def explore(
    job: Any,
    *args: Any,
    seed: int = 0,
    outcome: Callable[..., Any] | None = None,
    only: str | None = None,
    **options: Any,
) -> Verdict:
    """Interrupt a job at every point and report whether it does everything exactly once.

    :param job: a ContinuableJob, an IterationJob, or any function that uses SQLAlchemy, Redis or SMTP.
    :param args: its arguments; ``kwargs=`` for keyword arguments.
    :param outcome: returns the value to compare with the clean run; by default all tables, mails and keys. If it takes
        an argument, the argument is a mapping of these, by name, as :class:`~harness.explore.resources.Table`.
    :param only: name of the only trial to run.
    :param options: options of :class:`Explorer`.
    """
    with Explorer(job, *args, seed=seed, outcome=outcome, **options) as explorer:
        return explorer.run(None if only is None else [parse_trial(only)])


def _check_options(actions: Sequence[Action], queue: str, redis: str | None) -> None:
    wrong = [action for action in actions if action not in ACTIONS]
    if wrong:
        raise UsageError(f"actions={wrong!r}: use {', '.join(ACTIONS)}")
    check_queue(queue, redis)


class Explorer:
    """Explorer of a job; a context manager that installs the probes and removes them.

    :param actions: actions to try, of :data:`~harness.explore.trials.ACTIONS`. :param pairs: whether to crash
        twice.
    :param sample: maximum number of trials of each kind; None for all, but :data:`SAMPLE` pairs and freezes.
    :param queue: ``inline``, or in this process, with fakeredis: ``rq`` for RQ's worker, ``celery`` for Celery's task
        on a broker in memory, ``dramatiq`` for Dramatiq's actor on its ``StubBroker``.
    :param durability: replaces the job's. :param store: replaces the job's or the explorer's.
    :param witnesses: objects that represent external state, see :class:`~harness.explore.external_state.ExternalState`.
    :param limit: seconds that an execution may last.
    :param first: stop at the first finding. :param progress: called after each trial.
    :param command: repeats a trial, with ``{trial}`` for its name.
    :param deploy: a new version of the job: executions after the interruption run this one, under the old one's name.
    :param strict: whether it is a finding that the new version refuses by name to go on, though nothing is lost.
    :param database: URL of a PostgreSQL database for tests that the job uses: all its tables are changed and restored.
    :param redis: with such a queue, URL of an empty Redis on this machine to use in place of fakeredis.
    :param shortcuts: whether a trial may end where its result is known, see :mod:`harness.explore.shortcuts`.
    :param accept: names of effects that may stay unseen, as the verdict lists them: ``process``, ``socket``, …
    :param time: seconds after which no more trials begin; None for no limit.
    :param announce: called before the first trial.
    :param processes: number of processes that run trials; None for one on each core that may be used.
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
        shortcuts: bool = True,
        database: str | None = None,
        redis: str | None = None,
        accept: Sequence[str] = (),
        time: float | None = None,
        announce: Announce | None = None,
        processes: int | None = None,
    ) -> None:
        _check_options(actions, queue, redis)
        self._processes = check(processes, outcome, queue, store)
        self._versions = versions = Versions(job, deploy)
        self._target = target_on(
            queue, versions, args, kwargs or {}, durability=durability, store=store, redis=redis
        )
        self._command = command or command_for(self._target, args, queue, durability)
        modules = [getattr(each, "__module__", "?") for each in versions.all]
        self._external = ExternalState(witnesses or {}, modules, database)
        if isinstance(self._target, QueuedTarget):
            self._external.include(self._target.places)
        self._older, self._numbers = older(), descriptors(modules)
        coverage.held_by(self._external, modules)
        self._strict, self._accepted, self._time, self._announce = strict, tuple(accept), time, announce
        self._clean_seconds = 0.0
        self._store = store
        self._several = courses.has_several(versions.all)
        self._shorten = shortcuts and not self._several
        self._runner: Runner | None = None
        self._some = SAMPLE if sample is None else sample
        self._outcome = outcome
        self._read = reading(outcome, self._external.contents)
        self._seed, self._actions, self._pairs, self._sample = seed, actions, pairs, sample
        self._durability, self._limit, self._first, self._progress = durability, limit, first, progress
        self._crew: Crew | None = None
        self._tried: set[int] = set()
        self._expected = self._since = 0
        self._stack = ExitStack()
        self.recording: Recording | None = None

    def __enter__(self) -> Explorer:
        with ExitStack() as stack:  # after an error here, logging and the garbage collector work as before
            self._prepare(stack)
            self._stack = stack.pop_all()
        return self

    def _prepare(self, stack: ExitStack) -> None:
        overrides = Overrides(
            (at_checkpoint,), self._durability, self._store, _clock, poll_seconds=0.0, delay_seconds=0.0
        )
        if isinstance(self._target, QueuedTarget):
            stack.callback(self._target.close)
        stack.callback(self._external.close)
        # A crashed process leaves objects open. That is not a mistake of the job, and each crash would log a
        # warning.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", ResourceWarning)
        # Garbage is collected between trials and at the end, without the imported objects.
        if gc.isenabled():
            stack.callback(gc.enable)
            gc.disable()
        if not gc.get_freeze_count():
            stack.callback(gc.unfreeze)
            gc.freeze()
        stack.callback(gc.collect)
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.CRITICAL)
        stack.enter_context(probes.installed())
        if self._several:
            stack.enter_context(items.probes())
        stack.enter_context(traced(self._older))
        stack.enter_context(marking(_mark))
        stack.enter_context(overriding(overrides))

    def __exit__(self, *_: object) -> None:
        try:
            self._external.restore(self._external.first)
            # Otherwise the next exploration in this process would find the data of this one.
            self._external.memory.restore()
        finally:
            self._stack.close()

    def record(self) -> Recording:
        """Run the job without an interruption and number its crash points, if not yet done.

        :raises UsageError: if it fails.
        """
        if self.recording is None:
            began = time.perf_counter()
            before = positions(self._numbers)
            self.recording = record(
                self._target, self._external, self._read, self._limit, deploys=self._versions.deploys
            )
            self._runner = Runner(
                self._target, self._external, self.recording, self._read, self._limit,
                deploys=self._versions.deploys,
            )  # fmt: skip
            for number in courses.numbers(self._seed) if self.recording.several else ():
                self._runner.courses.get(number)
            coverage.written(self._external, before, positions(self._numbers))
            self._clean_seconds = (time.perf_counter() - began) / (3 if self._versions.deploys else 2)
        return self.recording

    def run(self, trials: Sequence[PlannedTrial] | None = None) -> Verdict:
        """Run the trials, by default all, and return the verdict."""
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
            why = "not done in time" if why.startswith(LATE) else why
            verdict.findings.append(Finding(why, "none", str(failed), lines=failed.lines))
            coverage.bound(verdict, self._external, None, self._accepted)
            return verdict
        self._expected = len(trials or ())
        self._ready.shortcuts = None
        if trials is None and self._shorten:
            self._ready.shorten(WINDOW)
        unreached: list[str] = []
        try:
            for part in self._planned(verdict) if trials is None else [plan.Thinned(trials)]:
                for trial in part:
                    if not self._take(trial, self._found(trial, part.ahead), verdict):
                        unreached.append(str(trial))
                    if self._first and verdict.findings:
                        return self._completed(verdict, unreached, began)
                    if self._time is not None and time.perf_counter() - began > self._time:
                        verdict.stopped = self._time
                        return self._completed(verdict, unreached, began)
        finally:
            self._dismiss()
        if trials is not None and len(trials) == 1 and unreached:
            raise Unreached(f"{unreached[0]}: the job did not come to that point")
        return self._completed(verdict, unreached, began)

    def _completed(self, verdict: Verdict, unreached: list[str], began: float) -> Verdict:
        coverage.count(verdict, self.record(), self._tried)
        coverage.miss(self._external, unreached)
        coverage.bound(verdict, self._external, self.recording, self._accepted, whole=self._outcome is None)
        verdict.seconds = time.perf_counter() - began
        return verdict

    def names(self) -> list[str]:
        """Return the names of all trials except pairs, or of a sample of them."""
        plans = self._plans()
        return [str(trial) for action in self._actions for trial in plan.sampled(*plans[action], self._seed)]

    def result(self, trial: PlannedTrial, death: Death = "restored") -> Result:
        """Run one trial.

        :param death: kind of crash: ``restored`` starts from the external state at that point; ``simulated``
            runs to the point and crashes in this process; ``killed`` uses SIGKILL in another process.
        :raises UsageError: if the job does not reach the point.
        """
        return self._ready.result(trial, death)

    @property
    def _ready(self) -> Runner:
        self.record()
        assert self._runner is not None  # noqa: S101 - record() made it
        return self._runner

    def _planned(self, verdict: Verdict) -> Iterator[plan.Thinned]:
        """Run all trials, kind by kind; pairs come last, because they depend on the recoveries from single crashes."""
        plans = self._plans()
        sorts = [
            each for each in self._actions if plans[each][0] or each not in {"cancel", "switch", "order"}
        ]
        verdict.planned.update({action: len(plans[action][0]) for action in sorts})
        chosen = [trial for action in self._actions for trial in plan.sampled(*plans[action], self._seed)]
        self._expected = len(chosen)
        if self._announce:
            more = self._some if self._pairs and plans.get("crash", ([], 0))[0] else 0
            self._announce(len(chosen), (len(chosen) + more) * self._clean_seconds)
        if "twice" in self._actions and plans["twice"][0]:
            verdict.planned["twice"] = plan.number_of_twice(self.record())
        self._crew = crew(self._external, self.record(), self._tried_here, self._processes, len(chosen))
        for action in self._actions:
            yield plan.Thinned([each for each in chosen if each.action == action], lambda: verdict.wrong)
        if self._pairs and "crash" in self._actions:
            pairs = plan.pairs(self._ready.recovered)
            verdict.planned["pair"] = len(pairs)
            chosen = plan.sampled(pairs, self._some, self._seed)
            self._expected += len(chosen)
            yield plan.Thinned(chosen)

    def _plans(self) -> dict[Action, tuple[list[PlannedTrial], int | None]]:
        """Return the trials of each kind, and their maximum number."""
        recording = self.record()
        freezes = self._some if self._sample else plan.some(self._some, len(recording.points))
        each_of = partial(courses.in_all, recording, self._seed, self._sample)
        return {
            "switch": (courses.switches(recording), freezes),
            "order": (courses.orders(recording), None),
            "crash": each_of(plan.crashes),
            "stop": each_of(plan.stops),
            "lost-reply": each_of(plan.lost_replies),
            "cancel": each_of(plan.cancellations),
            "freeze": ([] if self._external.one_process else plan.freezes(recording), freezes),
            "twice": (
                [] if self._external.one_process else plan.twice(recording, self._sample, self._seed),
                None,
            ),
        }

    def _found(self, trial: PlannedTrial, ahead: Ahead) -> Found:
        """Run one trial, here or in another process."""
        if self._crew is not None:
            found = self._crew.get(trial, ahead)
            if found is not None:
                return found
            self._dismiss()
        return self._tried_here(trial)

    def _tried_here(self, trial: PlannedTrial) -> Found:
        """Run one trial in this process."""
        runner = self._ready
        try:
            result = runner.confirmed(trial)
        except Unreached:
            return Found(reached=False)
        self._since += 1
        if self._since % COLLECTION == 0:
            gc.collect(1 if self._since % WHOLE_COLLECTION else 2)
        judge = Judge(self._target, self.record(), self._outcome is None, self._strict, self._command)
        recovered = runner.recovered.get(trial)
        return Found(judge.finding(result), result.refused, None if recovered is None else dict(recovered))

    def _take(self, trial: PlannedTrial, found: Found, verdict: Verdict) -> bool:
        """Write the result of a trial into the verdict; return whether the job reached the crash point."""
        if not found.reached:
            return False
        second_crash = trial.action == "crash" and len(trial.points) > 1
        verdict.trials["pair" if second_crash else trial.action] += 1
        if found.finding is not None:
            verdict.findings.append(found.finding)
        if found.refused:
            verdict.refused[found.refused] += 1
        if trial.action == "crash" and not trial.order:
            self._tried.add(self.record().point(*trial.points[0]).state)
        if found.recovered is not None:
            self._ready.recovered[trial] = found.recovered
        if self._progress:
            self._progress(sum(verdict.trials.values()), self._expected, str(trial))
        return True

    def _dismiss(self) -> None:
        """End the other processes."""
        crew, self._crew = self._crew, None
        if crew is not None:
            crew.close()


def _mark(item: str) -> None:
    simulated = current()
    if simulated is not None and isinstance(simulated.observer, Watch):
        simulated.observer.mark(item)


def _clock() -> float:
    simulated = current()
    return simulated.observer.now if simulated is not None and isinstance(simulated.observer, Watch) else 0.0
