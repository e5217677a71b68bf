"""RQ's workers, whose jobs hear of a shutdown and are put back into their queue without counting as failed."""

from __future__ import annotations

import signal
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rq import Retry, SimpleWorker
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.rate_limit import release_slot
from rq.serializers import JSONSerializer
from rq.utils import now

from harness.queues.rq.jobs import Interruption
from harness.queues.rq.requests import shutdown

if TYPE_CHECKING:
    from rq import Queue
    from rq.executions import Execution as RQExecution
    from rq.registry import StartedJobRegistry


class InProcessWorker(SimpleWorker):
    """RQ's SimpleWorker, whose jobs hear of SIGTERM and SIGINT and stop at their next checkpoint.

    It works in the thread that calls ``work()``, which must be the main one, for signals. Its command channel is
    off: it takes a thread, and there is nobody who would send it commands.
    """

    def __init__(self, queues: Any, *, serializer: Any = JSONSerializer, **kwargs: Any) -> None:
        super().__init__(queues, serializer=serializer, **kwargs)

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """Work, and put the signal handlers back that were there before."""
        before = {
            number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
        }
        shutdown.clear()
        try:
            return super().work(*args, **kwargs)
        finally:
            shutdown.clear()
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_warm_shutdown_request(self) -> None:
        """Tell the job: it runs in this process, so a flag is enough."""
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        shutdown.set()

    def subscribe(self) -> None:
        """Open no command channel."""

    def unsubscribe(self) -> None:
        """Close no command channel."""

    def handle_job_retry(
        self,
        job: RQJob,
        queue: Queue,
        retry: Retry,
        started_job_registry: StartedJobRegistry,
        execution: RQExecution,
    ) -> None:
        """Put an interrupted job back into its queue; what else returns a Retry is RQ's business."""
        if not isinstance(retry, Interruption):
            super().handle_job_retry(job, queue, retry, started_job_registry, execution)
            return
        job._result = None  # noqa: SLF001 - an interruption is no result, and RQ would store it as one
        with self.connection.pipeline() as pipeline:
            # One transaction: the job leaves the started registry and is queued again, or neither. Death before it:
            # RQ recovers the job from the started registry, and its progress is already saved.
            if job.ended_at and job.started_at:
                self.increment_total_working_time(job.ended_at - job.started_at, pipeline)
            delay = retry.intervals[0]
            if retry.cancelled:
                job.set_status(JobStatus.CANCELED, pipeline=pipeline)
                queue.canceled_job_registry.add(job, ttl=-1, pipeline=pipeline)
            elif delay:
                queue.schedule_job(job, now() + timedelta(seconds=delay), pipeline=pipeline)
            else:
                queue._enqueue_job(job, pipeline=pipeline)  # noqa: SLF001 - as Job.retry does; enqueue_job checks dependencies
            self.cleanup_execution(job, pipeline=pipeline, execution=execution)
            pipeline.execute()
        release_slot(job)
        self.log.info(
            "Worker %s: job %s interrupted (%s), back in its queue", self.name, job.id, retry.reason
        )
