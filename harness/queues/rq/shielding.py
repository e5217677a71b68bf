"""Protect jobs of crashed workers from RQ's maintenance, which would fail them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rq.job import Job as RQJob

from harness.queues.rq.entries import ask, job_id_of
from harness.queues.rq.leases import RQ_SECONDS
from harness.queues.rq.returns import belongs

if TYPE_CHECKING:
    from rq import Queue

SHIELDED = 1_000
"""Number of executions that one maintenance handles."""

BATCH = 100
"""Entries that one round trip reads."""


def shield(queue: Queue) -> None:
    """Protect jobs that a sweep will requeue, and unreadable entries, from RQ's maintenance.

    It handles expired scores. So executions of this package get a later score. Entries that RQ cannot read
    get an infinite one, because they would stop RQ's maintenance. Crash, or a lost answer: the next
    maintenance does the rest.
    """
    connection, key = queue.connection, queue.started_job_registry.key
    seconds, _ = connection.time()
    over: Any = connection.zrangebyscore(key, 0, seconds + RQ_SECONDS)
    if over[SHIELDED:]:  # the first job does not wait for them; the next maintenance looks at them
        connection.zadd(key, dict.fromkeys(over[SHIELDED:], seconds + 2 * RQ_SECONDS), xx=True)
    for start in range(0, min(len(over), SHIELDED), BATCH):
        entries = over[start : start + BATCH]
        names = [job_id_of(each) for each in entries]
        with connection.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.hgetall(RQJob.key_for(name or ""))
            answers = ask(pipeline)
        later: dict[Any, float] = {}
        for entry, name, fields in zip(entries, names, answers, strict=True):
            ours = None if name is None else belongs(connection, name, fields)
            if ours is not False:
                later[entry] = math.inf if ours is None else seconds + 2 * RQ_SECONDS
        if later:
            connection.zadd(key, later, xx=True)
