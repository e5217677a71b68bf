"""Progress in the hash of the RQ job: it expires and is deleted with the job, and needs no set-up.

It is a separate field, :data:`FIELD`. RQ writes only the fields it knows when a job is saved, requeued, retried,
repeated or enqueued again under its id. So an application that calls ``job.save()`` or ``job.save_meta()`` cannot
overwrite it, even with an old copy of the job.

Older releases kept it in the job's ``meta``, under the same name. If the field is missing, it is read from ``meta``,
and the next write moves it to the field. A worker of an older release does not find the field, and starts the job from
the beginning.

:mod:`harness.stores.watched` says what a crash means for each write.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from rq.job import Job as RQJob
from rq.job import get_current_job

from harness.boundary.decoding import parse_json, shown
from harness.errors import CorruptProgress
from harness.stores.memory import superseded
from harness.stores.scripts import IN_HASH, replaced
from harness.stores.watched import Change, Put, WatchedStore

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from harness.progress import Progress

FIELD = "continuation"
"""The field of the job's hash; in older releases the key in ``job.meta``."""


class Held(NamedTuple):
    """Fields of a job's hash that may contain the progress.

    :ivar exists: whether the RQ job exists, not only some of its fields.
    """

    text: Any
    meta: Any
    exists: bool


class RQMetaStore(WatchedStore):
    """Store in the hash of the RQ job, written under ``WATCH`` or by a script.

    :param connection: connection to the Redis of the RQ jobs.
    """

    def _key(self, job_id: str) -> str:
        return str(RQJob.key_for(job_id))

    def _get(self, connection: Redis, key: str) -> Held | None:
        text, meta, created = connection.hmget(key, [FIELD, "meta", "created_at"])
        return None if text is meta is created is None else Held(text, meta, created is not None)

    def _text(self, job_id: str, held: Held) -> str | bytes | None:
        return held.text if held.text is not None else text_in_meta(job_id, held.meta)

    def _put(self, pipeline: Pipeline, key: str, held: Held | None, text: str | None) -> None:
        if text is not None:
            pipeline.hset(key, FIELD, text)
        elif held is not None and held.text is not None:
            pipeline.hdel(key, FIELD)
        meta = _without(held.meta) if held is not None else None
        if meta is not None:
            pipeline.hset(key, "meta", meta)

    def _replace(self, job_id: str, expected: str, text: str) -> bool:
        # The claim has moved progress of an older release out of meta, and removed it from this process's copy of meta.
        return replaced(
            self._connection, IN_HASH, self._key(job_id), expected=expected, text=text, last=FIELD
        )

    def _change(
        self, job_id: str, change: Change, put: Put | None = None
    ) -> tuple[Progress | None, str | None]:
        changed = super()._change(job_id, change, put)
        job = get_current_job()
        if job is not None and job.id == job_id:
            job.meta.pop(FIELD, None)  # otherwise RQ would write it again with the rest of meta
        return changed

    def renew(self, progress: Progress) -> int:
        """Store the progress of an execution whose record is gone.

        If the whole RQ job is gone, as after an eviction, the worker that runs it saves it again. The caller knows that
        the job was not deleted, because a deletion also removes the job's execution. It is one ``MULTI`` … ``EXEC``.
        """
        job = get_current_job()
        running = job if job is not None and job.id == progress.job_id else None

        def put(pipeline: Pipeline, key: str, held: Held | None, text: str | None) -> None:
            if held is None or not held.exists:
                if running is None:
                    raise superseded(progress, None)
                running.save(pipeline=pipeline, include_result=False)
                pipeline.persist(key)
            self._put(pipeline, key, held, text)

        return self._renew(progress, put)


def text_in_meta(job_id: str, meta: Any) -> str | None:
    """Return the progress that an older release stored in the ``meta`` of an RQ job.

    :param meta: bytes in Redis. :raises CorruptProgress: if the progress may be there but is unreadable.
    """
    if not _mentions(meta):
        return None  # any serializer's data, including a pickle of the application
    found = parse_json(meta, f"the meta of RQ job {job_id}, which contains progress,")
    text = found.get(FIELD) if isinstance(found, dict) else None
    if text is not None and not isinstance(text, str):
        raise CorruptProgress(f"the progress of job {job_id} is {shown(text)}, not a str; it was not changed")
    return text


def _without(meta: Any) -> str | None:
    """Return the ``meta`` of an RQ job without the progress in it; None if there is none."""
    if not _mentions(meta):
        return None
    try:
        found = parse_json(meta, "meta")
    except CorruptProgress:
        return None
    if not isinstance(found, dict) or FIELD not in found:
        return None
    del found[FIELD]
    return json.dumps(found)


def _mentions(meta: Any) -> bool:
    name = f'"{FIELD}"'
    return name in meta if isinstance(meta, str) else isinstance(meta, bytes) and name.encode() in meta
