"""Report the end of an execution to RQ.

RQ knows success and failure. An interruption is neither: RQ counts it nowhere, and the job is queued again. A crash of
the process is neither: the job is queued again too. An execution that another one has replaced reports nothing, because
it no longer owns the job.

Each report is one transaction that also removes the execution from the started registry. It happens only if the
execution is still there. Crash before it: a sweep restores the job from there. Crash after it: all is reported.

The application may write to the job during the execution. So the worker requeues the job as it is in Redis, with the
changes of the application, and only if no queue, registry or other execution has it.
"""

from __future__ import annotations

import copy
import signal
import threading
import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from rq import Queue
from rq.job import JobStatus
from rq.rate_limit import release_slot
from rq.registry import clean_registries
from rq.utils import as_text, now, utcformat
from rq.worker import SHUTDOWN_SIGNAL, BaseWorker
from rq.worker_registration import clean_worker_registry

from harness.boundary.texts import storable
from harness.errors import Superseded
from harness.queues.rq import delayed, strays
from harness.queues.rq.clocks import redis_now, spare
from harness.queues.rq.entries import complaints, is_outage
from harness.queues.rq.jobs import PARKED, InterruptedResult
from harness.queues.rq.keys import LEASES, OWNERS
from harness.queues.rq.leases import Lease, grant, registered, while_owned
from harness.queues.rq.places import TAKEN_OVER, UNKNOWN, fetch, is_ours, places_of, queue_of
from harness.queues.rq.recovery import START_JOBS, Sweeper, put_back, put_back_dequeued
from harness.queues.rq.shielding import shield

if TYPE_CHECKING:
    from types import TracebackType

    from redis.client import Pipeline
    from rq import Retry
    from rq.executions import Execution as RQExecution
    from rq.job import Job as RQJob
    from rq.registry import StartedJobRegistry

ExcInfo = tuple[type[BaseException] | None, BaseException | None, "TracebackType | None"]


class Endings(BaseWorker):
    """Part of the workers that handles the ends of executions."""

    _cold = False
    _killed = False
    """True if the horse was killed on a command."""

    _due: delayed.DueLooks | None = None
    _died: str | None = None
    """Id of the job whose horse crashed."""

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """Work; threads restore the jobs of crashed workers and enqueue jobs whose delay is over."""
        sweeper, self._due = Sweeper(self.connection).beat(), delayed.DueLooks(self.connection)
        sweeper.start()
        self._due.start()
        try:
            return super().work(*args, **kwargs)
        finally:
            self._due.close()
            sweeper.close()

    def clean_registries(self) -> None:
        """Requeue some jobs of crashed workers, and protect the others from RQ's maintenance.

        The sweeping thread requeues those, so that the worker starts its first job soon. Unreadable data
        stops neither the rest of the maintenance nor the worker.
        """
        Sweeper(self.connection).sweep(limit=START_JOBS)
        for queue in self.queues:
            if not queue.acquire_maintenance_lock():
                continue
            self.log.info("Worker %s: cleaning registries for queue: %s", self.name, queue.name)
            for step in (
                partial(shield, queue),
                partial(spare, self.connection, [queue]),
                partial(clean_registries, queue, self._exc_handlers),
                partial(clean_worker_registry, queue),
                partial(queue.intermediate_queue.cleanup, self, queue),
            ):
                try:
                    step()
                except Exception as error:
                    if is_outage(error):
                        raise
                    complaints.say("registry of queue", queue.name, error)
            queue.release_maintenance_lock()
        self.last_cleaned_at = now()  # type: ignore[assignment]  # RQ starts with None

    def execute_job(self, job: RQJob, queue: Queue) -> None:
        """Execute the job."""
        self._killed, self._died = False, None
        super().execute_job(job, queue)
        if self._due is not None and is_ours(job):
            self._due.soon()  # the job may have been delayed, in another process

    def prepare_execution(self, job: RQJob) -> RQExecution:
        """Register the execution, with a lease until it can renew it itself.

        Crash in between: the next sweep gives it one.
        """
        execution = super().prepare_execution(job)
        if is_ours(job):
            grant(self.connection, execution.composite_key)
        return execution

    def perform_job(self, job: RQJob, queue: Queue, execution: RQExecution) -> bool:
        """Perform the job, and hold a lease on it."""
        if not is_ours(job):
            return super().perform_job(job, queue, execution)
        with Lease(job, execution.id, worker_pid=self.pid if self.is_horse else None) as lease:
            if lease.lost():  # taken for dead before it had begun
                self._leave_alone(job, execution)
                return False
            return super().perform_job(job, queue, execution)

    def cleanup_execution(self, job: RQJob, pipeline: Pipeline, execution: RQExecution | None = None) -> None:
        """Remove the lease with the execution's other records."""
        super().cleanup_execution(job, pipeline, execution)
        if execution is not None:
            pipeline.zrem(LEASES, execution.composite_key)
            pipeline.hdel(OWNERS, execution.composite_key)
        status = job.get_status(refresh=False)
        if status == JobStatus.FINISHED:
            strays.remove(pipeline, job.id, now=time.time())
        elif status == JobStatus.SCHEDULED and is_ours(job):  # by RQ's Repeat
            delayed.note(pipeline, job.id)

    # Completed.

    def handle_job_success(
        self,
        job: RQJob,
        queue: Queue,
        started_job_registry: StartedJobRegistry,
        execution: RQExecution,
    ) -> None:
        """Report the success of a job, if this execution still owns it at the commit.

        :raises Superseded: if another execution owns the job by then, or another job has its id.
        """
        if is_ours(job):
            queue = _watched(queue, job, execution)
        super().handle_job_success(job, queue, started_job_registry, execution)

    # Interrupted.

    def handle_job_retry(
        self,
        job: RQJob,
        queue: Queue,
        retry: Retry,
        started_job_registry: StartedJobRegistry,
        execution: RQExecution,
    ) -> None:
        """Requeue an interrupted job; RQ handles other returned Retry objects."""
        if not isinstance(retry, InterruptedResult):
            super().handle_job_retry(job, queue, retry, started_job_registry, execution)
            return
        job._result = None  # noqa: SLF001 - an interruption is no result, and RQ would store it as one
        told = ""

        target = (
            queue
            if retry.queue in {None, queue.name}
            else Queue(retry.queue, connection=self.connection, serializer=queue.serializer)
        )

        def write(pipeline: Pipeline) -> None:
            nonlocal told
            if job.ended_at and job.started_at:
                self.increment_total_working_time(job.ended_at - job.started_at, pipeline)
            stored = fetch(self.connection, job.id) or job  # evicted: this process has all of it
            stored.started_at, stored.ended_at = job.started_at, job.ended_at
            places = places_of(stored, entry=execution.composite_key)
            told = f"it is {' and '.join(sorted(places)) or 'another one'} already"
            # Before the job may change its queue: its entry is in this one's registry.
            self.cleanup_execution(job, pipeline=pipeline, execution=execution)
            if not places and stored.created_at == job.created_at:
                told = _put(stored, target, retry, pipeline)

        owned = registered(started_job_registry.key, execution.composite_key)
        if not while_owned(job.key, self.connection, owned, write):
            self._leave_alone(job, execution)
            return
        release_slot(job)
        self.log.info("Worker %s: job %s interrupted (%s), %s", self.name, job.id, retry.reason, told)

    # Superseded, or asked to leave immediately.

    def _finalize_failure(self, job: RQJob, queue: Queue, execution: RQExecution, exc_info: ExcInfo) -> None:
        """Do not treat a superseded execution or an immediate shutdown as a failure of the job."""
        kind = exc_info[0] or BaseException
        if issubclass(kind, Superseded):
            self._leave_alone(job, execution)
        elif self._cold and issubclass(kind, SystemExit) and is_ours(job):
            put_back(self.connection, queue, execution.composite_key, died=False)
        else:
            super()._finalize_failure(job, queue, execution, exc_info)

    def _leave_alone(self, job: RQJob, execution: RQExecution) -> None:
        """Remove the execution without a report on the job, which another one owns; requeue it if none does."""
        if put_back(self.connection, queue_of(job), execution.composite_key, died=False, superseded=True):
            self.log.warning(
                "Worker %s: job %s was claimed by another execution, which was abandoned; it is back in its queue",
                self.name, job.id,
            )  # fmt: skip
        with self.connection.pipeline() as pipeline:
            self.cleanup_execution(job, pipeline=pipeline, execution=execution)
            pipeline.execute()
        self.log.info("Worker %s: this execution no longer owns job %s", self.name, job.id)

    # Crashed.

    def kill_horse(self, sig: signal.Signals = SHUTDOWN_SIGNAL) -> None:
        """Kill the horse; RQ's commands, which come in a separate thread, refer to its job."""
        self._killed = self._killed or threading.current_thread() is not threading.main_thread()
        super().kill_horse(sig)

    def handle_work_horse_killed(self, job: RQJob, retpid: Any, ret_val: Any, rusage: Any) -> None:
        """Record that the horse crashed; RQ is about to fail its job.

        This includes a kill by this worker, a minute after a timeout that the job did not notice, but not a
        kill on a command.
        """
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)  # type: ignore[no-untyped-call]
        if is_ours(job) and not self._killed:
            self._died = job.id

    def handle_job_failure(
        self,
        job: RQJob,
        queue: Queue,
        started_job_registry: StartedJobRegistry | None = None,
        exc_string: str = "",
        execution: RQExecution | None = None,
    ) -> None:
        """Requeue the job of a crashed horse, and one that RQ found stuck before its start; leave other cases to RQ."""
        if execution is not None and self._died == job.id:
            if put_back(self.connection, queue, execution.composite_key, died=True):
                self.log.warning(
                    "Worker %s: the horse of job %s crashed; it is back in its queue", self.name, job.id
                )
        elif execution is None and is_ours(job):
            put_back_dequeued(self.connection, queue, job.id)
        else:
            # RQ could not encode a message with lone surrogates, and would leave the job started forever.
            super().handle_job_failure(job, queue, started_job_registry, storable(exc_string), execution)
            if job.get_status(refresh=False) == JobStatus.SCHEDULED and is_ours(job):  # by RQ's Retry
                delayed.note(self.connection, job.id)


def _watched(queue: Queue, job: RQJob, execution: RQExecution) -> Queue:
    """Return a queue with which RQ's transaction for a success is made only if the job is still the execution's.

    RQ asks it for the job's dependents when it starts to watch them, and again if the transaction is refused.
    """

    def move_dependents_to_ready(parent: RQJob, pipeline: Pipeline, **more: Any) -> dict[str, list[str]]:
        pipeline.watch(job.key)  # a takeover changes the job's hash
        created_at: Any = pipeline.hget(job.key, "created_at")
        registered_now = pipeline.zscore(queue.started_job_registry.key, execution.composite_key) is not None
        if not registered_now or (created_at and as_text(created_at) != utcformat(job.created_at)):
            raise Superseded(
                f"job {job.id} was claimed by another execution while its success was reported; nothing was changed"
            )
        return queue.move_dependents_to_ready(parent, pipeline=pipeline, **more)

    watched = copy.copy(queue)
    watched.move_dependents_to_ready = move_dependents_to_ready  # type: ignore[method-assign, assignment]
    return watched


def _put(job: RQJob, queue: Queue, interruption: InterruptedResult, pipeline: Pipeline) -> str:
    """Put an interrupted job where it resumes from, or nowhere if cancelled; return a description of the place."""
    job.origin = queue.name  # saved with the job below, by the same transaction
    if interruption.enqueue_at_front:
        job.enqueue_at_front_on_retry = True  # for the process that enqueues it when it is due, as RQ does
    if not interruption.unknown:
        pipeline.hdel(job.key, UNKNOWN, TAKEN_OVER)
    if interruption.cancelled:
        job.set_status(JobStatus.CANCELED, pipeline=pipeline)
        queue.canceled_job_registry.add(job, ttl=-1, pipeline=pipeline)
        return "it has ended permanently"
    strays.add(pipeline, job.id)
    delay = interruption.intervals[0]
    if not delay:
        queue._enqueue_job(job, pipeline=pipeline, at_front=interruption.enqueue_at_front)  # noqa: SLF001 - as Job.retry does; enqueue_job checks dependencies
        return f"back in queue {queue.name}"
    due = redis_now(job.connection) + timedelta(seconds=delay)  # the clock by which it is enqueued
    queue.schedule_job(job, due, pipeline=pipeline)
    delayed.note(pipeline, job.id, due.timestamp())
    return "it waits until it is resumed" if delay == PARKED else f"it resumes in {delay} s"
