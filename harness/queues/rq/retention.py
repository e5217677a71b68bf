"""TTL of the history of a job in Redis.

The history of an unfinished job is kept for 30 days after the last entry. After the end, history and heartbeat
expire with the RQ job: after its result TTL or its failure TTL, at most 30 days. ``HARNESS_HISTORY_TTL`` sets
another time. A worker that finds a job deleted removes its history.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from rq.defaults import DEFAULT_FAILURE_TTL, DEFAULT_RESULT_TTL

from harness.queues.history import TTL
from harness.queues.rq import keys

if TYPE_CHECKING:
    from redis.client import Pipeline
    from rq.job import Job

SETTING = "HARNESS_HISTORY_TTL"
"""Environment variable: TTL of the history after the end of a job, in seconds, instead of the job's own TTL."""


log = logging.getLogger("harness.rq")


def asked_ttl() -> int | None:
    """Return the setting in seconds; None if it is not set, or is not a number of 0 or more.

    A wrong setting is logged once and does not stop a job: nothing depends on the history.
    """
    return _seconds(os.environ.get(SETTING, ""))


@cache
def _seconds(text: str) -> int | None:
    if text.isascii() and text.isdecimal() and len(text) < 12:
        return int(text)
    if text:
        log.warning("%s takes seconds of 0 or more, such as 86400; got %r, which is ignored", SETTING, text)
    return None


def ttl_after(job: Job, outcome: str) -> int:
    """Return the TTL of the history after an end of an execution, in seconds.

    :param outcome: outcome as in the history. If the job is not over, or RQ runs it again, the TTL is that of
        an unfinished job.
    """
    if outcome == "completed":
        again, own, default = bool(job.repeats_left), job.result_ttl, DEFAULT_RESULT_TTL
    elif outcome == "failed":
        again, own, default = bool(job.retries_left), job.failure_ttl, DEFAULT_FAILURE_TTL
    elif outcome == "cancelled":
        again, own, default = False, TTL, TTL  # RQ keeps a canceled job until it is deleted
    else:
        return TTL
    if again:
        return TTL
    asked = asked_ttl()
    if asked is not None:
        return asked
    ttl = default if own is None else int(own)
    return TTL if ttl < 0 else min(ttl, TTL)  # negative is RQ's word for ever


def forget(pipeline: Pipeline, job_ids: Sequence[str]) -> None:
    """Remove history and heartbeat of jobs that RQ no longer has, unless the setting keeps them.

    A crash or a lost answer leaves them to ``harness prune``, or to their TTL.
    """
    if job_ids and asked_ttl() is None:
        pipeline.unlink(*[name(each) for each in job_ids for name in (keys.history, keys.heartbeat)])
