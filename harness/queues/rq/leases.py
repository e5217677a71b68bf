"""Leases on jobs: short, in Redis, renewed by the process that does the work and by its worker.

RQ's own heartbeats cannot be used: the working process sends none, and they are minutes apart. An *execution*
has the name it has in RQ's started registry, ``<job id>:<execution id>``. A takeover of a job removes that
entry. So:

* an execution owns its job as long as its entry is in the started registry;
* it counts as crashed when its lease, a score in the sorted set ``harness:leases``, has expired (by the clock of
  Redis);
* an execution whose lease is gone was considered crashed. It stops at its next checkpoint and leaves the queue alone.

Crash between any two of these writes: the lease expires. Lost answer: the next renewal writes the same again.

A thread renews the lease. A job that lets no other thread run for longer, as in an extension that keeps the
interpreter's lock, depends on the worker that waits for its work horse: :mod:`harness.queues.rq.horses`. Under a
SimpleWorker, and under RQ's own workers, it counts as crashed; raise ``HARNESS_RECOVER_SECONDS`` there.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import WatchError
from rq.executions import WORKER_EXECUTIONS_KEY_TEMPLATE
from rq.utils import as_text, utcformat
from rq.worker import BaseWorker

from harness.queues import owners
from harness.queues.periodic import PeriodicThread, lease_seconds
from harness.queues.rq.entries import number, split
from harness.queues.rq.keys import LEASES, OPEN, OWNERS
from harness.queues.rq.orphans import Orphaned
from harness.queues.rq.places import UNKNOWN
from harness.stops import Flag

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline
    from rq.job import Job as RQJob

DEAD_STARTS = "dead_starts"
"""Field of an RQ job that counts the processes that crashed before they reached the job's code."""

RQ_SECONDS = 60
"""Additional duration of the entry in RQ's started registry, beyond the lease."""

log = logging.getLogger("harness.rq")


def grant(connection: Redis, entry: str) -> None:
    """Give an execution its first lease."""
    seconds, micros = connection.time()
    connection.zadd(LEASES, {entry: seconds + micros / 1e6 + lease_seconds()})


def renew(connection: Redis, registry_key: str, entry: str) -> None:
    """Renew the lease of an execution that has one, by the server's clock, and its entry in RQ's registry.

    Crash between the two, or a lost answer: the lease lasts, and RQ's entry is renewed the next time.
    """
    seconds, micros = connection.time()
    deadline = seconds + micros / 1e6 + lease_seconds()
    with connection.pipeline(transaction=False) as pipeline:
        queue_renewal(pipeline, registry_key, entry, deadline)
        pipeline.execute()


def queue_renewal(pipeline: Pipeline, registry_key: str, entry: str, deadline: float) -> None:
    """Queue the two commands that renew a lease; the first answers 0 if the lease is gone or unchanged."""
    pipeline.zadd(LEASES, {entry: deadline}, xx=True, ch=True)
    # This prevents RQ's maintenance from failing a live job: if the worker was killed, only its horse can
    # renew it.
    pipeline.zadd(registry_key, {entry: deadline + RQ_SECONDS}, xx=True, gt=True)


class Begun(NamedTuple):
    """Record of a job at the start of its code.

    :ivar first: whether this is the first time since it was enqueued. :ivar unknown: number of workers in a
        row that did not know its class or its steps.
    """

    first: bool
    unknown: int


class Lease:
    """Lease on a job, renewed while the context is open.

    :param execution_id: RQ's id. :param worker_pid: process that waits for this one, None if it is this one.
        :param ours: whether the worker belongs to this package, not to RQ. :ivar lost: stop source, set when
        the execution was considered crashed.
    """

    def __init__(self, job: RQJob, execution_id: str, *, worker_pid: int | None, ours: bool = True) -> None:
        self._connection: Redis = job.connection
        self._job_id, self._job_key, self._created_at = job.id, job.key, utcformat(job.created_at)
        self._registry = job.started_job_registry.key
        self.entry = f"{job.id}:{execution_id}"
        self.lost = Flag()
        self.in_horse, self.ours = worker_pid is not None, ours
        self.orphaned = Orphaned(worker_pid)
        self._seconds = lease_seconds()
        self._offset = 0.0
        self._beat = PeriodicThread(f"harness-lease-{job.id}", self._seconds / 4, self._renew)

    def __enter__(self) -> Lease:
        """Take the lease, unless another execution owns the job."""
        global current  # noqa: PLW0603 - RQ hands nothing to what it calls
        seconds, micros = self._connection.time()
        self._offset = seconds + micros / 1e6 - time.monotonic()
        # The owner first: if another execution claims the job now, the check below notices it, and no work is
        # done.
        text = owners.owner(self.orphaned.parent)
        if text is not None:
            self._connection.hset(OWNERS, self.entry, text)
        if self.owned():
            self._connection.zadd(LEASES, {self.entry: self._deadline()})
        else:
            self.lost.set("lease lost")
        current = self
        self._beat.start()
        self.orphaned.watch()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop renewing it; it is removed with the execution's other records."""
        global current  # noqa: PLW0603
        current = None
        self.orphaned.close()
        self._beat.close()

    def owned(self) -> bool:
        """Return whether this execution still owns the job, and no other job was enqueued under its id."""
        with self._connection.pipeline(transaction=False) as pipeline:
            pipeline.zscore(self._registry, self.entry)
            pipeline.hget(self._job_key, "created_at")
            registered_at, created_at = pipeline.execute()
        return registered_at is not None and (not created_at or as_text(created_at) == self._created_at)

    def begun(self) -> Begun:
        """Record that the job's code was reached: a crash from now on is not counted with earlier ones."""
        with self._connection.pipeline() as pipeline:
            pipeline.hset(self._job_key, DEAD_STARTS, -1)
            pipeline.hget(self._job_key, UNKNOWN)
            pipeline.zadd(
                OPEN, {self._job_id: 0}, nx=True
            )  # enqueued by another release, it is not there yet
            new, unknown, _ = pipeline.execute()
        return Begun(bool(new), number(unknown))

    def _deadline(self) -> float:
        return time.monotonic() + self._offset + self._seconds

    def _renew(self) -> None:
        with self._connection.pipeline(transaction=False) as pipeline:
            pipeline.time()
            queue_renewal(pipeline, self._registry, self.entry, self._deadline())
            (seconds, micros), there, _ = pipeline.execute()
        self._offset = seconds + micros / 1e6 - time.monotonic()  # its clock may be set; the next beat knows
        if not there:
            self.lost.set("lease lost")


current: Lease | None = None
"""Lease of this process's job; None with RQ's own worker, which takes none."""


def find(job: RQJob) -> Lease | None:
    """Return a lease for the job of RQ's own worker, or None outside of one."""
    if job.worker_name is None or job.connection is None:
        return None
    with job.connection.pipeline(transaction=False) as pipeline:
        pipeline.hget(BaseWorker.redis_worker_namespace_prefix + job.worker_name, "pid")
        pipeline.smembers(WORKER_EXECUTIONS_KEY_TEMPLATE.format(job.worker_name))
        pid, entries = pipeline.execute()
    worker_pid = number(pid) if number(pid) == os.getppid() else None
    for entry in entries:
        names = split(entry)
        if names is not None and names[0] == job.id:
            return Lease(job, names[1], worker_pid=worker_pid, ours=False)
    return None


def while_owned(
    job_key: str, connection: Redis, owns: Callable[[Pipeline], bool], write: Callable[[Pipeline], Any]
) -> bool:
    """Do the writes in one transaction if the caller still owns the job, and return whether it did.

    A claim by another execution changes the job's hash, which is watched. *write* may be called again after a
    change, and may read data. Crash before EXEC: nothing is written. Crash after it: everything is. Lost
    answer: redis-py raises, and the next attempt finds that the caller no longer owns the job.
    """
    with connection.pipeline() as pipeline:
        while True:
            try:
                pipeline.watch(job_key)
                if not owns(pipeline):
                    return False
                pipeline.multi()
                write(pipeline)
                pipeline.execute()
            except WatchError:
                continue  # a heartbeat, or another process was faster: look again
            return True


def registered(registry_key: str, entry: str) -> Callable[[Pipeline], bool]:
    """Return the check whether an execution owns its job, for :func:`while_owned`."""
    return lambda pipeline: pipeline.zscore(registry_key, entry) is not None
