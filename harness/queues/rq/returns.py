"""Requeue jobs: one by its execution, one that never started, or many together.

What a crash means: one transaction requeues each job, or batch of jobs, only if the executions still own
their jobs and nothing has written to a job since it was read. Crash before ``EXEC``: nothing has changed, and the next
sweep does the same. Crash after it: the jobs are in their queue, and their executions are gone. If only the answer is
lost, redis-py raises, and the next sweep finds that the executions are gone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.exceptions import WatchError
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.executions import WORKER_EXECUTIONS_KEY_TEMPLATE, ExecutionRegistry
from rq.executions import Execution as RQExecution
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.job_lifecycle import record_job_failure
from rq.rate_limit import release_slot
from rq.serializers import JSONSerializer
from rq.utils import as_text, parse_composite_key

from harness.job import Job
from harness.queues.rq import strays
from harness.queues.rq.entries import ask, complaints, number, text_of, usable
from harness.queues.rq.keys import LEASES, OWNERS
from harness.queues.rq.leases import DEAD_STARTS, registered, while_owned
from harness.queues.rq.places import DEQUEUED, PERFORM, TAKEN_OVER, Where, fetch, is_ours, places_of

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

log = logging.getLogger("harness.rq")


def put_back(
    connection: Redis,
    queue: Queue,
    entry: str,
    *,
    died: bool,
    superseded: bool = False,
    running: Iterable[str] = (),
) -> bool:
    """Requeue the job of an execution, if that execution still owns it, and return whether it did.

    A job that another execution, its queue or a registry has stays there.

    :param entry: entry of the execution in RQ's started registry. :param died: whether its process crashed,
        not just had to exit. :param superseded: whether it found that another execution owns the job. :param
        running: all entries of that registry, where the caller has read them.
    """
    job_id, _ = parse_composite_key(entry)
    back, failed = False, None

    def write(pipeline: Pipeline) -> None:
        nonlocal back, failed
        back, failed = False, None
        # Read again under the watch: RQ writes the whole job, and others may have changed it.
        job = fetch(connection, job_id)
        if job is None:  # deleted, expired or evicted; a late write may have left single fields of it
            pipeline.delete(key)
        elif not places_of(job, entry=entry, running=running):
            counter = DEAD_STARTS if died else TAKEN_OVER if superseded else None
            back = _enqueue(connection, queue, job, pipeline, counter)
            failed = None if back else job
        forget(connection, queue, pipeline, job, entry)
        pipeline.lrem(queue.intermediate_queue_key, 1, job_id)

    key = RQJob.key_for(job_id)
    while_owned(key, connection, registered(queue.started_job_registry.key, entry), write)
    if failed is not None:
        queue.enqueue_dependents(failed)
        release_slot(failed)
    return back


def put_back_dequeued(connection: Redis, queue: Queue, job_id: str) -> bool:
    """Return a dequeued job that never started to the front of its queue; return whether it was."""
    back = False

    def waits(pipeline: Pipeline) -> bool:
        pipeline.watch(queue.intermediate_queue_key)
        return pipeline.lpos(queue.intermediate_queue_key, job_id) is not None

    def write(pipeline: Pipeline) -> None:
        nonlocal back
        job = fetch(connection, job_id)
        back = job is not None and places_of(job) == {DEQUEUED}
        pipeline.lrem(queue.intermediate_queue_key, 1, job_id)
        # Otherwise RQ would consider the job stuck if it finds it here again.
        pipeline.delete(queue.intermediate_queue.get_first_seen_key(job_id))
        pipeline.zrem(LEASES, f"{job_id}:{DEQUEUED}")
        if job is not None and back:
            job.set_status(JobStatus.QUEUED, pipeline=pipeline)
            queue.push_job_id(job_id, pipeline=pipeline, at_front=True)

    while_owned(RQJob.key_for(job_id), connection, waits, write)
    return back


def forget(connection: Redis, queue: Queue, pipeline: Pipeline, job: RQJob | None, entry: str) -> None:
    """Remove the records of an execution, in the transaction of the caller."""
    execution = RQExecution.from_composite_key(entry, connection)
    name = connection.hget(execution.key, "worker_name")
    execution.worker_name = as_text(name) if name else ""
    if job is None:
        queue.started_job_registry.remove_execution(execution, pipeline=pipeline)
    else:
        execution.delete(job=job, pipeline=pipeline)
    pipeline.zrem(LEASES, entry)
    pipeline.hdel(OWNERS, entry)


_TOO_OFTEN = {
    DEAD_STARTS: "CrashLimit: the worker of job {} crashed {} times before it reached the job's code",
    TAKEN_OVER: "Superseded: job {} was taken over {} times in a row by executions that its queue does not know",
}
"""Reasons to fail a job, by the field that counts."""


def _enqueue(connection: Redis, queue: Queue, job: RQJob, pipeline: Pipeline, counter: str | None) -> bool:
    """Requeue the job, or fail it if it was requeued too often for the same reason."""
    times = number(connection.hget(job.key, counter)) if counter else 0
    if counter and times >= Job.max_crashes:
        reason = (
            f"{_TOO_OFTEN[counter].format(job.id, times + 1)}; the limit is {Job.max_crashes}; its progress "
            "is kept: requeue it when the cause is fixed"
        )
        record_job_failure(job, reason, pipeline)
        pipeline.hdel(job.key, counter)
        log.error("%s", reason)
        return False
    if counter:
        pipeline.hset(job.key, counter, times + 1)  # watched by the caller; HINCRBY refuses what is no number
    queue._enqueue_job(job, pipeline=pipeline)  # noqa: SLF001 - as Job.retry does; enqueue_job checks dependencies
    strays.add(pipeline, job.id)
    return True


@dataclass(frozen=True)
class Dead:
    """Execution with an expired lease.

    :ivar entry: its name in RQ's started registry of *queue*.
    """

    entry: str
    job_id: str
    queue: Queue

    @property
    def execution_key(self) -> str:
        """Key of RQ's record of the execution."""
        return RQExecution(self.entry.rpartition(":")[2], self.job_id, self.queue.connection).key


@dataclass
class Batch:
    """Results for a batch of crashed executions.

    :ivar back: ids of the requeued jobs. :ivar single: executions that :func:`put_back` must handle one by
        one. :ivar others: executions of other jobs than this package's. :ivar bad: executions with unreadable
        records.
    """

    back: list[str] = field(default_factory=list)
    single: list[Dead] = field(default_factory=list)
    others: list[Dead] = field(default_factory=list)
    bad: list[Dead] = field(default_factory=list)


def put_back_batch(connection: Redis, batch: list[Dead], running: dict[str, list[str]], now: float) -> Batch:
    """Requeue the jobs of many crashed executions in a few round trips; the module says what a crash means.

    The keys of all jobs are watched. If one of them changes, nothing is written, and the caller handles each
    execution alone. The same applies to a job that must fail, and to the second execution of the same job.

    :param running: all entries of the started registries, by job id. :param now: seconds of the server's clock.
    """
    done, chosen = Batch(), dict[str, Dead]()
    for each in batch:
        if each.job_id in chosen:
            done.single.append(each)
        else:
            chosen[each.job_id] = each
    with connection.pipeline() as pipeline:
        pipeline.watch(*[RQJob.key_for(job_id) for job_id in chosen])
        found = _read(connection, list(chosen.values()), now, done)
        found = _nowhere(connection, found, running)
        pipeline.multi()
        back = [item for item in found if _queue_writes(connection, item, pipeline, done)]
        try:
            answers = ask(pipeline)
        except WatchError:
            done.single += [item.dead for item in found if item.dead not in done.single]
            return done
    for answer in answers:
        usable("record of a job that was put back", "", answer)
    done.back += [item.dead.job_id for item in back]
    return done


@dataclass
class _Found:
    """Crashed execution and its data in Redis; ``job`` is None if the job is gone."""

    dead: Dead
    fields: dict[bytes, bytes]
    job: RQJob | None
    worker: str
    entries: set[str]
    back: bool = True

    @property
    def starts(self) -> int:
        """Number of crashes before the job's code was reached."""
        return number(self.fields.get(DEAD_STARTS.encode()))


def _read(connection: Redis, batch: list[Dead], now: float, done: Batch) -> list[_Found]:
    """Return the stored data of executions that are still registered and whose lease was not renewed."""
    queues = {each.queue.name: each.queue for each in batch}
    with connection.pipeline(transaction=False) as pipeline:
        for queue in queues.values():
            pipeline.type(queue.key)
            pipeline.type(queue.intermediate_queue_key)
        for each in batch:
            pipeline.hgetall(RQJob.key_for(each.job_id))
            pipeline.zrange(ExecutionRegistry(each.job_id, connection).key, 0, -1)
            pipeline.hget(each.execution_key, "worker_name")
            pipeline.zscore(each.queue.started_job_registry.key, each.entry)
            pipeline.zscore(LEASES, each.entry)
        answers = ask(pipeline)
    lists, answers = answers[: 2 * len(queues)], answers[2 * len(queues) :]
    wrong = set()
    for index, name in enumerate(queues):
        if {as_text(each) for each in lists[2 * index : 2 * index + 2]} - {"list", "none"}:
            wrong.add(name)
            complaints.say("queue", name, "its key is not a list")
    found: list[_Found] = []
    for index, each in enumerate(batch):
        fields, executions, worker, registered_at, lease = answers[5 * index : 5 * index + 5]
        if each.queue.name in wrong or not (
            usable("job", each.job_id, fields)
            and usable("list of executions of job", each.job_id, executions)
        ):
            done.bad.append(each)
        elif isinstance(registered_at, float) and not (isinstance(lease, float) and lease > now):
            name = (text_of(worker) or "") if isinstance(worker, bytes) else ""
            entries = {f"{each.job_id}:{text}" for item in executions if (text := text_of(item))}
            _sort_in(_Found(each, fields, None, name, entries), connection, done, found)
    return found


def belongs(connection: Redis, job_id: str, fields: Any) -> bool | None:
    """Return whether a job belongs to this package, by its hash; None if it is unreadable."""
    try:
        job = RQJob(job_id, connection=connection, serializer=JSONSerializer)
        job.restore(fields)
        job.get_status(refresh=False)
        return is_ours(job)
    except NoSuchJobError:
        return False
    except Exception as error:  # noqa: BLE001 - depends on the stored data
        complaints.say("job", job_id, fields if isinstance(fields, Exception) else error)
        return None


def _sort_in(each: _Found, connection: Redis, done: Batch, found: list[_Found]) -> None:
    """Load the RQ job, and sort the execution into the results."""
    job = RQJob(each.dead.job_id, connection=connection, serializer=JSONSerializer)
    try:
        job.restore(each.fields)
        ours = job.func_name == PERFORM
    except NoSuchJobError:  # gone; a late write may have left single fields of it
        found.append(each)
        return
    except Exception as error:  # noqa: BLE001 - depends on the stored data
        complaints.say("job", each.dead.job_id, error)
        done.bad.append(each.dead)
        return
    if ours:
        each.job = job
        found.append(each)
    else:
        done.others.append(each.dead)


def _nowhere(connection: Redis, found: list[_Found], running: dict[str, list[str]]) -> list[_Found]:
    """Record for each job whether it is in no other place and can be requeued."""
    asked = []
    with connection.pipeline(transaction=False) as pipeline:
        for each in found:
            if each.job is not None:
                others = (each.entries | set(running.get(each.job.id, ()))) - {each.dead.entry}
                asked.append((each, Where(each.job, each.dead.entry, others)))
                asked[-1][1].ask(pipeline)
        answers = ask(pipeline)
    usable_ones = [each for each in found if each.job is None]
    for each, where in asked:
        taken, answers = answers[: where.asked], answers[where.asked :]
        if all(usable("place of job", each.dead.job_id, answer) for answer in taken):
            each.back = not where.read(taken)
            usable_ones.append(each)
    return usable_ones


def _queue_writes(connection: Redis, each: _Found, pipeline: Pipeline, done: Batch) -> bool:
    """Queue the writes for one execution, and return whether they requeue its job."""
    dead, job = each.dead, each.job
    if job is None:
        pipeline.delete(RQJob.key_for(dead.job_id))
    elif each.back:
        if each.starts >= Job.max_crashes:  # it is to fail, which takes more than this transaction
            done.single.append(dead)
            return False
        before = len(pipeline.command_stack)
        try:
            # The key is watched, so this is the count that was read plus one; a value that is not a number
            # counts as 0.
            pipeline.hset(job.key, DEAD_STARTS, each.starts + 1)
            dead.queue._enqueue_job(job, pipeline=pipeline)  # noqa: SLF001 - as Job.retry does; enqueue_job checks dependencies
            strays.add(pipeline, job.id)
        except Exception as error:  # noqa: BLE001 - RQ writes all fields, and they may hold anything
            complaints.say("job", job.id, error)
            del pipeline.command_stack[before:]
            done.bad.append(dead)
            return False
    pipeline.zrem(dead.queue.started_job_registry.key, dead.entry)
    pipeline.zrem(LEASES, dead.entry)
    pipeline.hdel(OWNERS, dead.entry)
    pipeline.lrem(dead.queue.intermediate_queue_key, 1, dead.job_id)
    pipeline.delete(dead.execution_key)
    if job is not None:
        pipeline.zrem(ExecutionRegistry(job.id, connection).key, dead.entry.rpartition(":")[2])
        if each.worker:
            pipeline.srem(WORKER_EXECUTIONS_KEY_TEMPLATE.format(each.worker), dead.entry)
    return job is not None and each.back
