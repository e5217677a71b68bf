"""Fork a job that is over: a new job does its work again from an earlier place, and the old one stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from redis.exceptions import WatchError
from rq.job import JobStatus
from rq.utils import now

from harness.errors import UsageError
from harness.queues.rewinding import copied, store_first, take_back, taken
from harness.queues.rq import requests, strays
from harness.queues.rq.instances import enqueue_of
from harness.queues.rq.places import fetch, queue_of
from harness.queues.rq.requeuing import set_back
from harness.stores.rq_meta import FIELD, RQMetaStore

if TYPE_CHECKING:
    from redis import Redis
    from rq.job import Job as RQJob


def fork(
    connection: Redis,
    job_id: str,
    *,
    step: str | None = None,
    cursor: Any = None,
    new_id: str | None = None,
    at_front: bool = False,
) -> RQJob:
    """Enqueue a new job like one that is over, with its progress as it was at an earlier place.

    The new job has the class, the arguments, the queue and the settings of the old one. Attributes, the count of items
    and what was quarantined are copied; counts of executions begin at 0. The old job is not changed. Effects happen a
    second time, and under other keys: ``idempotency_key()`` differs, because the job is another one.

    The progress of a store of its own is saved first. A crash after that: the record belongs to no job, and a second
    call with the same id uses it. Then one transaction stores the job, and progress that RQ keeps, and enqueues it. A
    crash before it: there is no new job. A lost answer: it is there, and a second call with the same id says so.

    :param step: and *cursor*: the place, as for :func:`harness.queues.rq.rewind`.
    :param new_id: id of the new job; by default a random one.
    :raises UsageError: as :func:`harness.queues.rq.rewind`, and if there is a job or progress under the new id.
    :raises CursorError: for a cursor that is no JSON value.
    """
    old, store, progress = set_back(connection, job_id, step, cursor)
    new = _like(connection, old, new_id)
    record, queue = copied(progress, new.id, enqueue_of(new)), queue_of(new)
    kept_by_rq = isinstance(store, RQMetaStore)
    with connection.pipeline() as pipeline:
        pipeline.watch(new.key)
        if pipeline.exists(new.key):
            raise taken(new.id, "a job")
        if not kept_by_rq:
            store_first(store, record)
        pipeline.multi()
        requests.forget(pipeline, new.id)  # of an earlier job under this id
        strays.add(pipeline, new.id)
        queue._enqueue_job(new, pipeline=pipeline, at_front=at_front)  # noqa: SLF001 - as RQ's registries do
        if kept_by_rq:
            pipeline.hset(new.key, FIELD, record.to_json())
        try:
            pipeline.execute()
        except WatchError:  # another enqueued a job under the id just now
            if not kept_by_rq:
                take_back(store, new.id)
            raise taken(new.id, "a job") from None
    return new


def _like(connection: Redis, old: RQJob, new_id: str | None) -> RQJob:
    """Return a job like another, with nothing of its executions, its group and what it depended on."""
    new = fetch(connection, old.id)
    if new is None:
        raise UsageError(f"job {old.id} was deleted")
    try:
        new.id = str(uuid4()) if new_id is None else new_id
    except (TypeError, ValueError) as error:
        raise UsageError(f"got {new_id!r} as the id of a job: {error}") from None
    new.created_at, new._status = now(), JobStatus.CREATED  # noqa: SLF001 - set_status() writes
    new.enqueued_at = new.started_at = new.ended_at = new.last_heartbeat = None
    new.worker_name = new.group_id = new.number_of_retries = new.repeats_left = new.repeat_intervals = None
    new._dependency_ids, new._result, new._exc_info = [], None, None  # noqa: SLF001 - there is no other way
    return new
