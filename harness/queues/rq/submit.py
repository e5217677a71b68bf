"""Enqueue jobs on RQ, and decide the meaning of a reused job id.

An enqueue under the id of a job that is over begins a new round. An enqueue of the same class, arguments and
portion joins an unfinished job. Any other enqueue under its id is refused, because one of the two would not
be done. The decision and the enqueue are one transaction. Crash before it: nothing is enqueued. Lost answer:
the job is there, and an enqueue of the same joins it.
"""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from redis.exceptions import WatchError
from rq import Queue
from rq.group import Group
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.serializers import JSONSerializer

from harness.context import Portion
from harness.errors import HarnessError, UnsupportedProgress, UsageError
from harness.job import Job
from harness.queues.calls import encoded_call
from harness.queues.connections import check_connection
from harness.queues.rq import delayed, requests, strays
from harness.queues.rq.clocks import redis_now
from harness.queues.rq.groups import add_to_group
from harness.queues.rq.keys import OPEN
from harness.queues.rq.leases import DEAD_STARTS
from harness.queues.rq.places import PERFORM, UNKNOWN, fetch, is_ours, places_of
from harness.runtime import rounds

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

MAX_DESCRIPTION = 200
"""Number of characters of a job's description."""

DONE = {JobStatus.FINISHED, JobStatus.CANCELED}
"""Statuses of jobs that are permanently over; a failed one may be requeued, and continues."""

FAILED = {str(JobStatus.FAILED.value), str(JobStatus.STOPPED.value)}
"""Places from which a job does not continue automatically."""

INSTANCES = 16
"""Maximum number of instances of a parallel run that are searched for a job id."""

_NOT_LATER = ("depends_on", "unique")
"""Options that RQ ignores for a job of its scheduled registry, or that conflict with rounds."""

_PLAIN_ONLY = ("depends_on", "rate_limit", "unique", "pipeline")
"""Options with which RQ enqueues in transactions of its own, or in the caller's."""

log = logging.getLogger("harness.rq")


def enqueue(
    queue: Queue,
    job_class: type[Job],
    *args: Any,
    options: dict[str, Any] | None = None,
    portion: Portion | None = None,
    **kwargs: Any,
) -> RQJob:
    """Put a job into an RQ queue and return RQ's job.

    Arguments may be any cursor values, and keep their value and type. Under the id of a job that is over,
    this starts a new round. Under the id of an unfinished job with the same class, arguments and portion, it
    returns that job; a failed one, or one in no queue, resumes at its cursor.

    :param options: for ``Queue.enqueue_call``: ``job_id``, ``timeout``, ``retry``, ``depends_on``, …, and ``group``, an
        ``rq.group.Group`` that the job joins.
    :param portion: the part of an iteration job to do, to try it on a few items first.
    :raises UsageError: if the queue does not use RQ's JSON serializer, no worker could find the class, the job cannot
        take this, or the id belongs to another job that is not over.
    :raises CursorError: if an argument would not come back equal.
    """
    return _enqueue(queue, job_class, (args, kwargs), options, portion)


def enqueue_at(
    queue: Queue,
    when: datetime,
    job_class: type[Job],
    *args: Any,
    options: dict[str, Any] | None = None,
    portion: Portion | None = None,
    **kwargs: Any,
) -> RQJob:
    """Put a job into an RQ queue at a time, and return RQ's job; like :func:`enqueue` otherwise.

    It waits in RQ's scheduled registry, and any worker of this package enqueues it; no scheduler is needed. A
    joined job keeps its own time.

    :param when: a time without a zone is local time, as in ``Queue.enqueue_at``.
    :param options: as for :func:`enqueue`, but for ``depends_on`` and ``unique``.
    :raises UsageError: as :func:`enqueue` does, and if *when* is no datetime.
    """
    if not isinstance(when, datetime):
        raise UsageError(
            f"got {when!r} as the time of a job; use a datetime, or enqueue_in() with a timedelta"
        )
    return _enqueue(queue, job_class, (args, kwargs), options, portion, when=when)


def enqueue_in(
    queue: Queue,
    delay: timedelta,
    job_class: type[Job],
    *args: Any,
    options: dict[str, Any] | None = None,
    portion: Portion | None = None,
    **kwargs: Any,
) -> RQJob:
    """Put a job into an RQ queue after a delay, and return RQ's job; see :func:`enqueue_at`.

    :raises UsageError: as :func:`enqueue` does, and if *delay* is no timedelta.
    """
    if not isinstance(delay, timedelta):
        raise UsageError(
            f"got {delay!r} as the delay of a job; use a timedelta, or enqueue_at() with a datetime"
        )
    return _enqueue(
        queue, job_class, (args, kwargs), options, portion, when=redis_now(queue.connection) + delay
    )


def _enqueue(
    queue: Queue,
    job_class: type[Job],
    arguments: tuple[tuple[Any, ...], dict[str, Any]],
    options: dict[str, Any] | None,
    portion: Portion | None,
    *,
    when: datetime | None = None,
) -> RQJob:
    args, kwargs = arguments
    check_connection(queue.connection)
    if queue.serializer is not JSONSerializer:
        raise UsageError(
            f"queue {queue.name!r} uses {queue.serializer!r}; use RQ's JSON serializer: "
            "make it Queue(…, serializer='json')"
        )
    if queue.key != Queue.redis_queue_namespace_prefix + queue.name:
        raise UsageError(
            f"queue {queue.name!r} has the key {queue.key!r}, where recovery does not find its jobs; use a "
            "queue class without its own redis_queue_namespace_prefix, and RQ_KEY_PREFIX to separate "
            "applications"
        )
    call = encoded_call(job_class, args, kwargs, portion)
    settings = {"description": _description(job_class, args, kwargs), **(options or {})}
    return _Enqueue(queue, job_class, call, settings, when).run()


class _Enqueue:
    """One call of :func:`enqueue`.

    :param call: arguments of ``perform``. :param settings: options of ``Queue.enqueue_call``, and the group.
        :param when: time of the enqueue; None for now.
    """

    def __init__(
        self,
        queue: Queue,
        job_class: type[Job],
        call: list[Any],
        settings: dict[str, Any],
        when: datetime | None,
    ) -> None:
        self._queue, self._job_class, self._call, self._when = queue, job_class, call, when
        self._settings = dict(settings)
        self._group: Group | None = self._settings.pop("group", None)
        if self._group is not None and not isinstance(self._group, Group):
            raise UsageError(f"got {self._group!r} as the group of a job; use an rq.group.Group")
        refused = [name for name in _NOT_LATER if when is not None and self._settings.get(name)]
        if refused:
            raise UsageError(
                f"a job that is enqueued later cannot take {refused[0]}; leave it out, or use enqueue()"
            )
        self._id: str | None = settings.get("job_id")
        self._digest = _digest(call)

    def run(self) -> RQJob:
        """Enqueue the job, or return the existing one."""
        if self._id is not None:
            self._check_store(self._id)
        own_transaction = any(self._settings.get(name) for name in _PLAIN_ONLY)
        if own_transaction or (not self._queue.is_async and self._when is None):
            job = self._under_way()
            if job is None:
                job = self._create(self._settings.get("pipeline"))
                to = self._settings.get("pipeline") or self._queue.connection
                strays.add(to, job.id)
                self._to_group(to, job, new=True)
            else:
                self._to_group(self._queue.connection, job)
            return job
        with self._queue.connection.pipeline() as pipeline:
            while True:
                try:
                    if self._id is not None:
                        pipeline.watch(RQJob.key_for(self._id))
                    job = self._under_way()
                    if job is None:
                        return self._enqueue(pipeline)
                except WatchError:
                    continue  # it has begun, ended or was enqueued by another: look again
                break
        self._to_group(self._queue.connection, job)
        return job

    def _create(self, pipeline: Pipeline | None) -> RQJob:
        settings = {**self._settings, "pipeline": pipeline}
        if self._when is None:
            job: RQJob | None = self._queue.enqueue_call(PERFORM, args=tuple(self._call), **settings)
            if job is None:  # django-rq's queue, in a transaction
                raise UsageError(
                    f"queue {self._queue.name!r} ({type(self._queue).__name__}) enqueues later, which this function "
                    "cannot; with django-rq, use get_queue(…, commit_mode='auto'), and call enqueue() in "
                    "transaction.on_commit()"
                )
            return job
        settings["job_timeout"] = settings.pop("timeout", None)
        scheduled: RQJob = self._queue.enqueue_at(self._when, PERFORM, args=tuple(self._call), **settings)
        delayed.note(pipeline if pipeline is not None else self._queue.connection, scheduled.id)
        return scheduled

    def _enqueue(self, pipeline: Pipeline) -> RQJob:
        pipeline.multi()
        job = self._create(pipeline)
        if self._id is not None:  # what is left of an earlier round; its progress goes on counting epochs
            pipeline.hdel(job.key, UNKNOWN, DEAD_STARTS)
            requests.forget(pipeline, job.id)
            for registry in strays.REGISTRIES.values():
                pipeline.zrem(getattr(self._queue, registry).key, job.id)
            if job.ttl is None:
                pipeline.persist(job.key)  # else it would expire with the earlier round's result
        strays.add(pipeline, job.id)
        self._to_group(pipeline, job, new=True)
        pipeline.execute()
        return job

    def _to_group(self, connection: Pipeline | Redis, job: RQJob, *, new: bool = False) -> None:
        """Add the job to its group; a joined job may be in another group too.

        Crash before it, if it is not part of the enqueue: the job exists, but not in the group; another
        enqueue under its id adds it.
        """
        if self._group is not None:
            add_to_group(connection, self._group.name, job, new=new)

    def _under_way(self) -> RQJob | None:
        """Return the job under this id if it is joined, or None if the new one has to be enqueued.

        :raises UsageError: if it is another, unfinished job.
        """
        if self._id is None:
            return None
        job = fetch(self._queue.connection, self._id)
        if job is None or not is_ours(job):
            return None
        status = job.get_status(refresh=False)
        instances = self._instances_under_way()
        if status in DONE and not instances:
            return None
        found = self._other(job)
        if found is not None:
            state = f"has instances at work ({', '.join(instances)})" if instances else f"is {status.value}"
            raise UsageError(
                f"job {self._id!r} {found}, and {state}; wait until it is over, requeue or delete it, or choose "
                "another id"
            )
        return job if instances or places_of(job) - FAILED else None

    def _other(self, job: RQJob) -> str | None:
        """Return a description of how the job differs."""
        path = job.args[0]
        try:
            same = rounds.is_named(self._job_class, path)
        except UnsupportedProgress:
            same = False
        if not same:
            return f"belongs to {path}"
        return None if _digest(job.args) == self._digest else "has other arguments"

    def _instances_under_way(self) -> list[str]:
        connection, names = self._queue.connection, [f"{self._id}-{number}" for number in range(INSTANCES)]
        with connection.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.zscore(OPEN, name)
            known = [name for name, score in zip(names, pipeline.execute(), strict=True) if score is not None]
        jobs = [job for job in (fetch(connection, name) for name in known) if job is not None]
        return [job.id for job in jobs if job.get_status(refresh=False) not in strays.OVER]

    def _check_store(self, job_id: str) -> None:
        """Refuse the id of another, unfinished job with its own store; RQ may have deleted that job.

        If the store is unreachable from here, a worker refuses it.
        """
        try:
            store = self._job_class.progress_store()
            progress = store.load(job_id) if store is not None else None
            found = None
            if progress is not None and progress.job and progress.state not in rounds.OVER:
                found = rounds.differs(progress, self._job_class, self._digest)
        except Exception as error:  # noqa: BLE001 - this process may lack whatever the store needs
            if isinstance(error, HarnessError):
                log.warning("job %s: %s", job_id, error)
            return
        if found:
            raise UsageError(
                f"the progress of job {job_id!r} {found}, and is unfinished; finish that job, delete its progress with "
                "progress_store().delete(…), or choose another id"
            )


def _digest(call: Sequence[Any]) -> str:
    after, limit = call[3].get("portion", (None, None)) if len(call) > 3 else (None, None)
    return rounds.digest_of(call[1], call[2], after, limit)


class _Short(reprlib.Repr):
    """Short and cheap representations of any value."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 80
        self.maxlevel = 4

    def repr_instance(self, x: Any, level: int) -> str:
        """Return the representation of a value that is not a built-in container."""
        if isinstance(x, bytes | bytearray) and len(x) > self.maxother:
            return f"{bytes(x[: self.maxother // 2])!r}…"
        return super().repr_instance(x, level)


def _description(job_class: type[Job], args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    """Return the description of the call for RQ and its dashboards, short enough for a log line."""
    shown = _Short().repr
    call = ", ".join([*map(shown, args[:20]), *(f"{name}={shown(value)}" for name, value in kwargs.items())])
    text = f"{job_class.__qualname__}({call})"
    return text if len(text) <= MAX_DESCRIPTION else f"{text[: MAX_DESCRIPTION - 2]}…)"
