"""Requests to a job from outside: stop, pause, resume, cancel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from rq.utils import as_text
from rq.worker import BaseWorker

from harness.errors import CorruptProgress
from harness.queues.rq import keys
from harness.queues.rq.calls import more_of
from harness.queues.rq.connections import check_connection
from harness.queues.rq.delayed import enqueue_scheduled
from harness.queues.rq.places import PERFORM, fetch, is_ours
from harness.stops import CANCEL, PAUSE, Control, Flag

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline
    from rq import Queue
    from rq.job import Job

    from harness.progress import Position

__all__ = ["PERFORM", "Requests", "cancel", "pause", "request_stop", "resume", "shutdown"]

shutdown = Flag()
"""Set when the worker in this process is asked to stop; every job asks it at its checkpoints."""

REQUEST_TTL = 24 * 3600
"""Seconds after which a request is forgotten whose job never came."""


def request_stop(connection: Redis, job_id: str, reason: str = "requested") -> None:
    """Ask a job, wherever it runs, to stop at its next checkpoint once; it goes on when its turn comes again."""
    check_connection(connection)
    connection.set(keys.stop(job_id), reason, ex=REQUEST_TTL)


def pause(connection: Redis, job_id: str) -> None:
    """Have a job stop at its next checkpoint, or before it starts, and not go on before :func:`resume`.

    It then waits in RQ's scheduled registry, under a date that is never reached.
    """
    check_connection(connection)
    connection.set(keys.control(job_id), PAUSE)


def resume(queue: Queue, job_id: str) -> bool:
    """Take a pause back, and put a job that has paused into its queue; return whether it had.

    Of a parallel run, these are all its instances that have paused. If the process dies in between, jobs still wait,
    and resuming again does the rest.
    """
    check_connection(queue.connection)
    queue.connection.delete(keys.control(job_id))
    back = [each for each in _waiting(queue, job_id) if enqueue_scheduled(queue, each)]
    return bool(back)


def _waiting(queue: Queue, job_id: str) -> list[str]:
    """Return those of a job and its instances that are in the scheduled registry, which may hold many others."""
    connection, key = queue.connection, queue.scheduled_job_registry.key
    found = [job_id] if connection.zscore(key, job_id) is not None else []
    pattern = re.sub(r"([*?\[\]\\^-])", r"\\\1", job_id) + "-[0-9]*"
    for member, _ in connection.zscan_iter(key, match=pattern, count=1000):
        each = str(as_text(member))
        job = fetch(connection, each)  # the name is that of an instance; the job may be another application's
        if job is not None and is_ours(job) and _family(job) == job_id:
            found.append(each)
    return found


def _family(job: Job) -> str | None:
    try:
        family: str | None = more_of(job.args).get("instance", [None])[0]
    except CorruptProgress:
        return None
    return family


def cancel(connection: Redis, job_id: str) -> None:
    """Have a job stop for good at its next checkpoint, or before it starts; its ``on_cancel`` runs.

    Its progress is kept. Under our workers RQ then shows it as canceled, and its dependents do not run.
    """
    check_connection(connection)
    connection.set(keys.control(job_id), CANCEL, ex=REQUEST_TTL)


def forget(pipeline: Pipeline, job_id: str) -> None:
    """Forget what was asked of an earlier round of a job, in the transaction that enqueues it again."""
    pipeline.delete(keys.stop(job_id), keys.control(job_id))


class Requests:
    """The stop source for what was asked of a job from outside, through Redis.

    :param worker_name: the RQ worker whose shutdown stops the job too: RQ's own worker notes that it was asked to
        stop (``shutdown_requested_date``), but does not tell its work horse.
    """

    def __init__(self, connection: Redis, worker_name: str | None = None) -> None:
        check_connection(connection)
        self._connection = connection
        self._worker_key = BaseWorker.redis_worker_namespace_prefix + (worker_name or "")

    def at_start(self, at: Position) -> Control | None:
        """Return what holds before any work; a mere stop does not."""
        try:
            return _control(self._connection.mget(_controls(at)))
        except RedisError:
            return None  # it is asked again at a checkpoint

    def __call__(self, at: Position) -> str | None:
        """Look for a pause, a cancellation, the worker's shutdown, or a stop, which is taken so that it stops once.

        If the process dies after taking it, the request is gone, but so is the execution that it was meant for.
        """
        try:
            with self._connection.pipeline(transaction=False) as pipeline:
                pipeline.mget(_controls(at))
                pipeline.getdel(keys.stop(at.job_id))
                pipeline.hget(self._worker_key, "shutdown_requested_date")
                controls, reason, leaving = pipeline.execute()
        except RedisError:  # wrong data, too: a key of another program
            return None  # no reason to stop working; a stop that was taken now is lost, and may be asked for again
        if reason is not None:
            return _control(controls) or str(as_text(reason))
        return _control(controls) or ("worker leaves" if leaving else None)


def _controls(at: Position) -> list[str]:
    return [keys.control(job_id) for job_id in dict.fromkeys((at.job_id, at.family_id))]


def _control(values: list[Any]) -> Control | None:
    asked = [str(as_text(value)) for value in values if value is not None]
    return next((each for each in (CANCEL, PAUSE) if each in asked), None)
