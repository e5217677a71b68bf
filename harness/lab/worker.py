"""Program of a trial's worker process; the lab's fork server starts it, and it ends with the lab.

It is this package's RQ worker, which forks a work horse for each job. The horse checks the trial's trigger at the start
of each item. The interruption happens there: it kills the horse, its worker, or both, or sends the worker the signal. A
plain job does not stop at a signal, so the end of the grace period follows immediately.

The programs of Celery and Dramatiq share all but the worker. There a process of the pool is the horse.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import redis
import sqlalchemy
from rq import Queue

from harness import durability, events
from harness.interruptions import Interruption, parse_interruption
from harness.lab.journal import Journal
from harness.lab.parent_pipe import obey
from harness.lab.trial import PlainPosition
from harness.ledger import marking
from harness.overrides import Overrides, overriding
from harness.queues import requests, rq
from harness.queues.keys import PREFIX
from harness.queues.rq import leases
from harness.stores.sql import SqlStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from rq.executions import Execution as RQExecution
    from rq.job import Job as RQJob

    from harness.progress import Position, StopSource, Store

CONFIG = "HARNESS_TRIAL"
"""Environment variable with the :class:`Config`: all users can read the command line, which would show its URLs."""

PRELOAD = "HARNESS_LAB_PRELOAD"
"""Environment variable with a module that workers import before they fork, like an application."""

FIRED = f"{PREFIX}lab:fired"
"""Key that records that the interruption happened; it outlives the killed processes."""

LOOK_SECONDS = 0.001
"""Interval between two checks whether a killed worker has ended."""

DEATH_SECONDS = 1.0
"""Duration of the item in which the main process of Celery or Dramatiq is killed."""


@dataclass(frozen=True)
class Config:
    """Arguments of a worker process: names and numbers only."""

    broker: str
    redis: str
    queue: str
    journal: str
    interruption: str
    items: int
    plain: bool
    pace: float
    durability: str | None
    store: str | None

    def to_json(self) -> str:
        """Return its form in the environment."""
        return json.dumps(asdict(self))


class TrialWorker(rq.Worker):
    """Records the start and the end of executions."""

    journal: Journal

    def perform_job(self, job: RQJob, queue: Queue, execution: RQExecution) -> bool:
        """Run the job, in the work horse."""
        obey()
        self.journal.write("start")
        try:
            return super().perform_job(job, queue, execution)
        finally:
            self.journal.write("end")


class Interrupter:
    """Interruption of a trial, in the process where it happens.

    :ivar heard: called after a job's worker got a signal; returns when the job can know it. The item in progress lasts
        until then.
    """

    heard: Callable[[], object] | None = None

    def __init__(self, config: Config, connection: redis.Redis, journal: Journal) -> None:
        self._interruption: Interruption = parse_interruption(config.interruption)
        self._config, self._connection, self._journal = config, connection, journal
        self._position = PlainPosition("", config.items)
        self._worker = os.getpid()  # this is created before any work horse
        where = self._interruption.where
        self._trigger: Any = where(config.items, time.monotonic) if where else None

    @property
    def sources(self) -> list[StopSource]:
        """Stop sources for checkpoints; none for an interruption by a signal or a kill."""
        polite = self._interruption.by in {"stop", "flag"} and self._trigger is not None
        return [self._ask] if polite and not self._config.plain else []

    def mark(self, item: str) -> None:
        """Record the start of an item, or interrupt it."""
        if self._trigger is not None and not self.sources and self._first(self._trigger(self._position)):
            self._strike()
        self._journal.write("mark", item=item)
        self._position.mark()
        if self._config.pace:
            time.sleep(self._config.pace)

    def _ask(self, at: Position) -> str | None:
        reason: str | None = self._trigger(at)
        if not self._first(reason):
            return None
        if self._interruption.by == "flag":
            requests.request_stop(self._connection, at.job_id, "flag")
            return None
        return reason

    def _first(self, reason: str | None) -> bool:
        """Return whether to interrupt now; an interruption that happens once happens only in the first process."""
        if not reason:
            return False
        if not self._interruption.repeats and not self._connection.set(FIRED, "1", nx=True):
            return False
        self._journal.write("fire", reason=self._interruption.name)
        return True

    def _strike(self) -> None:
        by, plain = self._interruption.by, self._config.plain
        signalled = isinstance(by, signal.Signals)
        if os.getppid() == self._worker:  # not the process that adopted an orphan
            if isinstance(by, signal.Signals):
                os.kill(self._worker, by)
            if by in {"kill:worker", "kill:both"} or (plain and signalled):
                os.kill(self._worker, signal.SIGKILL)
        if by in {"kill:horse", "kill:both"} or (plain and signalled):
            os.kill(os.getpid(), signal.SIGKILL)
        if signalled and self.heard is not None:
            self.heard()
        if by == "kill:worker" and not plain:
            _outlast_worker()


def _outlast_worker() -> None:
    """Extend the item in progress until the job knows that its worker was killed, like an item with real work."""
    lease = leases.current
    if lease is None:  # Celery's or Dramatiq's
        time.sleep(DEATH_SECONDS)
        return
    while not lease.orphaned():
        time.sleep(LOOK_SECONDS)


def notice(journal: Journal) -> Any:
    """Return the subscriber that records how executions end."""

    def subscriber(event: events.Event) -> None:
        if isinstance(event, events.JobInterrupted):
            journal.write("outcome", ended="interrupted", reason=event.reason)
        elif isinstance(event, events.JobFailed):
            journal.write("outcome", ended="failed", reason=f"{type(event.error).__name__}: {event.error}")
        elif isinstance(event, events.ProgressSaved):
            journal.write("saved", bytes=event.size_bytes)

    return subscriber


@dataclass(frozen=True)
class Working:
    """View of a trial in its worker's process."""

    config: Config
    journal: Journal
    connection: redis.Redis
    interrupter: Interrupter


@contextmanager
def working() -> Iterator[Working]:
    """Read the trial from the environment, and apply its interruption and its settings to all jobs in the block."""
    config = Config(**json.loads(os.environ.pop(CONFIG)))
    journal = Journal(config.journal)
    connection = redis.Redis.from_url(config.redis)
    if os.environ.get(PRELOAD):
        importlib.import_module(os.environ[PRELOAD])
    interrupter = Interrupter(config, connection, journal)
    store: Store | None = SqlStore(sqlalchemy.create_engine(config.store)) if config.store else None
    overrides = Overrides(
        tuple(interrupter.sources),
        durability.parse_durability(config.durability) if config.durability else None,
        store,
        delay_seconds=0.0,
    )
    with marking(interrupter.mark), events.subscribe(notice(journal)), overriding(overrides):
        yield Working(config, journal, connection, interrupter)


def main() -> None:
    """Work until a signal stops it."""
    obey()
    with working() as trial:
        queue = Queue(trial.config.queue, connection=trial.connection, serializer="json")
        worker = TrialWorker([queue], connection=trial.connection)
        worker.journal = trial.journal
        worker.work(logging_level="WARNING")
