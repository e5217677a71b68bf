"""Base of trials: a job in a queue, its attempts, and their record."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeGuard

from harness.errors import NothingInterrupted
from harness.job import Job
from harness.scenario import Effects, Scenario

if TYPE_CHECKING:
    from harness.durability import Durability
    from harness.interruptions import Interruption
    from harness.lab.backends import Backend
    from harness.lab.mailbox import Mailbox

POINTS = 40
"""Number of points of an execution's progress that a record keeps."""


@dataclass
class Attempt:
    """Execution in a trial; times are seconds of one monotonic clock.

    :ivar requested: time of the stop request or kill. :ivar stopped: time of the worker's exit, if it was
        asked to stop. :ivar marks: start times of its items.
    """

    start: float
    end: float = 0.0
    ended: str = "completed"
    reason: str | None = None
    requested: float | None = None
    stopped: float | None = None
    marks: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Settings:
    """Subject of a trial, without its interruption.

    :ivar form: form of the scenario. :ivar durability: replaces the job's own. :ivar queue: ``rq``,
        ``celery`` or ``dramatiq``. :ivar broker: ``fakeredis``, ``redis`` or ``rabbitmq``. :ivar database:
        name of the database's dialect, for the record. :ivar pace: duration of the work on an item, in
        seconds.
    """

    scenario: Scenario
    form: str
    durability: Durability | None
    queue: str
    broker: str
    database: str
    pace: float


class Trial:
    """One run of a job with its interruptions and resumes; base of embedded and real trials.

    :param backend: the queue with the job.
    """

    def __init__(self, settings: Settings, backend: Backend, mailbox: Mailbox) -> None:
        self.settings = settings
        self.items = settings.scenario.count()
        self._mailbox = mailbox
        self._backend = backend
        self._attempts: list[Attempt] = []
        self._marked: list[str] = []
        self._bytes: int | None = None

    @property
    def job_id(self) -> str:
        """The id of the job in its queue."""
        return self._backend.job_id

    @property
    def plain(self) -> bool:
        """True if the job is the control, which has no checkpoints."""
        return self.settings.form == "plain"

    def run(self, interruption: Interruption) -> dict[str, Any]:
        """Run the job to its end, with the interruption, and return the record.

        :raises NothingInterrupted: if the interruption never happened; the trial then shows nothing.
        """
        fired = self._run(interruption)
        # A plain job does not notice that its worker was killed, nor do processes of other queues: they continue.
        goes_on = self.plain or self.settings.queue != "rq"
        alone = (goes_on and interruption.by == "kill:worker") or self._backend.status() != "completed"
        if interruption.where is not None and not (fired and (alone or len(self._attempts) > 1)):
            last = self._attempts[-1] if self._attempts else Attempt(0.0)
            why = f"it failed: {last.reason}" if last.ended == "failed" else "choose an earlier point"
            if fired and self.plain and interruption.by in {"stop", "flag"}:
                why = "a plain job in its own process cannot be asked to stop: use a kill or a signal"
            raise NothingInterrupted(
                f"{self.settings.scenario.name} as {self.settings.form} was not interrupted by "
                f"{interruption.name}: it did {len(self._marked)} items and did not reach that point; {why}"
            )
        return self._record(interruption)

    def so_far(self) -> list[Attempt]:
        """Return the known executions; other threads may call it while the trial runs."""
        return list(self._attempts)

    def _run(self, interruption: Interruption) -> bool:
        """Run the job to its end and record the attempts; return whether the interruption happened."""
        raise NotImplementedError

    def _record(self, interruption: Interruption) -> dict[str, Any]:
        settings, effects = self.settings, self.settings.scenario.judge(self._mailbox)
        completed = self._backend.status() == "completed"
        attempts = self._attempts or [Attempt(0.0)]
        start = attempts[0].start
        job = settings.scenario.forms[settings.form]
        durability = settings.durability or job.durability if is_job(job) else "none"
        return {
            "scenario": settings.scenario.name,
            "pattern": settings.form,
            "interruption": interruption.name,
            "durability": str(durability),
            "queue": settings.queue,
            "broker": settings.broker,
            "database": settings.database,
            "completed": completed,
            "executions": len(self._attempts),
            "items": self.items,
            "lost": effects.lost,
            "duplicated": effects.duplicated,
            "duplicated_by_key": effects.duplicated_by_key,
            "repeated": len(self._marked) - len(set(self._marked)),
            "stop_latency_s": _largest(
                [
                    (a.stopped or a.end) - a.requested
                    for a in attempts
                    if a.requested and not interruption.kills
                ]
            ),
            "resume_latency_s": _largest([b.marks[0] - a.end for a, b in pairwise(attempts) if b.marks]),
            "elapsed_s": round(max(attempt.end for attempt in attempts) - start, 6),
            "progress_bytes": self._bytes,
            "verdict": _verdict(completed, effects),
            "checks": dict(effects.checks),
            "timeline": {"executions": [_timeline(attempt, start) for attempt in attempts]},
            "module": getattr(job, "__module__", None),
        }


class PlainPosition:
    """Position of a job without checkpoints, from its marks."""

    job, step, cursor, completed = None, None, None, ()

    def __init__(self, job_id: str, total: int) -> None:
        self.job_id, self.run_id, self.total, self.items, self.done = job_id, job_id, total, 0, 0

    def mark(self) -> None:
        """Count an item."""
        self.items += 1
        self.done += 1


def is_job(form: Any) -> TypeGuard[type[Job]]:
    """Return whether a form has checkpoints."""
    return isinstance(form, type) and issubclass(form, Job)


def _verdict(completed: bool, effects: Effects) -> str:
    if not completed:
        return "never finished"
    if effects.lost:
        return "lost"
    if effects.duplicated:
        return "duplicated"
    return "exactly once" if all(effects.checks.values()) else "wrong total"


def _timeline(attempt: Attempt, start: float) -> dict[str, Any]:
    step = max(1, -(-len(attempt.marks) // POINTS))
    chosen = sorted({*range(0, len(attempt.marks), step), len(attempt.marks) - 1} - {-1})
    return {
        "start_s": round(attempt.start - start, 4),
        "end_s": round(attempt.end - start, 4),
        "ended": attempt.ended,
        "reason": attempt.reason,
        "items": [[round(attempt.marks[index] - start, 4), index + 1] for index in chosen],
    }


def _largest(values: list[float]) -> float | None:
    # An orphan may still run when its successor starts; then the job did not stop.
    return round(max(0.0, *values), 6) if values else None
