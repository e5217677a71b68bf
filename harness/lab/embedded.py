"""Trials in this process: fakeredis and a real RQ worker class, with stop requests and real signals.

A job with checkpoints stops at one. The plain form has none: the lab ends it like SIGKILL at the end of a
grace period, and RQ's ``Retry`` starts it again from its first item.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import fakeredis
from rq.job import JobStatus

from harness import events
from harness.errors import UsageError
from harness.lab.backends import RQBackend
from harness.lab.trial import Attempt, PlainPosition, Settings, Trial
from harness.ledger import marking
from harness.overrides import Overrides, overriding
from harness.queues import rq

if TYPE_CHECKING:
    from harness.interruptions import Interruption
    from harness.lab.mailbox import Mailbox
    from harness.progress import Position, StopSource, Store

MAX_EXECUTIONS = 2_000
"""Maximum number of executions; a job that needs more is taken as endless."""
NOMINAL_SECONDS = 0.02
"""Duration of an item without a given pace.

The time of a trial is calculated, not measured: each item lasts as long as the pace, independent of the machine.
"""


class CutOff(BaseException):
    """Ends a plain job at its current point, as SIGKILL does at the end of a grace period."""


class EmbeddedTrial(Trial):
    """A trial in this process."""

    def __init__(self, settings: Settings, mailbox: Mailbox, store: Store | None) -> None:
        self._server = fakeredis.FakeServer()
        self._rq = RQBackend(fakeredis.FakeRedis(server=self._server), "", settings.scenario, settings.form)
        super().__init__(settings, self._rq, mailbox)
        self._store = store
        self._now = 0.0
        self._position: Any = PlainPosition(self.job_id, self.items)
        self._trigger: Callable[[Any], object] = lambda _: None

    def _run(self, interruption: Interruption) -> bool:
        if interruption.kills:
            raise UsageError(
                f"{interruption.name} kills processes, which needs workers; run it with --broker redis"
            )
        trigger = interruption.where(self.items, self._clock) if interruption.where else None
        sources: list[StopSource] = []
        if trigger is not None:
            self._trigger = self._armed(trigger, interruption)
            if not self.plain:
                sources.append(self._trigger)
        overrides = Overrides(
            tuple(sources),
            self.settings.durability,
            self._store,
            self._clock,
            # Only a flag has to be polled; polling at each item would add to the cost of the item.
            poll_seconds=0.0 if interruption.by == "flag" else None,
            delay_seconds=0.0,
        )
        with _quiet(), events.subscribe(self._notice), marking(self._mark), overriding(overrides):
            self._work()
        return trigger is not None and bool(trigger.fired)

    def _clock(self) -> float:
        return self._now

    def _work(self) -> None:
        queue, job = self._rq.queue, self._rq.job
        while len(self._attempts) < MAX_EXECUTIONS:
            self._attempts.append(Attempt(time.perf_counter()))
            self._position.items = 0
            worker = rq.SimpleWorker([queue], connection=self._rq.connection, commands=False)
            worker.log_job_description = False
            worker.work(burst=True, max_jobs=1)
            self._attempts[-1].end = time.perf_counter()
            status = job.get_status()
            if status in {JobStatus.FINISHED, JobStatus.FAILED}:
                return
            if status == JobStatus.SCHEDULED:  # do not wait for a delay
                queue.scheduled_job_registry.remove(job)
                queue._enqueue_job(job)  # noqa: SLF001 - RQ's scheduler does the same
        # The record says that it never finished.

    def _mark(self, item: str) -> None:
        if self.plain and self._trigger(self._position):
            self._attempts[-1].ended = "cut off"
            raise CutOff
        self._attempts[-1].marks.append(time.perf_counter())
        self._marked.append(item)
        self._position.mark()
        self._now += self.settings.pace or NOMINAL_SECONDS
        if self.settings.pace:
            time.sleep(self.settings.pace)

    def _armed(self, trigger: Any, interruption: Interruption) -> Callable[[Position], str | None]:
        """Return a stop source that interrupts when the trigger fires."""

        def source(at: Position) -> str | None:
            reason: str | None = trigger(at)
            if reason is None:
                return None
            attempt = self._attempts[-1]
            attempt.requested, attempt.reason = time.perf_counter(), interruption.name
            if interruption.by == "stop":
                return reason
            if interruption.by == "flag":  # through Redis, on another connection
                with fakeredis.FakeRedis(server=self._server) as outside:
                    rq.request_stop(outside, at.job_id, "flag")
            else:
                os.kill(os.getpid(), int(interruption.by))
            return reason if self.plain else None

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


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep RQ's log, which shows each ended plain job as a traceback, out of the terminal."""
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
