"""Enqueue delayed jobs when they are due, with or without a scheduler of RQ.

They wait in RQ's scheduled registry, where RQ's dashboards show them and its scheduler finds them. That
registry may hold many other jobs. So the jobs of this package are also in a sorted set, by the time of the
next check. The set is a hint: the registry decides, and the process that removes a job from it enqueues the
job.

If the process crashes between two checks, the next check of any worker does the same.
:mod:`harness.queues.rq.strays` restores a lost hint.
"""

from __future__ import annotations

import logging
import signal
import threading
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from rq.job import Job as RQJob
from rq.scheduler import RQScheduler

from harness.queues.periodic import shown
from harness.queues.rq.entries import ask, complaints, is_wrong_data, queue_named, text_of
from harness.queues.rq.keys import DELAYED
from harness.queues.rq.leases import while_owned
from harness.queues.rq.places import SCHEDULED, fetch, is_ours, places_of
from harness.queues.turns import turn

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline
    from rq import Queue

IDLE_SECONDS, LOOK_SECONDS, SOON_SECONDS = 5.0, 2.5, 1.0
"""Seconds between two checks: if no job waits, if one waits, and if one is due within a minute."""

BATCH = 100
"""Maximum number of jobs that a check enqueues; the next check follows immediately."""

SCHEDULER_SECONDS = 2.0
"""Head start for RQ's scheduler, if one runs: it does not notice that another process was faster."""

log = logging.getLogger("harness.rq")


def note(pipeline: Pipeline | Redis, job_id: str, due: float = 0) -> None:
    """Record that a job was put into RQ's scheduled registry, in the same transaction.

    :param due: seconds of the registry's clock; with 0 the next check reads it there.
    """
    pipeline.zadd(DELAYED, {job_id: due})


def enqueue_scheduled(queue: Queue, job_id: str) -> bool:
    """Put a job of the scheduled registry into its queue, and return whether this call did.

    One transaction, made only if the job is still in the registry: a crash before it changes nothing; after
    it the job is in the queue. If the answer is lost, the next check finds that the job has left the
    registry.
    """
    registry = queue.scheduled_job_registry.key
    done = False

    def waits(pipeline: Pipeline) -> bool:
        return pipeline.zscore(registry, job_id) is not None

    def write(pipeline: Pipeline) -> None:
        nonlocal done
        job = fetch(queue.connection, job_id)
        done = job is not None and places_of(job) <= {SCHEDULED}
        pipeline.zrem(registry, job_id)
        pipeline.zrem(DELAYED, job_id)
        if job is None or not done:  # deleted, or enqueued again under its id
            return
        enqueue = queue._enqueue_rate_limited_job if job.has_rate_limit else queue._enqueue_job  # noqa: SLF001 - as RQ's scheduler
        enqueue(job, pipeline=pipeline, at_front=job.should_enqueue_at_front())

    return while_owned(RQJob.key_for(job_id), queue.connection, waits, write) and done


def enqueue_due(connection: Redis) -> float:
    """Enqueue the jobs that are due, and return the number of seconds until the next check."""
    noted: list[Any] = connection.zrange(DELAYED, 0, BATCH - 1, withscores=True)
    if not noted:
        return IDLE_SECONDS
    seconds, micros = connection.time()
    now = seconds + micros / 1e6
    due = {job_id: text_of(job_id) for job_id, score in noted if score <= now}
    if due:
        wrong = [job_id for job_id, text in due.items() if not text]
        for each in wrong:
            complaints.say("delayed job", each, "it must be the id of a job")
        if wrong:  # of our set, and of no use: they would come first in each look
            connection.zrem(DELAYED, *wrong)
        _enqueue(connection, [text for text in due.values() if text], now)
        return 0.0
    wait = float(noted[0][1]) - now
    return min(wait, SOON_SECONDS) if wait < 60 else LOOK_SECONDS


def _enqueue(connection: Redis, job_ids: list[str], now: float) -> None:
    with connection.pipeline(transaction=False) as pipeline:
        for job_id in job_ids:
            pipeline.hget(RQJob.key_for(job_id), "origin")
        origins = [(text_of(each) or "") if isinstance(each, bytes) else "" for each in ask(pipeline)]
    queues = {name: queue_named(name, connection) for name in set(origins)}
    with connection.pipeline(transaction=False) as pipeline:
        for job_id, origin in zip(job_ids, origins, strict=True):
            pipeline.zscore(queues[origin].scheduled_job_registry.key, job_id)
            pipeline.exists(RQScheduler.get_locking_key(origin))
        answers = ask(pipeline)
    for job_id, origin, score, scheduler in zip(job_ids, origins, answers[::2], answers[1::2], strict=True):
        try:
            _go_on(queues[origin], job_id, score, head_start=SCHEDULER_SECONDS if scheduler else 0, now=now)
        except Exception as error:
            if isinstance(error, RedisError) and not is_wrong_data(error):
                raise
            complaints.say("delayed job", job_id, error)
            connection.zrem(DELAYED, job_id)


def _go_on(queue: Queue, job_id: str, score: Any, *, head_start: float, now: float) -> None:
    """Enqueue one job that may be due, or remove it from the set if it no longer waits or is not this package's."""
    connection = queue.connection
    if isinstance(score, Exception):
        raise score
    if score is None:  # another worker was faster, or it is gone
        connection.zrem(DELAYED, job_id)
    elif score + head_start > now:
        connection.zadd(DELAYED, {job_id: score + head_start}, xx=True)
    elif _readable(connection, job_id):
        if enqueue_scheduled(queue, job_id):
            log.info("job %s: its delay is over, it is in queue %s", job_id, queue.name)
    else:
        connection.zrem(DELAYED, job_id)


def _readable(connection: Redis, job_id: str) -> bool:
    """Return whether the job is gone or belongs to this package; RQ's scheduler handles others."""
    job = fetch(connection, job_id)
    return job is None or is_ours(job)


class DueLooks(threading.Thread):
    """A thread that enqueues delayed jobs when they are due, until it is closed."""

    def __init__(self, connection: Redis) -> None:
        super().__init__(name="harness-delayed", daemon=True)
        self._connection, self._closed, self._soon = connection, False, threading.Event()

    def run(self) -> None:
        """Check, and wait until a job is due."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGALRM})
        wait, failing = 0.0, ""
        while True:
            self._soon.wait(wait)
            self._soon.clear()
            if self._closed:
                return
            try:
                with turn():
                    wait = enqueue_due(self._connection)
                failing = ""
            except Exception as error:  # noqa: BLE001 - keeps the thread alive, whatever is stored in Redis
                if failing != type(error).__name__:
                    log.warning("%s: %s; it will be tried again", self.name, shown(error))
                failing, wait = type(error).__name__, LOOK_SECONDS

    def soon(self) -> None:
        """Check now: a job may have been delayed a moment ago."""
        self._soon.set()

    def close(self) -> None:
        """End it, and wait for that."""
        self._closed = True
        self._soon.set()
        self.join(timeout=5)
