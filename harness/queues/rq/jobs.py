"""What goes into an RQ queue, and what RQ calls when it comes out."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rq import Retry
from rq.job import Job as RQJob
from rq.job import get_current_job
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer

from harness import cursor as cursors
from harness import forks, overrides
from harness.ends import Ended
from harness.errors import ProgressUnavailable, Superseded, UsageError
from harness.execution import Execution, Portion
from harness.job import Job, find
from harness.queues.rq import leases
from harness.queues.rq.connections import check_connection
from harness.queues.rq.history import Recording
from harness.queues.rq.instances import family_of
from harness.queues.rq.recovery import LOCK, forget, queue_of
from harness.queues.rq.requests import PERFORM, Requests, shutdown
from harness.queues.rq.timeouts import Timeout
from harness.stops import throttled
from harness.stores.rq_meta import RQMetaStore
from harness.texts import bounded

if TYPE_CHECKING:
    from rq import Queue

    from harness.progress import StopSource
    from harness.queues.rq.leases import Lease

UNAVAILABLE_SECONDS = 1.0
"""How long an execution holds a worker that could not reach the store of its progress, before it is tried again."""

POLL_SECONDS = 0.5
"""How often, at most, a job looks into Redis whether it shall stop."""

PARKED = 100 * 365 * 24 * 3600
"""Seconds until a job that waits for somebody would run by itself."""


SHOWN_BYTES = 500
"""Size that the arguments in an RQ job's description are cut to."""

ROUND = "continuation_round"
"""The key in ``job.meta`` that tells which round of RQ's ``Repeat`` the progress belongs to."""

log = logging.getLogger("harness.rq")


class Interruption(Retry):
    """The return value of an execution that was interrupted: run the job again.

    :ivar reason: why it stopped.
    :ivar queue: name of the queue to run it in; None for its own. The stock worker leaves it in its own.
    :ivar cancelled: whether it stopped for good; the stock worker, which cannot know, parks the job then.
    """

    def __init__(
        self,
        reason: str,
        delay: float,
        *,
        queue: str | None = None,
        at_front: bool = False,
        cancelled: bool = False,
    ) -> None:
        # RQ compares with number_of_retries, which our worker leaves alone; the stock worker counts there.
        super().__init__(max=sys.maxsize, interval=math.ceil(delay), enqueue_at_front=at_front)
        self.reason, self.queue, self.cancelled = bounded(reason), queue, cancelled


def enqueue(
    queue: Queue,
    job_class: type[Job],
    *args: Any,
    options: dict[str, Any] | None = None,
    portion: Portion | None = None,
    **kwargs: Any,
) -> RQJob:
    """Put a job into an RQ queue and return RQ's job.

    Arguments may be whatever a cursor may be, and arrive equal and of the same type (C5).

    :param options: for ``Queue.enqueue_call``: ``job_id``, ``timeout``, ``retry``, ``depends_on``, …
    :param portion: the part of an iteration job to do, to try it on a few items first.
    :raises UsageError: if the queue does not use RQ's JSON serializer, or the job cannot take this.
    :raises CursorError: if an argument would not come back equal.
    """
    check_connection(queue.connection)
    if queue.serializer is not JSONSerializer:
        raise UsageError(
            f"queue {queue.name!r} uses {queue.serializer!r}, allowed is RQ's JSON serializer; "
            "make it Queue(…, serializer='json')"
        )
    if not (isinstance(job_class, type) and issubclass(job_class, Job)):
        raise UsageError(f"enqueue() takes a ContinuableJob or an IterationJob, found {job_class!r}")
    job_class.check_arguments(kwargs, portion)
    encoded = [cursors.encode(value, f"argument {index}") for index, value in enumerate(args)]
    named = {name: cursors.encode(value, f"argument {name!r}") for name, value in kwargs.items()}
    call: list[Any] = [job_class.path(), encoded, named]
    if portion is not None:
        call.append({"portion": [cursors.encode(portion.after), portion.limit]})
    settings = {"description": f"{job_class.__qualname__}({_shown(args, kwargs)})", **(options or {})}
    return queue.enqueue_call(PERFORM, args=tuple(call), **settings)


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
    with forks.guarding():
        return _perform(current, [path, args, kwargs], more or {})


def _perform(current: RQJob, call: list[Any], more: dict[str, Any]) -> Interruption | None:
    if leases.current is not None:
        return _Attempt(current, call, more, stock=False).run(leases.current)
    lease = leases.find(current)  # the worker is RQ's own
    if lease is None:
        return _Attempt(current, call, more, stock=True).run(None)
    with lease:  # before anything is imported, which may take long
        try:
            return _Attempt(current, call, more, stock=True).run(lease)
        except Superseded:
            _leave(current, lease)
            raise


class _Attempt:
    """One call of :func:`perform`.

    :param stock: whether the worker is RQ's own.
    """

    def __init__(self, current: RQJob, call: list[Any], more: dict[str, Any], *, stock: bool) -> None:
        path = call[0]
        job_class = find(path)
        if not (isinstance(job_class, type) and issubclass(job_class, Job)):
            raise UsageError(f"{path!r} is {job_class!r}, allowed is a ContinuableJob or an IterationJob")
        self._job_class, self._current, self._call, self._more = job_class, current, call, more
        self._stock = stock
        self._store = job_class.progress_store() or RQMetaStore(current.connection)

    def run(self, lease: Lease | None) -> Interruption | None:
        """Run the execution, and say how it ended only if the job is still its own."""
        if lease is not None:
            lease.begun()
        self._begin_round()
        try:
            with Recording(self._current) as recording, Timeout() as timeout:
                ended = recording.ended(self._execution(lease, recording, timeout).run())
        except ProgressUnavailable as error:
            # Back into the queue, not to fail, and not at once: to claim it does no harm, and no work begins before.
            time.sleep(UNAVAILABLE_SECONDS)
            return Interruption(str(error), 0)
        except Exception as error:
            if lease is not None and not lease.owned():
                raise self._superseded() from error
            raise
        if ended.outcome == "superseded" or (lease is not None and not lease.owned()):
            # Not a success: that would start dependents while the execution that has taken over is still at work.
            raise self._superseded()
        if ended.outcome == "completed":
            self._end_round()
            return None
        reason = ended.reason or ended.outcome
        if ended.outcome != "interrupted":
            return Interruption(reason, PARKED, cancelled=ended.outcome == "cancelled")
        return Interruption(reason, self._delay(ended), queue=ended.queue, at_front=ended.at_front)

    def _delay(self, ended: Ended) -> float:
        """Return the time until the next execution: none after an error, if nothing would ever end the delay.

        RQ's own worker enqueues what is due only where its scheduler runs. An author who asks for a delay knows that;
        the delay after an error is a default, and must not strand a job.
        """
        if not (ended.after_error and ended.delay and self._stock):
            return ended.delay
        scheduler = RQScheduler.get_locking_key(self._current.origin)
        if self._current.connection.exists(scheduler, LOCK):
            return ended.delay
        log.warning(
            "job %s: resumed without its error_delay, for no scheduler runs; use rq worker --with-scheduler, or "
            "harness.queues.rq.Worker",
            self._current.id,
        )
        return 0.0

    def _execution(self, lease: Lease | None, recording: Recording, timeout: Timeout) -> Execution:
        asked = overrides.current
        seconds = POLL_SECONDS if asked.poll_seconds is None else asked.poll_seconds
        requests = Requests(self._current.connection, self._current.worker_name)
        stops: list[StopSource] = [
            recording, timeout, shutdown, throttled(requests, seconds, clock=asked.clock),
        ]  # fmt: skip
        if lease is not None:
            stops += [lease.lost, lease.orphaned]
        _, args, kwargs = self._call
        after, limit = self._more.get("portion", (None, None))
        return Execution(
            self._job_class,
            self._current.id,
            self._store,
            args=[cursors.decode(value) for value in args],
            kwargs={name: cursors.decode(value) for name, value in kwargs.items()},
            stops=stops,
            portion=Portion(cursors.decode(after), limit) if "portion" in self._more else None,
            family=family_of(self._current, self._call, self._more),
        )

    def _begin_round(self) -> None:
        """Forget the progress of the round before, if RQ's ``Repeat`` has begun another.

        Death after it: what was forgotten is forgotten again, as long as nothing else is stored.
        """
        done, left = self._current.meta.get(ROUND), self._current.repeats_left
        if isinstance(done, int) and left is not None and left < done:
            self._store.delete(self._current.id)
            del self._current.meta[ROUND]
            self._current.save_meta()

    def _end_round(self) -> None:
        """Note which round of RQ's ``Repeat`` is done; RQ writes it together with the next one's place in the queue."""
        if self._current.repeats_left:
            self._current.meta[ROUND] = self._current.repeats_left

    def _superseded(self) -> Superseded:
        return Superseded(
            f"another execution of job {self._current.id} has taken over; this one has left it alone"
        )


def _leave(current: RQJob, lease: Lease) -> None:
    """End a work horse of RQ's own worker without a word on the job, which is another execution's now.

    RQ's worker takes an error for a failure, and a Retry for a reason to write the whole job anew; of a work horse that
    ends well without having said anything it takes no notice. Its SimpleWorker has none: there the job shows as
    failed until the other execution has ended.
    """
    if not lease.in_horse:
        return
    with current.connection.pipeline() as pipeline:
        forget(current.connection, queue_of(current), pipeline, current, lease.entry)
        pipeline.execute()
    os._exit(os.EX_OK)


def _shown(args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    shown = ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
    return bounded(shown, SHOWN_BYTES)
