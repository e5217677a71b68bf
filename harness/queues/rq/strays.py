"""Requeue jobs whose status is queued or started, but that are in no place.

RQ's worker of several queues loses a job if it is killed while it dequeues it. A queue's list may be deleted.
An application may write an old copy of a job. So unfinished jobs are in a sorted set, :data:`~.keys.OPEN`,
with the time of their next check: each sweep checks a limited number, and no process scans all keys. A job
that RQ has deleted and an application saved once more is not in it: it stays as it is. A job that has ended
stays in another set for a while: if an application saves an old copy of it, it gets its status back.

A job may be on its way, for a moment, from its queue to the started registry. So a job is requeued only if
two checks found it in no place. Crash between the checks: Redis has the result of the first one. The requeue
is one transaction, and happens only if the job is still nowhere.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from rq import Queue
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.serializers import JSONSerializer

from harness.queues.periodic import lease_seconds, recover_seconds
from harness.queues.rq.entries import ask, complaints, is_wrong_data, text_of, usable
from harness.queues.rq.keys import DELAYED, ENDED, OPEN, STRAYS
from harness.queues.rq.leases import while_owned
from harness.queues.rq.places import PERFORM, fetch, is_ours, places_of, queue_of
from harness.queues.rq.retention import forget

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

BATCH, SAMPLE = 500, 20
"""Number of open jobs, and of ended jobs, that a sweep checks."""

ENDED_SECONDS = 600
"""Seconds for which an ended job is checked."""

CLOSE_LOOKS, ELEMENTS = 50, 1_000_000
"""Number of jobs that a sweep searches everywhere, and of queue elements that it reads for that."""

OVER = {JobStatus.FINISHED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.STOPPED}
REGISTRIES = {
    JobStatus.FINISHED: "finished_job_registry", JobStatus.CANCELED: "canceled_job_registry",
    JobStatus.FAILED: "failed_job_registry",
}  # fmt: skip
"""Registries of jobs that are over, with the status of each."""

log = logging.getLogger("harness.rq")


@dataclass(frozen=True)
class Open:
    """Result of a first check of an open job."""

    id: str
    status: str
    origin: str
    enqueued_at: str


def add(pipeline: Pipeline | Redis, job_id: str) -> None:
    """Record that a job is unfinished, in the transaction that enqueues it."""
    pipeline.zadd(OPEN, {job_id: 0}, nx=True)
    pipeline.zrem(ENDED, job_id)


def remove(pipeline: Pipeline, *job_ids: str, now: float) -> None:
    """Record that jobs are over."""
    pipeline.zrem(OPEN, *job_ids)
    pipeline.zadd(ENDED, dict.fromkeys(job_ids, now))


def find(connection: Redis, now: float, busy: set[str]) -> tuple[list[str], bool]:
    """Check some open jobs, and requeue those found in no place twice; return their ids, and whether there are more.

    :param now: seconds of the Redis server's clock. :param busy: ids of jobs that run or were just dequeued.
    """
    with connection.pipeline(transaction=False) as pipeline:
        pipeline.zrangebyscore(OPEN, "-inf", now, start=0, num=BATCH)
        pipeline.zremrangebyscore(ENDED, "-inf", now - ENDED_SECONDS)
        pipeline.zrandmember(ENDED, SAMPLE)
        found, _, ended = pipeline.execute()
    ended = _readable(connection, ENDED, ended)
    if ended:
        _check_ended(connection, ended)
    ids = _readable(connection, OPEN, found)
    if not ids:
        return [], len(found) == BATCH
    jobs = _look(connection, ids)
    over = [each.id for each in jobs if each.id not in busy and (not each.status or each.status in OVER)]
    suspects = _suspects(connection, [each for each in jobs if each.id not in busy and each.id not in over])
    chosen = _affordable(connection, suspects)
    back, nowhere = [], []
    for each in chosen:
        place = _look_everywhere(connection, each, now)
        nowhere += [each.id] if place == "nowhere" else []
        over += [each.id] if place == "over" else []
        back += [each.id] if place == "back" else []
    later = {each.id for each in suspects} - {each.id for each in chosen}
    rest = set(ids) - set(over) - set(nowhere) - later
    with connection.pipeline(transaction=False) as pipeline:
        if over:
            remove(pipeline, *over, now=now)
        forget(pipeline, [each.id for each in jobs if each.id in over and not each.status])
        if rest:
            pipeline.zadd(OPEN, dict.fromkeys(rest, now + recover_seconds()), xx=True)
            pipeline.zrem(STRAYS, *rest)
        if nowhere:
            pipeline.zadd(OPEN, dict.fromkeys(nowhere, now + lease_seconds()), xx=True)
            pipeline.zadd(STRAYS, dict.fromkeys(nowhere, now), nx=True)
        pipeline.execute()
    return back, len(found) == BATCH


def _readable(connection: Redis, key: str, names: list[bytes]) -> list[str]:
    """Return the names in a set of this package as text, and remove those that are not job ids."""
    read = {each: text_of(each) for each in names}
    wrong = [each for each, text in read.items() if not text]
    for each in wrong:
        complaints.say(f"entry of {key}", each, "it must be the id of a job")
    if wrong:  # ours, and of no use: they would come first in each look
        connection.zrem(key, *wrong)
    return [text for text in read.values() if text]


def ours_or_gone(connection: Redis, job_id: str) -> bool | None:
    """Return whether a job may be requeued or removed from the set; None, with a log line, if it is unreadable.

    :raises RedisError: if Redis cannot be used.
    """
    try:
        job = fetch(connection, job_id)
        ours = job is None or job.func_name == PERFORM
    except Exception as error:
        if isinstance(error, RedisError) and not is_wrong_data(error):
            raise
        complaints.say("job", job_id, error)
        return None
    return ours


def _check_ended(connection: Redis, ids: list[str]) -> None:
    """Restore the status of jobs that are over, if an old copy was saved."""
    gone = []
    with connection.pipeline(transaction=False) as pipeline:
        pipeline.zmscore(OPEN, ids)
        scores = pipeline.execute()[0]
    for each, score in zip(_look(connection, ids), scores, strict=True):
        if not each.status:
            gone.append(each.id)
        elif each.status not in OVER and score is None:
            _give_status(connection, each.id)
    if gone:
        with connection.pipeline(transaction=False) as pipeline:
            pipeline.zrem(ENDED, *gone)
            forget(pipeline, gone)
            pipeline.execute()


def _give_status(connection: Redis, job_id: str) -> None:
    """Give a job the status of its registry, unless it is unfinished."""
    try:
        job = fetch(connection, job_id)
        if job is not None and is_ours(job) and not places_of(job) and _ended(job) is not None:
            _put_back(connection, job_id)
    except Exception as error:
        if isinstance(error, RedisError) and not is_wrong_data(error):
            raise
        complaints.say("job", job_id, error)


def _look(connection: Redis, ids: list[str]) -> list[Open]:
    with connection.pipeline(transaction=False) as pipeline:
        for job_id in ids:
            pipeline.hmget(RQJob.key_for(job_id), "status", "origin", "enqueued_at", "created_at")
        answers = ask(pipeline)
    found = []
    for job_id, values in zip(ids, answers, strict=True):
        # An unreadable one has no status here: it counts as over, and is not checked again.
        read = [None] * 4 if not usable("job", job_id, values) else [text_of(each or b"") for each in values]
        if None in read and not isinstance(values, Exception):
            complaints.say("job", job_id, "its status, origin or times are not UTF-8")
        status, origin, enqueued_at, created_at = ("", "", "", "") if None in read else map(str, read)
        found.append(Open(job_id, status if created_at else "", origin, enqueued_at))
    return found


def _suspects(connection: Redis, jobs: list[Open]) -> list[Open]:
    """Return the jobs that may be in no place, judged by the ends of their queues."""
    origins = sorted({each.origin for each in jobs})
    queues = {name: Queue(name, connection=connection, serializer=JSONSerializer) for name in origins}
    scheduled = [each for each in jobs if each.status == JobStatus.SCHEDULED]
    with connection.pipeline(transaction=False) as pipeline:
        for name in origins:
            pipeline.lindex(queues[name].key, 0)
        for each in scheduled:
            pipeline.zscore(queues[each.origin].scheduled_job_registry.key, each.id)
        # A key of another type counts as missing: the job is searched everywhere, and logged there.
        answers = [None if isinstance(each, Exception) else each for each in ask(pipeline)]
    heads = dict(zip(origins, answers[: len(origins)], strict=True))
    due = dict(zip((each.id for each in scheduled), answers[len(origins) :], strict=True))
    noted = {job_id: score for job_id, score in due.items() if score is not None}
    if noted:
        connection.zadd(DELAYED, noted, nx=True)
    first = _enqueued(connection, {name: head for name, head in heads.items() if head is not None})
    suspects = []
    for each in jobs:
        # A waiting job was enqueued after the one at the front, unless that one was put there: then search
        # everywhere.
        waits = each.origin in first and each.enqueued_at >= first[each.origin]
        lost = {
            JobStatus.STARTED: True, JobStatus.QUEUED: not waits, JobStatus.SCHEDULED: each.id not in noted,
        }  # fmt: skip
        if any(each.status == status and suspect for status, suspect in lost.items()):
            suspects.append(each)
    return suspects


def _enqueued(connection: Redis, heads: dict[str, Any]) -> dict[str, str]:
    """Return the enqueue time of the job at the front of each queue."""
    with connection.pipeline(transaction=False) as pipeline:
        for head in heads.values():
            pipeline.hget(RQJob.key_for(text_of(head) or ""), "enqueued_at")
        answers = ask(pipeline)
    times = {
        name: text_of(answer)
        for name, answer in zip(heads, answers, strict=True)
        if isinstance(answer, bytes)
    }
    return {name: time for name, time in times.items() if time}


def _affordable(connection: Redis, suspects: list[Open]) -> list[Open]:
    """Return the jobs to search in their queues now; the others come first in the next sweep."""
    if not suspects:
        return []
    with connection.pipeline(transaction=False) as pipeline:
        for each in suspects[:CLOSE_LOOKS]:
            pipeline.llen(Queue(each.origin, connection=connection, serializer=JSONSerializer).key)
        lengths = [0 if isinstance(each, Exception) else each for each in ask(pipeline)]
    chosen: list[Open] = []
    elements = 0
    for each, length in zip(suspects[:CLOSE_LOOKS], lengths, strict=True):
        if chosen and elements + length > ELEMENTS:
            break
        chosen.append(each)
        elements += length
    return chosen


def _look_everywhere(connection: Redis, suspect: Open, now: float) -> str:
    """Return ``back`` for a requeued job, ``nowhere`` for one found in no place once, ``over``, or nothing."""
    try:
        job = fetch(connection, suspect.id)
        if job is None or not is_ours(job):
            return "over"
        if places_of(job):
            return ""
        seen = connection.zscore(STRAYS, suspect.id)
        if seen is None or seen + lease_seconds() > now:
            return "nowhere"
        return "back" if _put_back(connection, suspect.id) else ""
    except Exception as error:
        if isinstance(error, RedisError) and not is_wrong_data(error):
            raise
        complaints.say("job", suspect.id, error)
        return ""


def _put_back(connection: Redis, job_id: str) -> bool:
    """Requeue a job in no place, unless a registry says that it is over; return whether it was requeued."""
    found: RQJob | None = None
    ended: JobStatus | None = None

    def nowhere(_: Pipeline) -> bool:
        nonlocal found, ended
        found = fetch(connection, job_id)
        if found is None or places_of(found):
            return False
        ended = _ended(found)
        return True

    def write(pipeline: Pipeline) -> None:
        assert found is not None  # noqa: S101 - nowhere() has found it
        if ended is not None:  # an old copy was saved after its end
            pipeline.hset(found.key, "status", ended.value)
            return
        if found.ttl is None:
            pipeline.persist(found.key)
        queue_of(found)._enqueue_job(found, pipeline=pipeline)  # noqa: SLF001 - as Job.retry does

    if not while_owned(RQJob.key_for(job_id), connection, nowhere, write) or found is None:
        return False
    if ended is not None:
        log.warning("job %s: its status was that of an old copy, it is %s again", job_id, ended.value)
        return False
    log.warning("job %s was in no queue and no registry, it is back in queue %s", job_id, found.origin)
    return True


def _ended(job: RQJob) -> JobStatus | None:
    """Return the end of the job according to RQ's registries; a repeating job has ended before."""
    if job.repeats_left is not None:
        return None
    queue = queue_of(job)
    with job.connection.pipeline(transaction=False) as pipeline:
        for registry in REGISTRIES.values():
            pipeline.zscore(getattr(queue, registry).key, job.id)
        scores = pipeline.execute()
    return next((status for status, score in zip(REGISTRIES, scores, strict=True) if score is not None), None)
