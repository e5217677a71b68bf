"""Function that RQ calls for a job from its queue."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from rq import Retry
from rq.job import Job as RQJob
from rq.job import get_current_job
from rq.scheduler import RQScheduler

from harness import cursor as cursors
from harness import forks, overrides
from harness.boundary.texts import bounded
from harness.ends import Ended
from harness.errors import (
    HarnessError,
    ProgressUnavailable,
    StepsChanged,
    Superseded,
    UnsupportedProgress,
    UsageError,
)
from harness.execution import Execution, Portion
from harness.job import Job, find_stored
from harness.queues.rq import delayed, leases
from harness.queues.rq.calls import check_call
from harness.queues.rq.entries import number
from harness.queues.rq.history import Recording
from harness.queues.rq.instances import enqueue_of, family_of
from harness.queues.rq.keys import SWEEP_LOCK, SWEEPING
from harness.queues.rq.leases import Begun
from harness.queues.rq.places import UNKNOWN, queue_of
from harness.queues.rq.recovery import forget, put_back
from harness.queues.rq.requests import Requests, shutdown
from harness.queues.rq.timeouts import Timeout
from harness.rounds import Call, digest_of
from harness.stops import throttled
from harness.stores.rq_meta import RQMetaStore

if TYPE_CHECKING:
    from harness.progress import StopSource
    from harness.queues.rq.leases import Lease

UNAVAILABLE_SECONDS = 1.0
"""Seconds for which an execution that cannot reach its progress store holds the worker, before it goes back."""

POLL_SECONDS = 0.5
"""Shortest interval between two queries of Redis for a stop request, in seconds."""

PARKED = 100 * 365 * 24 * 3600
"""Seconds until a paused job would run by itself."""


ROUND = "continuation_round"
"""Key in ``job.meta`` where older releases kept the round of RQ's ``Repeat`` that the progress belongs to."""

TRIES, DEFAULT_TRIES = "HARNESS_UNKNOWN_TRIES", 60
"""Setting for how many workers in a row may not know a job's class or steps before the job fails."""

TRY_SECONDS = 10
"""Seconds between two such tries."""

log = logging.getLogger("harness.rq")


class Interruption(Retry):
    """The return value of an execution that was interrupted: run the job again.

    :ivar reason: why it stopped.
    :ivar queue: name of the queue to run it in; None for its own. The stock worker leaves it in its own.
    :ivar cancelled: whether it stopped for good; the stock worker, which cannot know, parks the job then.
    :ivar unknown: whether this worker did not know the job.
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
        # RQ compares with number_of_retries, which our worker leaves alone; the stock worker counts there.
        super().__init__(max=sys.maxsize, interval=math.ceil(delay), enqueue_at_front=at_front)
        self.reason, self.queue = bounded(reason), queue
        self.cancelled, self.unknown = cancelled, unknown


def perform(
    path: str, args: list[Any], kwargs: dict[str, Any], more: dict[str, Any] | None = None
) -> Interruption | None:
    """Run one execution of the job that RQ is working on; called by RQ, not by people.

    :raises Superseded: if another execution has taken the job over; only under our workers, and RQ's SimpleWorker.
    :raises Exception: what the job raised, if it is not resumed; RQ's ``Retry`` then goes on at the cursor.
    """
    current = get_current_job()
    if current is None or current.connection is None:
        raise UsageError("perform() runs inside an RQ worker only; elsewhere use harness.run()")
    check_call(path, args, kwargs, more)
    with forks.guarding():
        return _perform(current, [path, args, kwargs], more or {})


def _perform(current: RQJob, call: list[Any], more: dict[str, Any]) -> Interruption | None:
    if leases.current is not None:
        return _Attempt(current, call, more).run(leases.current)
    lease = leases.find(current)  # the worker is RQ's own
    if lease is None:
        return _Attempt(current, call, more).run(None)
    with lease:  # before anything is imported, which may take long
        try:
            return _Attempt(current, call, more).run(lease)
        except Superseded:
            _leave(current, lease)
            raise


class _Attempt:
    """One call of :func:`perform`."""

    def __init__(self, current: RQJob, call: list[Any], more: dict[str, Any]) -> None:
        self._current, self._call, self._more = current, call, more

    def run(self, lease: Lease | None) -> Interruption | None:
        """Run the execution, and say how it ended only if the job is still its own."""
        try:
            job_class = find_stored(self._call[0])
        except UsageError as error:
            return self._put_off(error)
        if not (isinstance(job_class, type) and issubclass(job_class, Job)):
            raise UsageError(f"{self._call[0]!r} is {job_class!r}; use a ContinuableJob or an IterationJob")
        try:
            begun = _begun(lease)
            with Recording(self._current) as recording, Timeout() as timeout:
                execution = self._execution(job_class, lease, recording, begun, timeout)
                try:
                    ended = recording.ended(execution.run())
                except (StepsChanged, UnsupportedProgress) as error:
                    if begun.unknown < unknown_tries():
                        recording.ended(Ended("interrupted", str(error)))
                    raise
        except ProgressUnavailable as error:
            # Requeue it after a delay, and do not fail it: a claim does no harm, and no work begins before.
            time.sleep(UNAVAILABLE_SECONDS)
            return Interruption(str(error), 0)
        except Exception as error:
            if not _owned_or_unknown(lease):
                raise self._superseded() from error
            if isinstance(error, StepsChanged | UnsupportedProgress):
                return self._put_off(error)
            raise
        if ended.outcome == "superseded" or not _owned_or_unknown(lease):
            # Not a success: that would start dependents while the execution that has taken over is still at work.
            raise self._superseded()
        if ended.outcome == "completed":
            return None
        reason = ended.reason or ended.outcome
        if ended.outcome != "interrupted":
            return Interruption(reason, PARKED, cancelled=ended.outcome == "cancelled")
        return Interruption(reason, self._delay(ended), queue=ended.queue, at_front=ended.at_front)

    def _delay(self, ended: Ended) -> float:
        """Return the time until the next execution: none after an error, if nothing would ever end the delay.

        An author who asks for a delay knows that RQ's own worker needs a scheduler for it. The delay after an error is
        a default, which cannot strand a job.
        """
        if not ended.delay or self._note_delay(ended.delay) or not ended.after_error:
            return ended.delay
        log.warning(
            "job %s: resumed without its error_delay, for no scheduler runs; use rq worker --with-scheduler, or "
            "harness.queues.rq.Worker",
            self._current.id,
        )
        return 0.0

    def _execution(
        self,
        job_class: type[Job],
        lease: Lease | None,
        recording: Recording,
        begun: Begun,
        timeout: Timeout,
    ) -> Execution:
        current, asked = self._current, overrides.current
        seconds = POLL_SECONDS if asked.poll_seconds is None else asked.poll_seconds
        requests = Requests(current.connection, current.worker_name)
        stops: list[StopSource] = [
            recording, timeout, shutdown, throttled(requests, seconds, clock=asked.clock),
        ]  # fmt: skip
        if lease is not None:
            stops += [lease.lost, lease.orphaned]
        _, args, kwargs = self._call
        after, limit = self._more.get("portion", (None, None))
        return Execution(
            job_class,
            current.id,
            job_class.progress_store() or RQMetaStore(current.connection),
            args=[cursors.decode(value) for value in args],
            kwargs={name: cursors.decode(value) for name, value in kwargs.items()},
            stops=stops,
            portion=Portion(cursors.decode(after), limit) if "portion" in self._more else None,
            family=family_of(current, self._call, self._more),
            call=Call(
                digest_of(args, kwargs, after, limit),
                enqueue_of(current),
                first=begun.first or _repeats(current),
            ),
            owns=None if lease is None else partial(_owns, lease),
            patient=begun.unknown < unknown_tries(),
        )

    def _put_off(self, error: HarnessError) -> Interruption:
        """Leave a job that this worker does not know to another: in a deploy there is one.

        Death before it is counted: it is one try more. The count is forgotten with the next interruption of a worker
        that knows the job.

        :raises HarnessError: the error, if too many workers in a row did not know it.
        """
        current, limit = self._current, unknown_tries()
        tries = number(current.connection.hget(current.key, UNKNOWN)) + 1
        current.connection.hset(current.key, UNKNOWN, tries)  # HINCRBY refuses what is no number
        if tries > limit:
            current.connection.hdel(current.key, UNKNOWN)  # who requeues it gives it as many tries again
            raise type(error)(
                f"{error} ({tries} workers in a row did not know it; the limit is {limit}, see {TRIES})"
            ) from error
        log.warning("job %s is not known here: %s; another worker may know it", current.id, error)
        if not self._note_delay(TRY_SECONDS):
            time.sleep(UNAVAILABLE_SECONDS)
            return Interruption(str(error), 0, unknown=True)
        return Interruption(str(error), TRY_SECONDS, unknown=True)

    def _note_delay(self, seconds: float) -> bool:
        """Return whether a process will enqueue the job after a delay; warn if not.

        Our workers do it, also for RQ's own, which need a scheduler where none of ours runs.
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
                "job %s is to go on in %d s, and no process will enqueue it then: start a worker of "
                "harness.queues.rq, or one with a scheduler (rq worker --with-scheduler)",
                current.id, math.ceil(seconds),
            )  # fmt: skip
        return somebody

    def _superseded(self) -> Superseded:
        return Superseded(
            f"another execution of job {self._current.id} has taken over; this one has left it alone"
        )


def unknown_tries() -> int:
    """Return how many workers in a row may not know a job before it fails.

    :raises UsageError: if ``HARNESS_UNKNOWN_TRIES`` is no number of 0 or more.
    """
    text = os.environ.get(TRIES, str(DEFAULT_TRIES))
    if not text.isdecimal():
        raise UsageError(f"{TRIES} takes a number of 0 or more, such as {DEFAULT_TRIES}; got {text!r}")
    return int(text)


def _begun(lease: Lease | None) -> Begun:
    """Note that the job's code is reached.

    :raises ProgressUnavailable: if Redis cannot be used now; nothing was done.
    """
    if lease is None:
        return Begun(first=False, unknown=0)
    try:
        return lease.begun()
    except RedisError as error:
        raise ProgressUnavailable(
            f"Redis cannot be used now ({type(error).__name__}); run the job again later"
        ) from error


def _owned_or_unknown(lease: Lease | None) -> bool:
    """Return whether the job may still be this execution's; its report asks once more, within a transaction."""
    try:
        return lease is None or lease.owned()
    except RedisError:
        return True


def _owns(lease: Lease) -> bool:
    """Return whether the job is still this execution's.

    :raises ProgressUnavailable: if RQ cannot be asked now.
    """
    try:
        return lease.owned()
    except RedisError as error:
        raise ProgressUnavailable(
            f"the progress of the job is gone, and RQ cannot be asked whose it is ({type(error).__name__})"
        ) from error


def _repeats(current: RQJob) -> bool:
    """Return whether an older release has completed an earlier round of RQ's ``Repeat``."""
    done, left = current.meta.get(ROUND), current.repeats_left
    return isinstance(done, int) and left is not None and left < done


def _leave(current: RQJob, lease: Lease) -> None:
    """End a work horse of RQ's own worker without a report on the job, or requeue it if no other execution has it.

    RQ's worker takes an error for a failure, and a Retry for a reason to write the whole job again. It ignores a work
    horse that ends with code 0 and without a report. Its SimpleWorker has none: there the job shows as
    failed until the other execution has ended.
    """
    if not lease.in_horse:
        return
    queue = queue_of(current)
    if not put_back(current.connection, queue, lease.entry, died=False, superseded=True):
        with current.connection.pipeline() as pipeline:
            forget(current.connection, queue, pipeline, current, lease.entry)
            pipeline.execute()
    os._exit(os.EX_OK)
