"""Removal of old progress and history from Redis, and from a database, for the jobs of all queues.

A record is old if it was not written for a given time. It is removed only if no queue has its job any more, or has it
as finished or canceled: a job that waits, runs, has paused or has failed may continue from its progress. RQ has a job
while its hash exists, Celery and Dramatiq while its ticket exists.

The age of a string in Redis is its idle time, which reading resets too, so it may look younger than it is and is
removed later. The age of a history is that of its last entry. Each batch of deletions is one transaction under
``WATCH`` on the records, on RQ's jobs and on tickets: if one of them is touched in between, the batch stays. A crash
or a lost answer leaves records that the next run removes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError, WatchError
from rq.job import Job as RQJob

from harness.errors import UsageError
from harness.queues.connections import check_connection
from harness.queues.keys import ticket
from harness.queues.rq import keys
from harness.stores import redis as store_keys
from harness.stores.rq_meta import RQMetaStore
from harness.stores.sql import SqlStore

if TYPE_CHECKING:
    from redis import Redis

BATCH = 500
"""Number of records that are read, and deleted, at a time."""

OVER = {"completed", "cancelled"}
"""States of progress from which a job does not continue."""

ENDED = {b"finished", "finished", b"canceled", "canceled"}
"""RQ's statuses of jobs that do not continue, as Redis returns them."""

DONE = {b"completed", "completed", b"cancelled", "cancelled"}
"""Outcomes in tickets of jobs that do not continue, as Redis returns them."""


@dataclass
class Pruned:
    """Result of pruning.

    :ivar removed: number of records removed, or to be removed, by kind.
    :ivar kept: number of old records of jobs that a queue still has.
    """

    removed: dict[str, int] = field(default_factory=dict)
    kept: int = 0

    def add(self, kind: str, number: int) -> None:
        """Count records."""
        if number:
            self.removed[kind] = self.removed.get(kind, 0) + number


def prune_redis(
    connection: Redis, seconds: float, *, dry_run: bool = False, unfinished: bool = False
) -> Pruned:
    """Remove old progress, history and shared records from Redis.

    :param seconds: minimum age. :param dry_run: count only. :param unfinished: also records of jobs that a
        queue still has.
    """
    check_connection(connection)
    pruned = Pruned()
    prefixes = {
        "progress": [store_keys.PREFIX], "history": [keys.history(""), keys.heartbeat(""), keys.control("")],
        "shared": list(dict.fromkeys([f"{keys.PREFIX}shared:", f"{RQMetaStore._shared_prefix}shared:"])),  # noqa: SLF001 - of this package
    }  # fmt: skip
    for kind, several in prefixes.items():
        for prefix in several:
            found = connection.scan_iter(match=_literal(prefix) + "*", count=BATCH)
            for batch in _batches(found):
                old = _old(connection, prefix, batch, seconds)
                owners = {key: _owner(prefix, key) for key in old}
                number, kept = _remove(connection, owners, dry_run=dry_run, unfinished=unfinished)
                pruned.add(kind, number)
                pruned.kept += kept
    return pruned


def prune_sql(
    store: SqlStore,
    connection: Redis | None,
    seconds: float,
    *,
    dry_run: bool = False,
    unfinished: bool = False,
) -> Pruned:
    """Remove old progress and shared records from a database.

    :param connection: to the Redis of the queues. Without it, only progress of jobs that are over is removed.
    """
    pruned, last = Pruned(), ""
    while rows := store.older_than(seconds, last, BATCH):
        last = rows[-1][0]
        known = set() if unfinished else _unfinished(connection, [job_id for job_id, _ in rows])
        old = [
            job_id
            for job_id, state in rows
            if job_id not in known and (unfinished or connection is not None or state in OVER)
        ]
        pruned.kept += len(rows) - len(old)
        pruned.add("progress", len(old) if dry_run else store.prune(old, [], seconds))
    last = ""
    while found := store.shared_older_than(seconds, last, BATCH):
        last = found[-1]
        known = set() if unfinished else _unfinished(connection, [_owner("", each) for each in found])
        shared = [
            each for each in found if unfinished or (connection is not None and _owner("", each) not in known)
        ]
        pruned.kept += len(found) - len(shared)
        pruned.add("shared", len(shared) if dry_run else store.prune([], shared, seconds))
    return pruned


def _remove(connection: Redis, owners: dict[str, str], *, dry_run: bool, unfinished: bool) -> tuple[int, int]:
    """Remove the keys of jobs that do not continue; return the numbers of removed and kept keys.

    :param owners: keys with the ids of their jobs.
    """
    if not owners:
        return 0, 0
    with connection.pipeline(transaction=True) as pipeline:
        jobs = set(owners.values())
        pipeline.watch(*owners, *map(RQJob.key_for, jobs), *map(ticket, jobs))
        known = set() if unfinished else _unfinished(connection, list(owners.values()))
        gone = [key for key, owner in owners.items() if owner not in known]
        if dry_run or not gone:
            return len(gone), len(owners) - len(gone)
        pipeline.multi()
        pipeline.unlink(*gone)
        try:
            removed: int = pipeline.execute()[0]
        except WatchError:
            removed = 0
        return removed, len(owners) - removed


def _old(connection: Redis, prefix: str, batch: Sequence[str], seconds: float) -> list[str]:
    ages = _ages(connection, prefix, batch)
    return [key for key, age in zip(batch, ages, strict=True) if age >= seconds]


def _ages(connection: Redis, prefix: str, batch: Sequence[str]) -> list[float]:
    """Return the age of each record in seconds; -1 if it is unknown."""
    streams = prefix == keys.history("")
    with connection.pipeline(transaction=False) as pipeline:
        pipeline.time()
        for key in batch:
            if streams:
                pipeline.xrevrange(key, count=1)
            else:
                pipeline.object("idletime", key)
        (now, _), *answers = pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, ResponseError) and "LFU" in str(answer):
            raise UsageError(
                "this Redis evicts by LFU and does not store the age of a key; use a TTL for RedisStore instead"
            )
    return [_age(answer, now) for answer in answers]


def _age(answer: Any, now: int) -> float:
    if isinstance(answer, int):
        return answer
    if isinstance(answer, list) and answer:
        number = answer[0][0]
        millis = (number.decode() if isinstance(number, bytes) else number).partition("-")[0]
        return max(0.0, now - int(millis) / 1000)
    return -1.0


def _unfinished(connection: Redis | None, job_ids: Sequence[str]) -> set[str]:
    """Return the jobs that a queue has and that may continue."""
    if connection is None or not job_ids:
        return set()
    with connection.pipeline(transaction=False) as pipeline:
        for job_id in job_ids:
            pipeline.hget(RQJob.key_for(job_id), "status")
            pipeline.hmget(ticket(job_id), "state", "outcome")
        # A key of another type is unknown, so it counts as a job that may continue.
        answers = pipeline.execute(raise_on_error=False)
    return {
        job_id
        for job_id, status, found in zip(job_ids, answers[::2], answers[1::2], strict=True)
        if _in_rq(status) or _has_ticket(found)
    }


def _in_rq(status: Any) -> bool:
    return status is not None and (isinstance(status, Exception) or status not in ENDED)


def _has_ticket(found: Any) -> bool:
    """Return whether a ticket is that of a job that may continue, which a failed one does by ``harness requeue``."""
    if isinstance(found, Exception):
        return True
    state, outcome = found
    return state is not None and (state not in {b"over", "over"} or outcome not in DONE)


def _owner(prefix: str, key: str) -> str:
    """Return the id of the job that a record belongs to."""
    name = key.removeprefix(prefix)
    return name.removeprefix("parallel:").partition("@")[0] if name.startswith("parallel:") else name


def _batches(found: Iterator[Any]) -> Iterator[list[str]]:
    """Return keys in batches; a key that is not UTF-8 does not belong to this package."""
    texts = (_text(each) for each in found)
    clean = (each for each in texts if each is not None)
    while batch := list(islice(clean, BATCH)):
        yield batch


def _text(key: Any) -> str | None:
    try:
        return key.decode() if isinstance(key, bytes) else str(key)
    except UnicodeDecodeError:
        return None


def _literal(prefix: str) -> str:
    return "".join(f"\\{each}" if each in "*?[]^\\" else each for each in prefix)
