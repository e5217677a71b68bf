"""Progress in the ``meta`` of the RQ job: it lives, expires and is deleted with the job, and needs no set-up.

It is one field of ``meta``, beside whatever the job's author keeps there, and it is JSON in JSON: a worker of
another release, or a dashboard, sees a string and leaves it alone. What a death means for each write is said in
:mod:`harness.stores.watched`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rq.job import Job as RQJob
from rq.job import get_current_job

from harness.errors import CorruptProgress
from harness.stores.watched import Change, WatchedStore

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from harness.progress import Progress

FIELD = "continuation"
"""The key in ``job.meta``."""


class RQMetaStore(WatchedStore):
    """Keeps progress in the hash of the RQ job, read and written under ``WATCH``.

    RQ writes all of ``meta`` whenever it saves a job. So each save also goes into the ``meta`` of the job object
    that is running, and what the author put into it and saved is read again before it is written.

    :param connection: where the RQ jobs are.
    """

    def _key(self, job_id: str) -> str:
        return str(RQJob.key_for(job_id))

    def _get(self, connection: Redis, key: str) -> Any:
        return connection.hget(key, "meta")

    def _text(self, job_id: str, held: Any) -> str | None:
        try:
            meta = json.loads(held)
        except (ValueError, RecursionError) as error:
            raise CorruptProgress(
                f"the meta of RQ job {job_id} is not JSON; enqueue it on a queue with serializer='json' "
                "(nothing is ever unpickled here); it was left as it is"
            ) from error
        if not isinstance(meta, dict):
            raise CorruptProgress(
                f"the meta of RQ job {job_id} is {meta!r}, not a JSON object; it was left as it is"
            )
        text = meta.get(FIELD)
        if text is not None and not isinstance(text, str):
            raise CorruptProgress(
                f"the progress of job {job_id} is {text!r}, not a str; it was left as it is"
            )
        return text

    def _put(self, pipeline: Pipeline, key: str, held: Any, text: str | None) -> None:
        meta = {} if held is None else json.loads(held)
        if text is not None or FIELD in meta:  # to forget nothing must not make a job of it
            pipeline.hset(key, "meta", json.dumps(_with(meta, text)))

    def _change(self, job_id: str, change: Change) -> tuple[Progress | None, str | None]:
        progress, text = super()._change(job_id, change)
        job = get_current_job()
        if job is not None and job.id == job_id:
            _with(job.meta, text)
        return progress, text


def _with(meta: dict[str, Any], text: str | None) -> dict[str, Any]:
    if text is None:
        meta.pop(FIELD, None)
    else:
        meta[FIELD] = text
    return meta
