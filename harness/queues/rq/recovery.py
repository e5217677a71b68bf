"""Jobs whose worker died are put back into their queue, with the progress that they have.

Each of our workers sweeps, and ``harness recover`` does for those who have none of ours running; a short lock lets
one do it at a time, for all queues of that Redis. Found dead is

* an execution whose lease has run out (see :mod:`harness.queues.rq.leases`);
* an execution that nobody ever took a lease for, such as one that died while it started, or that of RQ's own worker:
  the first sweep that sees it gives it one, which nobody renews;
* a job that was taken out of its queue and never started: it is in RQ's intermediate queue, and gets a lease the same
  way. (RQ's own worker of several queues does not use that list: a SIGKILL while it takes a job loses the job.)

How often a job may die is counted by its executions (``Job.max_crashes``). Only deaths before its code was reached are
counted here, up to the same default.

A sweep also puts back jobs that are nowhere (:mod:`harness.queues.rq.strays`) and enqueues those whose delay is over
(:mod:`harness.queues.rq.delayed`). Jobs that are not ours are left to RQ.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from rq import Queue
from rq.executions import Execution as RQExecution
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.job_lifecycle import record_job_failure
from rq.rate_limit import release_slot
from rq.serializers import JSONSerializer
from rq.utils import as_text, parse_composite_key

from harness.job import Job
from harness.queues.rq import strays
from harness.queues.rq.connections import check_connection
from harness.queues.rq.delayed import DueLooks, enqueue_due
from harness.queues.rq.keys import LEASES, SWEEP_LOCK
from harness.queues.rq.leases import (
    DEAD_STARTS,
    Beat,
    lease_seconds,
    recover_seconds,
    registered,
    while_owned,
)
from harness.queues.rq.places import DEQUEUED, PERFORM, TAKEN_OVER, fetch, places_of

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from harness.stops import Clock

TURNS_TO_STRAYS = 6
"""Number of sweeps of a worker, one of which also looks for jobs that are nowhere; each, where there are many."""

log = logging.getLogger("harness.rq")


def recover(connection: Redis) -> list[str]:
    """Sweep once, and return the ids of the jobs that were put back.

    A job that nobody had taken a lease for is put back by a later sweep: call it every few seconds, or
    :func:`keep_recovering`.
    """
    return Sweeper(connection).sweep()


def keep_recovering(connection: Redis, until: threading.Event) -> None:
    """Sweep until the event is set."""
    sweeper, due = Sweeper(connection), DueLooks(connection)
    due.start()
    try:
        sweeper.turn()
        while not until.wait(sweeper.interval):
            sweeper.turn()
    finally:
        due.close()


def put_back(
    connection: Redis,
    queue: Queue,
    entry: str,
    *,
    died: bool,
    superseded: bool = False,
    running: Iterable[str] = (),
) -> bool:
    """Put the job of an execution into its queue, if that execution still owns it, and return whether it did.

    A job that another execution, its queue or a registry has is left there.

    :param entry: the execution, as in RQ's started registry.
    :param died: whether its process died, and did not merely have to go.
    :param superseded: whether it has found that another execution had taken over.
    :param running: all entries of that registry, where the caller has read them.
    """
    job_id, _ = parse_composite_key(entry)
    back, failed = False, None

    def write(pipeline: Pipeline) -> None:
        nonlocal back, failed
        back, failed = False, None
        # Read anew under the watch: RQ writes all of a job, and others may have written to it.
        job = fetch(connection, job_id)
        if job is None:  # deleted, expired or evicted; a late write may have left single fields of it
            pipeline.delete(key)
        elif not places_of(job, entry=entry, running=running):
            counter = DEAD_STARTS if died else TAKEN_OVER if superseded else None
            back = _enqueue(connection, queue, job, pipeline, counter)
            failed = None if back else job
        forget(connection, queue, pipeline, job, entry)
        pipeline.lrem(queue.intermediate_queue_key, 1, job_id)

    key = RQJob.key_for(job_id)
    while_owned(key, connection, registered(queue.started_job_registry.key, entry), write)
    if failed is not None:
        queue.enqueue_dependents(failed)
        release_slot(failed)
    return back


def put_back_dequeued(connection: Redis, queue: Queue, job_id: str) -> bool:
    """Put a job that was taken out of its queue, and never started, to the front of it; return whether it was."""
    back = False

    def waits(pipeline: Pipeline) -> bool:
        pipeline.watch(queue.intermediate_queue_key)
        return pipeline.lpos(queue.intermediate_queue_key, job_id) is not None

    def write(pipeline: Pipeline) -> None:
        nonlocal back
        job = fetch(connection, job_id)
        back = job is not None and places_of(job) == {DEQUEUED}
        pipeline.lrem(queue.intermediate_queue_key, 1, job_id)
        # Else RQ would take the job for stuck at once, should it ever be seen here again.
        pipeline.delete(queue.intermediate_queue.get_first_seen_key(job_id))
        pipeline.zrem(LEASES, f"{job_id}:{DEQUEUED}")
        if job is not None and back:
            job.set_status(JobStatus.QUEUED, pipeline=pipeline)
            queue.push_job_id(job_id, pipeline=pipeline, at_front=True)

    while_owned(RQJob.key_for(job_id), connection, waits, write)
    return back


def forget(connection: Redis, queue: Queue, pipeline: Pipeline, job: RQJob | None, entry: str) -> None:
    """Remove what tells of an execution, in the transaction of the caller."""
    execution = RQExecution.from_composite_key(entry, connection)
    name = connection.hget(execution.key, "worker_name")
    execution.worker_name = as_text(name) if name else ""
    if job is None:
        queue.started_job_registry.remove_execution(execution, pipeline=pipeline)
    else:
        execution.delete(job=job, pipeline=pipeline)
    pipeline.zrem(LEASES, entry)


_TOO_OFTEN = {
    DEAD_STARTS: "CrashLimit: the worker of job {} died {} times before it reached the job's code",
    TAKEN_OVER: "Superseded: job {} was taken over {} times in a row by executions that its queue knows nothing of",
}
"""Reasons to fail a job, by the field that counts."""


def _enqueue(connection: Redis, queue: Queue, job: RQJob, pipeline: Pipeline, counter: str | None) -> bool:
    """Put the job into its queue, or fail it if that was done too often for the same reason."""
    times = int(connection.hget(job.key, counter) or 0) if counter else 0
    if counter and times >= Job.max_crashes:
        reason = (
            f"{_TOO_OFTEN[counter].format(job.id, times + 1)}, allowed are {Job.max_crashes}; its progress was kept: "
            "requeue it once the reason is mended"
        )
        record_job_failure(job, reason, pipeline)
        pipeline.hdel(job.key, counter)
        log.error("%s", reason)
        return False
    if counter:
        pipeline.hincrby(job.key, counter, 1)
    queue._enqueue_job(job, pipeline=pipeline)  # noqa: SLF001 - as Job.retry does; enqueue_job checks dependencies
    strays.add(pipeline, job.id)
    return True


@dataclass(frozen=True)
class _Seen:
    """What one look into Redis shows.

    :ivar now: the server's time. :ivar leases: when each ends, by entry.
    :ivar started: executions with their queue and when RQ gives them up. :ivar dequeued: jobs that wait for one.
    """

    now: float
    leases: dict[str, float]
    started: dict[str, tuple[Queue, float]]
    dequeued: dict[str, Queue]


class Sweeper:
    """Looks for the dead and puts their jobs back.

    :param connection: any database of RQ's; all its queues are looked at.
    :param clock: seconds that only move forward.
    :ivar interval: how many seconds may pass between two sweeps.
    """

    def __init__(self, connection: Redis, *, clock: Clock = time.monotonic) -> None:
        check_connection(connection)
        self._connection, self._clock = connection, clock
        self._unreadable: set[str] = set()
        self.interval = recover_seconds() / 6
        self._first_lease = lease_seconds() - self.interval  # began at most one sweep ago
        self._turned, self._skips = clock(), 0
        self._turns_to_strays = 0

    def beat(self) -> Beat:
        """Return a thread that sweeps, not started."""
        return Beat("harness-sweep", self.interval, self.turn)

    def turn(self) -> None:
        """Sweep, unless another has just done so.

        Where Redis was away, nobody could renew a lease: the living get two turns to do so.
        """
        milliseconds = max(1, int(self.interval * 1000) - 1)
        first = self._connection.set(SWEEP_LOCK, "1", nx=True, px=milliseconds)
        before, self._turned = self._turned, self._clock()
        self._skips = 2 if self._turned - before > 4 * self.interval else max(0, self._skips - 1)
        if first and not self._skips:
            self.sweep(strays_too=self._turns_to_strays == 0)
            self._turns_to_strays = (self._turns_to_strays or TURNS_TO_STRAYS) - 1

    def sweep(self, *, strays_too: bool = True) -> list[str]:
        """Put the jobs of the dead back, and return their ids; several may do so at the same time.

        :param strays_too: whether to look for jobs that are nowhere, and for those that are due, as well.
        """
        seen = self._look()
        running = defaultdict(list)
        for entry in seen.started:
            running[parse_composite_key(entry)[0]].append(entry)
        back = [self._recover(entry, seen.started[entry][0], running) for entry in self._dead(seen)]
        for entry, queue in seen.dequeued.items():
            if seen.leases.get(entry, math.inf) < seen.now:
                back.append(self._recover(entry, queue, running))
        self._tidy(seen)
        if strays_too:
            busy = {*running, *(parse_composite_key(entry)[0] for entry in seen.dequeued)}
            found, more = strays.find(self._connection, seen.now, busy)
            back += found
            self._turns_to_strays = 1 if more else self._turns_to_strays
            enqueue_due(self._connection)
        return [job_id for job_id in back if job_id is not None]

    def _look(self) -> _Seen:
        queues = Queue.all(self._connection, serializer=JSONSerializer)
        with self._connection.pipeline(transaction=False) as pipeline:
            # Leases first: whose lease is seen was registered before, and is seen below unless it has ended since.
            pipeline.time()
            pipeline.zrange(LEASES, 0, -1, withscores=True)
            for queue in queues:
                pipeline.zrange(queue.started_job_registry.key, 0, -1, withscores=True)
                pipeline.lrange(queue.intermediate_queue_key, 0, -1)
            (seconds, micros), leases, *lists = pipeline.execute()
        started = {
            as_text(entry): (queue, score)
            for queue, entries in zip(queues, lists[::2], strict=True)
            for entry, score in entries
        }
        running = {parse_composite_key(entry)[0] for entry in started}
        dequeued = {
            f"{as_text(job_id)}:{DEQUEUED}": queue
            for queue, job_ids in zip(queues, lists[1::2], strict=True)
            for job_id in job_ids
            if as_text(job_id) not in running
        }
        ends = {as_text(entry): score for entry, score in leases}
        return _Seen(seconds + micros / 1e6, ends, started, dequeued)

    def _dead(self, seen: _Seen) -> list[str]:
        dead = []
        for entry, (_, given_up) in seen.started.items():
            ends = seen.leases.get(entry)
            if ends is None and 0 <= given_up < seen.now:
                dead.append(entry)  # before RQ's maintenance fails it
            elif ends is not None and ends < seen.now:
                dead.append(entry)
        return dead

    def _recover(self, entry: str, queue: Queue, running: dict[str, list[str]]) -> str | None:
        job_id, execution_id = parse_composite_key(entry)
        ours = self._ours_or_gone(job_id)
        if ours is None:
            return None  # nothing is noted of it: a worker of another release may be able to read it
        if not ours:
            self._connection.zadd(LEASES, {entry: math.inf}, xx=True)  # not to be looked at again
            return None
        if execution_id == DEQUEUED:
            back = put_back_dequeued(self._connection, queue, job_id)
        else:
            back = put_back(self._connection, queue, entry, died=True, running=running[job_id])
        if not back:
            return None
        log.warning("job %s: its worker died, it is back in queue %s", job_id, queue.name)
        return job_id

    def _ours_or_gone(self, job_id: str) -> bool | None:
        """Return whether the job may be put back or forgotten; None if it cannot be read."""
        try:
            job = fetch(self._connection, job_id)
            ours = job is None or job.func_name == PERFORM
        except RedisError:
            raise
        except Exception:
            if job_id not in self._unreadable:
                self._unreadable.add(job_id)
                log.exception("job %s cannot be read, it was left as it is", job_id)
            return None
        return ours

    def _tidy(self, seen: _Seen) -> None:
        """Give a lease to those who have none, and remove those of executions that have ended."""
        known: dict[str, Any] = {**seen.started, **seen.dequeued}
        new = {entry: seen.now + self._first_lease for entry in known if entry not in seen.leases}
        ended = [entry for entry in seen.leases if entry not in known]
        with self._connection.pipeline(transaction=False) as pipeline:
            if new:
                pipeline.zadd(LEASES, new, nx=True)
            if ended:
                pipeline.zrem(LEASES, *ended)
            pipeline.execute()
