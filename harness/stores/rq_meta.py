"""Progress in the ``meta`` of the RQ job: it lives, expires and is deleted with the job, and needs no set-up.

It is one field of ``meta``, beside whatever the job's author keeps there, and it is JSON in JSON: a worker of
another release, or a dashboard, sees a string and leaves it alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from redis.exceptions import WatchError
from rq.job import Job as RQJob
from rq.job import get_current_job

from harness.errors import CorruptProgress
from harness.progress import Progress
from harness.stores import shared
from harness.stores.memory import superseded

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

FIELD = "continuation"
"""The key in ``job.meta``."""


Change = Callable[[Progress | None], Progress | None]


class RQMetaStore:
    """Keeps progress in the hash of the RQ job, read and written under ``WATCH``.

    RQ writes all of ``meta`` whenever it saves a job. So each save also goes into the ``meta`` of the job object
    that is running, and what the author put into it and saved is read again before it is written.

    :param connection: where the RQ jobs are.
    """

    def __init__(self, connection: Redis) -> None:
        self._connection = connection

    def claim(self, job_id: str) -> Progress:
        """Take the job over with a raised epoch."""

        def claimed(stored: Progress | None) -> Progress:
            progress = stored or Progress(job_id)
            progress.epoch += 1
            return progress

        progress, _ = self._change(job_id, claimed)
        assert progress is not None  # noqa: S101 - claimed() makes one
        return progress

    def save(self, progress: Progress) -> int:
        """Store the progress unless the job was claimed since."""

        def saved(stored: Progress | None) -> Progress:
            if stored is None or stored.epoch != progress.epoch:
                raise superseded(progress, stored)
            return progress

        return self._change(progress.job_id, saved)[1]

    def load(self, job_id: str) -> Progress | None:
        """Return the stored progress, or None."""
        return _progress(job_id, _meta(job_id, self._connection.hget(RQJob.key_for(job_id), "meta")))

    def delete(self, job_id: str) -> None:
        """Forget the progress; the rest of ``meta`` stays."""
        self._change(job_id, lambda _: None)

    def read(self, key: str) -> str | None:
        """Return what is shared under the key."""
        return shared.read(self._connection, key)

    def replace(self, key: str, before: str | None, after: str) -> bool:
        """Share something else, unless somebody was faster."""
        return shared.replace(self._connection, key, before, after)

    def _change(self, job_id: str, change: Change) -> tuple[Progress | None, int]:
        key = RQJob.key_for(job_id)
        with self._connection.pipeline() as pipeline:
            while True:
                try:
                    return self._try_change(pipeline, job_id, key, change)
                except WatchError:
                    # A heartbeat or a status touched the job in between; what it wrote is not ours: read again.
                    continue

    def _try_change(
        self, pipeline: Pipeline, job_id: str, key: str, change: Change
    ) -> tuple[Progress | None, int]:
        pipeline.watch(key)
        meta = _meta(job_id, pipeline.hget(key, "meta"))
        progress = change(_progress(job_id, meta))
        text = None if progress is None else progress.to_json()
        if text is None:
            meta.pop(FIELD, None)
        else:
            meta[FIELD] = text
        pipeline.multi()
        # If the process dies before EXEC nothing is stored, after it everything is; if only the answer is
        # lost, redis-py raises and the execution fails with its progress stored or not, both of them true.
        pipeline.hset(key, "meta", json.dumps(meta))
        pipeline.execute()
        _update_running_job(job_id, text)
        return progress, len(text or "")


def _meta(job_id: str, raw: Any) -> dict[str, Any]:
    if raw is None:
        return {}
    try:
        meta = json.loads(raw)
    except ValueError as error:
        raise CorruptProgress(
            f"the meta of RQ job {job_id} is not JSON; enqueue it on a queue with serializer='json' "
            "(nothing is ever unpickled here); it was left as it is"
        ) from error
    if not isinstance(meta, dict):
        raise CorruptProgress(
            f"the meta of RQ job {job_id} is {meta!r}, not a JSON object; it was left as it is"
        )
    return meta


def _progress(job_id: str, meta: dict[str, Any]) -> Progress | None:
    text = meta.get(FIELD)
    if text is None:
        return None
    if not isinstance(text, str):
        raise CorruptProgress(f"the progress of job {job_id} is {text!r}, not a str; it was left as it is")
    return Progress.from_json(job_id, text)


def _update_running_job(job_id: str, text: str | None) -> None:
    job = get_current_job()
    if job is not None and job.id == job_id:
        if text is None:
            job.meta.pop(FIELD, None)
        else:
            job.meta[FIELD] = text
