"""A broker, a database and a mailbox of its own, and trials that interrupt jobs in it.

The broker is fakeredis and the worker a real RQ worker class, both in this process; the database is a file of
SQLite unless another is given; mail goes over SMTP on loopback. Jobs find the database and the mail server in the
environment variables ``HARNESS_DATABASE_URL`` and ``HARNESS_SMTP``.

A job with checkpoints is stopped politely. The plain form has none: where a stop is asked of it, the lab cuts it off
as the end of a grace period would, and RQ's ``Retry`` starts it again from its first item.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import fakeredis
import sqlalchemy
from rq import Queue, Retry
from rq.job import JobStatus

from harness import events
from harness.errors import NothingInterrupted, UsageError
from harness.interruptions import Interruption
from harness.job import Job
from harness.ledger import marking
from harness.mailbox import Mailbox
from harness.overrides import Overrides, overriding
from harness.queues import rq
from harness.scenario import FORMS, Effects, Scenario

if TYPE_CHECKING:
    from rq.job import Job as RQJob

    from harness.durability import Durability
    from harness.progress import Position, StopSource

RETRIES = 3
"""How often RQ starts the plain form again."""
MAX_EXECUTIONS = 2_000
"""More than any trial should need; a job that is still not done then never will be."""
NOMINAL_SECONDS = 0.02
"""How long the work on an item is taken to last where no pace is given: time then is counted, not waited for."""
POINTS = 40
"""How many points of an execution's progress a record keeps."""


class Lab:
    """Runs trials, one at a time, and leaves nothing behind; a context manager.

    :param directory: an existing folder for database files.
    :param size: the size of the data.
    :param pace: seconds that the work on an item lasts. 0 waits for nothing; triggers by time then count
        :data:`NOMINAL_SECONDS` an item.
    :param database: URL of an empty database to use in place of SQLite files.
    """

    def __init__(
        self, directory: Path, *, size: str = "quick", pace: float = 0.0, database: str | None = None
    ) -> None:
        if not 0 <= pace < float("inf"):
            raise UsageError(f"found a pace of {pace!r}, allowed are seconds of 0 or more")
        self.directory, self.size, self.pace, self.database = directory, size, pace, database
        if database is not None:
            _check_reachable(database)
        self._templates: dict[str, Path] = {}
        self.mailbox = Mailbox()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.mailbox.stop()

    @contextmanager
    def prepared(
        self, scenario: Scenario, form: str, durability: Durability | None = None
    ) -> Iterator[Trial]:
        """Set up fresh data, a fresh broker and an empty mailbox for one trial, and remove them afterwards."""
        if form not in scenario.forms:
            raise UsageError(f"scenario {scenario.name} has no form {form!r}, allowed are {', '.join(FORMS)}")
        with ExitStack() as stack:
            url = stack.enter_context(self._database(scenario))
            self.mailbox.empty()
            stack.enter_context(_environment(HARNESS_DATABASE_URL=url, HARNESS_SMTP=self.mailbox.address))
            stack.callback(scenario.close)
            if self.database is not None:
                stack.callback(scenario.clear)
                scenario.seed(self.size)
            yield Trial(self, scenario, form, durability)

    def run(
        self, scenario: Scenario, form: str, interruption: Interruption, durability: Durability | None = None
    ) -> dict[str, Any]:
        """Run one trial to its end and return its record.

        :raises NothingInterrupted: if the interruption never came; the trial has then shown nothing.
        """
        with self.prepared(scenario, form, durability) as trial:
            return trial.run(interruption)

    @contextmanager
    def _database(self, scenario: Scenario) -> Iterator[str]:
        if self.database is not None:
            yield self.database
            return
        template = self._templates.get(scenario.name) or self._seeded(scenario)
        path = self.directory / f"{scenario.name}-trial.db"
        shutil.copyfile(template, path)
        try:
            yield f"sqlite:///{path}"
        finally:
            for each in self.directory.glob(f"{path.name}*"):  # with SQLite's own files beside it
                each.unlink()

    def _seeded(self, scenario: Scenario) -> Path:
        path = self.directory / f"{scenario.name}-seeded.db"
        with _environment(HARNESS_DATABASE_URL=f"sqlite:///{path}"):
            try:
                scenario.seed(self.size)
            finally:
                scenario.close()
        self._templates[scenario.name] = path
        return path


class CutOff(BaseException):
    """Ends a plain job where it is, as SIGKILL does at the end of a grace period."""


@dataclass
class _Attempt:
    """An execution as the lab sees it; times are seconds of ``time.perf_counter``."""

    start: float
    end: float = 0.0
    ended: str = "completed"
    reason: str | None = None
    requested: float | None = None
    marks: list[float] = field(default_factory=list)


class _PlainPosition:
    """Where a job without checkpoints is, as far as its marks tell."""

    step, cursor, completed = None, None, ()

    def __init__(self, job_id: str, total: int) -> None:
        self.job_id, self.total, self.items, self.done = job_id, total, 0, 0


class Trial:
    """One run of a job with its interruptions and resumes; made by :meth:`Lab.prepared`."""

    def __init__(self, lab: Lab, scenario: Scenario, form: str, durability: Durability | None) -> None:
        self._lab, self._scenario, self._form, self._durability = lab, scenario, form, durability
        self.items = scenario.count()
        self._server = fakeredis.FakeServer()
        self._connection = fakeredis.FakeRedis(server=self._server)
        self._queue = Queue("trials", connection=self._connection, serializer="json")
        self._job = self._enqueued()
        self._now = 0.0
        self._attempts: list[_Attempt] = []
        self._marked: list[str] = []
        self._bytes: int | None = None
        self._position: Any = _PlainPosition(self._job.id, self.items)
        self._trigger: Callable[[Any], object] = lambda _: None

    def run(self, interruption: Interruption) -> dict[str, Any]:
        """Run the job to its end, interrupted as told, and return the record."""
        trigger = interruption.where(self.items, self._clock) if interruption.where else None
        sources: list[StopSource] = []
        if trigger is not None:
            self._trigger = self._armed(trigger, interruption)
            if self._form != "plain":
                sources.append(self._trigger)
        overrides = Overrides(tuple(sources), self._durability, clock=self._clock, poll_seconds=0.0)
        with _quiet(), events.subscribe(self._notice), marking(self._mark), overriding(overrides):
            self._work()
        if trigger is not None and not (trigger.fired and len(self._attempts) > 1):
            last = self._attempts[-1]
            why = f"it failed: {last.reason}" if last.ended == "failed" else "choose an earlier place"
            raise NothingInterrupted(
                f"{self._scenario.name} as {self._form} was not interrupted by {interruption.name}: it went through "
                f"{len(self._marked)} items without meeting it; {why}"
            )
        return self._record(interruption)

    # What happens while it runs.

    def _enqueued(self) -> RQJob:
        job = self._scenario.forms[self._form]
        if self._form == "plain":
            return self._queue.enqueue_call(job, args=(self._scenario.arguments(),), retry=Retry(max=RETRIES))
        return rq.enqueue(self._queue, job)

    def _clock(self) -> float:
        return time.monotonic() if self._lab.pace else self._now

    def _work(self) -> None:
        while len(self._attempts) < MAX_EXECUTIONS:
            self._attempts.append(_Attempt(time.perf_counter()))
            self._position.items = 0
            worker = rq.InProcessWorker([self._queue], connection=self._connection)
            worker.log_job_description = False
            worker.work(burst=True, max_jobs=1)
            self._attempts[-1].end = time.perf_counter()
            status = self._job.get_status()
            if status in {JobStatus.FINISHED, JobStatus.FAILED}:
                return
            if status == JobStatus.SCHEDULED:  # a delay is not waited for
                self._queue.scheduled_job_registry.remove(self._job)
                self._queue._enqueue_job(self._job)  # noqa: SLF001 - as RQ's scheduler does
        # The record says that it never finished.

    def _mark(self, item: str) -> None:
        if self._form == "plain" and self._trigger(self._position):
            self._attempts[-1].ended = "cut off"
            raise CutOff
        self._attempts[-1].marks.append(time.perf_counter())
        self._marked.append(item)
        self._position.items += 1
        self._position.done += 1
        self._now += NOMINAL_SECONDS
        if self._lab.pace:
            time.sleep(self._lab.pace)

    def _armed(self, trigger: Any, interruption: Interruption) -> Callable[[Position], str | None]:
        """Return a stop source that does at the trigger's place what the interruption is."""

        def source(at: Position) -> str | None:
            reason: str | None = trigger(at)
            if reason is None:
                return None
            attempt = self._attempts[-1]
            attempt.requested, attempt.reason = time.perf_counter(), interruption.name
            if interruption.by == "stop":
                return reason
            if interruption.by == "flag":  # through Redis, on a connection of somebody else's
                with fakeredis.FakeRedis(server=self._server) as outside:
                    rq.request_stop(outside, at.job_id, "flag")
            else:
                os.kill(os.getpid(), int(interruption.by))
            return reason if self._form == "plain" else None

        return source

    def _notice(self, event: events.Event) -> None:
        attempt = self._attempts[-1]
        if isinstance(event, events.JobInterrupted):
            attempt.ended = "interrupted"
            attempt.reason = attempt.reason or event.reason
        elif isinstance(event, events.JobFailed):
            attempt.ended, attempt.reason = "failed", f"{type(event.error).__name__}: {event.error}"
        elif isinstance(event, events.ProgressSaved):
            self._bytes = max(self._bytes or 0, event.size_bytes)

    # What is made of it afterwards.

    def _record(self, interruption: Interruption) -> dict[str, Any]:
        effects = self._scenario.judge(self._lab.mailbox)
        completed = self._job.get_status() == JobStatus.FINISHED
        attempts, start = self._attempts, self._attempts[0].start
        job = self._scenario.forms[self._form]
        durability = self._durability or (job.durability if _is_job(job) else "none")
        return {
            "scenario": self._scenario.name,
            "pattern": self._form,
            "interruption": interruption.name,
            "durability": str(durability),
            "broker": "fakeredis",
            "database": _backend(self._lab.database),
            "completed": completed,
            "executions": len(attempts),
            "items": self.items,
            "lost": effects.lost,
            "duplicated": effects.duplicated,
            "repeated": len(self._marked) - len(set(self._marked)),
            "stop_latency_s": _largest([a.end - a.requested for a in attempts if a.requested is not None]),
            "resume_latency_s": _largest([b.marks[0] - a.end for a, b in pairwise(attempts) if b.marks]),
            "elapsed_s": round(attempts[-1].end - start, 6),
            "progress_bytes": self._bytes,
            "verdict": _verdict(completed, effects),
            "checks": dict(effects.checks),
            "timeline": {"executions": [_timeline(attempt, start) for attempt in attempts]},
        }


def environment(size: str, pace: float, packages: Sequence[str]) -> dict[str, Any]:
    """Return what a comparison says about where its figures were taken; neither host nor path."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count() or 1,
        "packages": {name: version(name) for name in packages},
        "size": size,
        "pace_s": pace,
        "generated": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _is_job(form: Any) -> TypeGuard[type[Job]]:
    return isinstance(form, type) and issubclass(form, Job)


def _verdict(completed: bool, effects: Effects) -> str:
    if not completed:
        return "never finished"
    if effects.lost:
        return "lost"
    if effects.duplicated:
        return "duplicated"
    return "exactly once" if all(effects.checks.values()) else "wrong total"


def _timeline(attempt: _Attempt, start: float) -> dict[str, Any]:
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
    return round(max(values), 6) if values else None


def _backend(database: str | None) -> str:
    return "sqlite" if database is None else sqlalchemy.make_url(database).get_backend_name()


def _check_reachable(database: str) -> None:
    """Refuse a URL that nobody answers at, or where there are tables that the lab would have to share."""
    try:
        url = sqlalchemy.make_url(database)
        shown = url.render_as_string(hide_password=True)
        engine = sqlalchemy.create_engine(url)
    except (sqlalchemy.exc.ArgumentError, ImportError) as error:
        raise UsageError(f"the database URL cannot be used: {_first_line(error)}") from None
    try:
        tables = sqlalchemy.inspect(engine).get_table_names()
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise UsageError(f"the database {shown} cannot be reached: {_first_line(error)}") from None
    finally:
        engine.dispose()
    if tables:
        raise UsageError(
            f"the database {shown} has tables already ({', '.join(tables[:3])}, …); allowed is an empty one, "
            "because trials drop what they make"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep RQ's log, which shows every cut-off as a traceback, out of the terminal."""
    loggers = [logging.getLogger(name) for name in ("rq.worker", "rq.job")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    handler = logging.NullHandler()  # also keeps RQ from adding one that writes to the terminal
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.level, logger.propagate = level, propagate
