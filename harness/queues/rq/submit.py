"""What goes into an RQ queue, and what becomes of a job id that is used again.

An enqueue under the id of a job that is over begins a new round. A job that is not over is joined by an enqueue of the
same class, arguments and portion, and refuses any other: one would do the work of neither. The decision and the
enqueue are one transaction; death before it enqueues nothing. If the answer is lost, the job is there: an enqueue of
the same joins it.
"""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from redis.exceptions import WatchError
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.serializers import JSONSerializer

from harness import cursor as cursors
from harness import rounds
from harness.errors import HarnessError, UnsupportedProgress, UsageError
from harness.execution import Portion
from harness.job import Job
from harness.queues.rq import requests, strays
from harness.queues.rq.connections import check_connection
from harness.queues.rq.keys import OPEN
from harness.queues.rq.leases import DEAD_STARTS
from harness.queues.rq.places import PERFORM, UNKNOWN, fetch, is_ours, places_of

if TYPE_CHECKING:
    from redis.client import Pipeline
    from rq import Queue

MAX_DESCRIPTION = 200
"""Number of characters of a job's description."""

DONE = {JobStatus.FINISHED, JobStatus.CANCELED}
"""Statuses of jobs that are over for good; a failed one may be requeued, and goes on."""

FAILED = {str(JobStatus.FAILED.value), str(JobStatus.STOPPED.value)}
"""Places from which a job does not go on by itself."""

INSTANCES = 16
"""Number of instances of a parallel run that are looked for under a job id."""

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

    Arguments may be whatever a cursor may be, and arrive equal and of the same type.

    Under the id of a job that is over, this begins a new round. Under the id of one that is not, with the same class,
    arguments and portion, it returns that job; one that has failed, or is in no queue, goes on at its cursor.

    :param options: for ``Queue.enqueue_call``: ``job_id``, ``timeout``, ``retry``, ``depends_on``, …
    :param portion: the part of an iteration job to do, to try it on a few items first.
    :raises UsageError: if the queue does not use RQ's JSON serializer, no worker could find the class, the job cannot
        take this, or the id belongs to another job that is not over.
    :raises CursorError: if an argument would not come back equal.
    """
    check_connection(queue.connection)
    if queue.serializer is not JSONSerializer:
        raise UsageError(
            f"queue {queue.name!r} uses {queue.serializer!r}, allowed is RQ's JSON serializer; "
            "make it Queue(…, serializer='json')"
        )
    _check_class(job_class)
    job_class.check_arguments(kwargs, portion)
    encoded = [cursors.encode(value, f"argument {index}") for index, value in enumerate(args)]
    named = {name: cursors.encode(value, f"argument {name!r}") for name, value in kwargs.items()}
    job_class.check_call(args, kwargs)
    call: list[Any] = [job_class.path(), encoded, named]
    if portion is not None:
        call.append({"portion": [cursors.encode(portion.after), portion.limit]})
    settings = {"description": _description(job_class, args, kwargs), **(options or {})}
    return _Enqueue(queue, job_class, call, settings).run()


class _Enqueue:
    """One call of :func:`enqueue`.

    :param call: arguments of ``perform``. :param settings: of ``Queue.enqueue_call``.
    """

    def __init__(self, queue: Queue, job_class: type[Job], call: list[Any], settings: dict[str, Any]) -> None:
        self._queue, self._job_class, self._call, self._settings = queue, job_class, call, settings
        self._id: str | None = settings.get("job_id")
        self._digest = _digest(call)

    def run(self) -> RQJob:
        """Enqueue the job, or return the one that is there."""
        if self._id is not None:
            self._check_store(self._id)
        if not self._queue.is_async or any(self._settings.get(name) for name in _PLAIN_ONLY):
            under_way = self._under_way()
            if under_way is None:
                under_way = self._queue.enqueue_call(PERFORM, args=tuple(self._call), **self._settings)
                strays.add(self._settings.get("pipeline") or self._queue.connection, under_way.id)
            return under_way
        with self._queue.connection.pipeline() as pipeline:
            while True:
                try:
                    if self._id is not None:
                        pipeline.watch(RQJob.key_for(self._id))
                    job = self._under_way()
                    if job is None:
                        job = self._enqueue(pipeline)
                except WatchError:
                    continue  # it has begun, ended or was enqueued by another: look again
                return job

    def _enqueue(self, pipeline: Pipeline) -> RQJob:
        pipeline.multi()
        settings = {**self._settings, "pipeline": pipeline}
        job = self._queue.enqueue_call(PERFORM, args=tuple(self._call), **settings)
        if self._id is not None:  # what is left of an earlier round; its progress goes on counting epochs
            pipeline.hdel(job.key, UNKNOWN, DEAD_STARTS)
            requests.forget(pipeline, job.id)
            for registry in strays.REGISTRIES.values():
                pipeline.zrem(getattr(self._queue, registry).key, job.id)
            if job.ttl is None:
                pipeline.persist(job.key)  # else it would expire with the earlier round's result
        strays.add(pipeline, job.id)
        pipeline.execute()
        return job

    def _under_way(self) -> RQJob | None:
        """Return the job under this id that is to be left as it is, or None if it is to be enqueued.

        :raises UsageError: if it is another one that is not over.
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
        """Return in what the job is another one, in words."""
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
        """Refuse an id that another, unfinished job has in a store of its own; RQ may have forgotten that job.

        Where the store cannot be reached from here, a worker refuses it.
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


def _check_class(job_class: Any) -> None:
    if not (isinstance(job_class, type) and issubclass(job_class, Job)):
        raise UsageError(f"enqueue() takes a ContinuableJob or an IterationJob, found {job_class!r}")
    if job_class.__module__ == "__main__":
        raise UsageError(
            f"{job_class.__qualname__} is defined in __main__, where no worker finds it; move it into a module that "
            "both can import"
        )
    if "<locals>" in job_class.__qualname__:
        raise UsageError(
            f"{job_class.__qualname__} is defined in a function, where no worker finds it; define it in the module"
        )


def _digest(call: Sequence[Any]) -> str:
    after, limit = call[3].get("portion", (None, None)) if len(call) > 3 else (None, None)
    return rounds.digest_of(call[1], call[2], after, limit)


class _Short(reprlib.Repr):
    """Representations that stay short and cost little, whatever the value."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 80
        self.maxlevel = 4

    def repr_instance(self, x: Any, level: int) -> str:
        """Return the representation of a value that is no built-in container."""
        if isinstance(x, bytes | bytearray) and len(x) > self.maxother:
            return f"{bytes(x[: self.maxother // 2])!r}…"
        return super().repr_instance(x, level)


def _description(job_class: type[Job], args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    """Return the call in words, as RQ and its dashboards show it, short enough for a line of a log."""
    shown = _Short().repr
    call = ", ".join([*map(shown, args[:20]), *(f"{name}={shown(value)}" for name, value in kwargs.items())])
    text = f"{job_class.__qualname__}({call})"
    return text if len(text) <= MAX_DESCRIPTION else f"{text[: MAX_DESCRIPTION - 2]}…)"
