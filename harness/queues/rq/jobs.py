"""Function that RQ calls for a job from its queue, and RQ's adapter for one delivery."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from rq import Retry
from rq.job import Job as RQJob
from rq.job import get_current_job
from rq.scheduler import RQScheduler

from harness import cursor as cursors
from harness.boundary.texts import bounded
from harness.context import Portion
from harness.errors import ProgressUnavailable, Superseded, UsageError
from harness.queues.calls import check_call
from harness.queues.delivery import (
    TRIES,
    TRY_SECONDS,
    UNAVAILABLE_SECONDS,
    Again,
    Begun,
    Order,
    check_tries,
    deliver,
)
from harness.queues.history import HistoryRecorder
from harness.queues.rq import delayed, leases
from harness.queues.rq.entries import number
from harness.queues.rq.instances import enqueue_of, spawn
from harness.queues.rq.keys import SWEEP_LOCK, SWEEPING
from harness.queues.rq.places import UNKNOWN, queue_of
from harness.queues.rq.recovery import forget, put_back
from harness.queues.rq.requests import Requests, shutdown
from harness.queues.rq.retention import ttl_after
from harness.queues.rq.timeouts import Timeout
from harness.runtime import forks
from harness.stores.rq_meta import RQMetaStore

if TYPE_CHECKING:
    from harness.progress import StopSource
    from harness.queues.rq.leases import Lease

__all__ = ["PARKED", "TRIES", "UNAVAILABLE_SECONDS", "InterruptedResult", "RQDelivery", "perform"]

PARKED = 100 * 365 * 24 * 3600
"""Seconds until a paused job would run without a resume."""


ROUND = "continuation_round"
"""Key in ``job.meta`` where older releases kept the round of RQ's ``Repeat`` that the progress belongs to."""

log = logging.getLogger("harness.rq")


class InterruptedResult(Retry):
    """Return value of an interrupted execution: run the job again.

    :ivar reason: reason of the stop. :ivar queue: name of the queue to run it in; None for its own. RQ's own
        worker ignores it. :ivar cancelled: whether it stopped permanently; RQ's own worker, which does not
        know, parks the job then. :ivar unknown: whether this worker did not know the job.
    """

    def __init__(
        self,
        reason: str,
        delay: float,
        *,
        queue: str | None = None,
        at_front: bool = False,
        cancelled: bool = False,
        unknown: bool = False,
    ) -> None:
        # RQ compares it with number_of_retries, which the workers of this package do not change; RQ's own
        # worker counts there.
        super().__init__(max=sys.maxsize, interval=math.ceil(delay), enqueue_at_front=at_front)
        self.reason, self.queue = bounded(reason), queue
        self.cancelled, self.unknown = cancelled, unknown


def perform(
    path: str, args: list[Any], kwargs: dict[str, Any], more: dict[str, Any] | None = None
) -> InterruptedResult | None:
    """Run one execution of RQ's current job; called by RQ, not by users.

    :raises Superseded: if another execution owns the job; only with workers of this package, and RQ's
        SimpleWorker. :raises Exception: the job's error, if it is not resumed; RQ's ``Retry`` then continues
        at the cursor.
    """
    current = get_current_job()
    if current is None or current.connection is None:
        raise UsageError("perform() runs inside an RQ worker only; elsewhere use harness.run()")
    check_call(path, args, kwargs, more)
    with forks.guarding():
        return _perform(current, [path, args, kwargs], more or {})


def _perform(current: RQJob, call: list[Any], more: dict[str, Any]) -> InterruptedResult | None:
    if leases.current is not None:
        return _deliver(current, call, more, leases.current)
    lease = leases.find(current)  # the worker is RQ's own
    if lease is None:
        return _deliver(current, call, more, None)
    with lease:  # before anything is imported, which may take long
        try:
            return _deliver(current, call, more, lease)
        except Superseded:
            _leave(current, lease)
            raise


def _deliver(
    current: RQJob, call: list[Any], more: dict[str, Any], lease: Lease | None
) -> InterruptedResult | None:
    path, args, kwargs = call
    after, limit = more.get("portion", (None, None))
    portion = Portion(cursors.decode(after), limit) if "portion" in more else None
    order = Order(path, args, kwargs, portion=portion, instance=more.get("instance"))
    return deliver(order, RQDelivery(current, call, more, lease))


class RQDelivery:
    """One delivery of a job by RQ; see :class:`harness.queues.delivery.Delivery`.

    :param lease: None if RQ's own worker calls, which takes none.
    """

    def __init__(self, current: RQJob, call: list[Any], more: dict[str, Any], lease: Lease | None) -> None:
        self._current, self._call, self._more, self._lease = current, call, more, lease
        self.job_id = current.id
        self.store = RQMetaStore(current.connection)
        enqueued = current.enqueued_at
        self.history = HistoryRecorder(
            current.connection,
            current.id,
            worker=current.worker_name or "",
            enqueued_at=enqueued.timestamp() if enqueued else None,
            ttl_after=lambda outcome: ttl_after(current, outcome),
        )
        self.requests = Requests(current.connection, current.worker_name)

    def begin(self) -> Begun:
        """Record that the code of the job starts.

        :raises ProgressUnavailable: if Redis cannot be used now; nothing was done.
        """
        enqueued = enqueue_of(self._current)
        if self._lease is None:
            return Begun(enqueued, first=_repeats(self._current))
        try:
            begun = self._lease.begun()
        except RedisError as error:
            raise ProgressUnavailable(
                f"Redis cannot be used now ({type(error).__name__}); run the job again later"
            ) from error
        return Begun(enqueued, first=begun.first or _repeats(self._current), unknown=begun.unknown)

    @contextmanager
    def stop_sources(self) -> Iterator[Sequence[StopSource]]:
        """Return RQ's timeout, the shutdown of this process, and the loss of the lease or of the worker."""
        with Timeout() as timeout:
            sources: list[StopSource] = [timeout, shutdown]
            if self._lease is not None:
                sources += [self._lease.lost, self._lease.orphaned]
            yield sources

    def owns(self) -> bool:
        """Return whether this execution still owns the job.

        :raises ProgressUnavailable: if RQ's Redis is unreachable.
        """
        try:
            return self._lease is None or self._lease.owned()
        except RedisError as error:
            raise ProgressUnavailable(
                f"the progress of the job is gone, and RQ does not answer who owns the job ({type(error).__name__})"
            ) from error

    def enqueue(self, number: int, round_id: str) -> None:
        """Enqueue an instance of a parallel run, unless it exists."""
        run_id, _ = self._more.get("instance", (self.job_id, None))
        spawn(self._current, run_id, number, self._call, round_id=round_id)

    def requeue(self, again: Again) -> InterruptedResult:
        """Return the order to RQ's worker to queue the job again.

        :raises HarnessError: ``again.error``, if too many workers in a row did not know the job.
        """
        if isinstance(again.error, ProgressUnavailable):
            time.sleep(UNAVAILABLE_SECONDS)
            return InterruptedResult(again.reason, 0)
        if again.unknown:
            return self._put_off(again)
        return InterruptedResult(again.reason, self._delay(again), queue=again.queue, at_front=again.at_front)

    def park(self, reason: str, *, cancelled: bool) -> InterruptedResult:
        """Return the order to RQ's worker to keep the job in the scheduled registry, or to cancel it."""
        return InterruptedResult(reason, PARKED, cancelled=cancelled)

    def _delay(self, again: Again) -> float:
        """Return the time until the next execution: none after an error, if no process would end the delay.

        Authors who set a delay know that RQ's own worker needs a scheduler for it. The delay after an error
        is a default, so it must not strand a job.
        """
        if not again.delay or self._note_delay(again.delay) or not again.after_error:
            return again.delay
        log.warning(
            "job %s: resumed without its error_delay, for no scheduler runs; use rq worker "
            "--with-scheduler, or harness.queues.rq.Worker",
            self.job_id,
        )
        return 0.0

    def _put_off(self, again: Again) -> InterruptedResult:
        """Count a worker that does not know the job.

        Crash before it is counted: one more try. The count is reset at the next interruption in a worker that
        knows the job.
        """
        current = self._current
        assert again.error is not None  # noqa: S101 - that is what unknown means
        tries = number(current.connection.hget(current.key, UNKNOWN)) + 1
        current.connection.hset(current.key, UNKNOWN, tries)  # HINCRBY refuses what is no number
        try:
            check_tries(again.error, tries)
        except Exception:
            current.connection.hdel(current.key, UNKNOWN)  # after a requeue it gets as many tries again
            raise
        if not self._note_delay(TRY_SECONDS):
            time.sleep(UNAVAILABLE_SECONDS)
            return InterruptedResult(again.reason, 0, unknown=True)
        return InterruptedResult(again.reason, TRY_SECONDS, unknown=True)

    def _note_delay(self, seconds: float) -> bool:
        """Return whether a process will enqueue the job after a delay; warn if not.

        Workers of this package do it, also for jobs of RQ's own workers, which otherwise need a scheduler.
        """
        current = self._current
        if leases.current is not None and leases.current.ours:
            return True
        delayed.note(current.connection, current.id, time.time() + math.ceil(seconds))
        with current.connection.pipeline(transaction=False) as pipeline:
            pipeline.exists(RQScheduler.get_locking_key(current.origin))
            pipeline.exists(SWEEPING, SWEEP_LOCK)  # an older release has the lock alone
            somebody = any(pipeline.execute())
        if not somebody:
            log.warning(
                "job %s resumes in %d s, but no process will enqueue it then: start a worker of "
                "harness.queues.rq, or one with a scheduler (rq worker --with-scheduler)",
                current.id, math.ceil(seconds),
            )  # fmt: skip
        return somebody


def _repeats(current: RQJob) -> bool:
    """Return whether an older release has completed an earlier round of RQ's ``Repeat``."""
    done, left = current.meta.get(ROUND), current.repeats_left
    return isinstance(done, int) and left is not None and left < done


def _leave(current: RQJob, lease: Lease) -> None:
    """End a work horse of RQ's own worker without a report on the job, or requeue it if no other execution has it.

    RQ's worker treats an error as a failure, and writes the whole job again for a Retry. It ignores a work
    horse that exits with code 0 and without a report. Its SimpleWorker has no work horse: there the job shows
    as failed until the other execution has ended.
    """
    if not lease.in_horse:
        return
    queue = queue_of(current)
    if not put_back(current.connection, queue, lease.entry, died=False, superseded=True):
        with current.connection.pipeline() as pipeline:
            forget(current.connection, queue, pipeline, current, lease.entry)
            pipeline.execute()
    os._exit(os.EX_OK)
