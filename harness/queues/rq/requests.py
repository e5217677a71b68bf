"""Requests to a job on RQ: stop, pause, resume, cancel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rq.utils import as_text
from rq.worker import BaseWorker

from harness.errors import CorruptProgress
from harness.queues import requests
from harness.queues.calls import more_of
from harness.queues.connections import check_connection
from harness.queues.requests import cancel, forget, pause, request_stop, shutdown
from harness.queues.rq import keys
from harness.queues.rq.delayed import enqueue_scheduled
from harness.queues.rq.places import PERFORM, fetch, is_ours

if TYPE_CHECKING:
    from redis import Redis
    from rq import Queue
    from rq.job import Job

__all__ = ["PERFORM", "Requests", "cancel", "forget", "pause", "request_stop", "resume", "shutdown"]


def resume(queue: Queue, job_id: str) -> bool:
    """End a pause, and requeue a paused job; return whether it was paused.

    For a parallel run, this includes all paused instances. After a crash in between, some jobs still wait,
    and resuming again does the rest.
    """
    check_connection(queue.connection)
    queue.connection.delete(keys.control(job_id))
    back = [each for each in _waiting(queue, job_id) if enqueue_scheduled(queue, each)]
    return bool(back)


def _waiting(queue: Queue, job_id: str) -> list[str]:
    """Return the job and its instances that are in the scheduled registry, which may contain many others."""
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
        run_id: str | None = more_of(job.args).get("instance", [None])[0]
    except CorruptProgress:
        return None
    return run_id


class Requests(requests.Requests):
    """Stop source for requests to a job through Redis.

    :param worker_name: name of the RQ worker whose shutdown stops the job too.
    """

    def __init__(self, connection: Redis, worker_name: str | None = None) -> None:
        super().__init__(connection, BaseWorker.redis_worker_namespace_prefix + (worker_name or ""))
