"""Runs jobs on RQ, under RQ's own job ids, registries and dashboards.

::

    queue = Queue("default", connection=redis, serializer="json")
    enqueue(queue, Import, 17)
    # rq worker --worker-class harness.queues.rq.InProcessWorker --serializer json

What RQ calls is :func:`perform`. It ends an interrupted execution by returning an :class:`Interruption`, which
is an ``rq.Retry``: so even RQ's stock worker puts the job back into its queue, under the same id. Our workers do
the same without counting a failure or writing a result for it.
"""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rq import Retry, SimpleWorker
from rq.job import Job as RQJob
from rq.job import JobStatus, get_current_job
from rq.rate_limit import release_slot
from rq.serializers import JSONSerializer
from rq.utils import as_text, now

from harness import cursor as cursors
from harness import execution
from harness.errors import Superseded, UsageError
from harness.job import Job, find
from harness.stops import CANCEL, PAUSE, Control, Flag, throttled
from harness.stores.rq_meta import RQMetaStore

if TYPE_CHECKING:
    from redis import Redis
    from rq import Queue
    from rq.executions import Execution as RQExecution
    from rq.registry import StartedJobRegistry

    from harness.progress import Position

shutdown = Flag()
"""Set when the worker in this process is asked to stop; every job asks it at its checkpoints."""

POLL_SECONDS = 0.5
"""How often, at most, a job looks into Redis whether it shall stop."""

REQUEST_TTL = 24 * 3600
"""Seconds after which a request is forgotten whose job never came."""

PARKED = 100 * 365 * 24 * 3600
"""Seconds until a job that waits for somebody would run by itself."""

_STOP, _CONTROL = "harness:stop:{}", "harness:control:{}"


class Interruption(Retry):
    """The return value of an execution that was interrupted: run the job again.

    :ivar reason: why it stopped.
    :ivar cancelled: whether it stopped for good; the stock worker, which cannot know, parks the job then.
    """

    def __init__(self, reason: str, delay: float, *, cancelled: bool = False) -> None:
        # RQ compares with number_of_retries, which our worker leaves alone; the stock worker counts there.
        super().__init__(max=sys.maxsize, interval=math.ceil(delay))
        self.reason, self.cancelled = reason, cancelled


def enqueue(
    queue: Queue, job_class: type[Job], *args: Any, options: dict[str, Any] | None = None, **kwargs: Any
) -> RQJob:
    """Put a job into an RQ queue and return RQ's job.

    Arguments may be whatever a cursor may be, and arrive equal and of the same type (C5).

    :param options: for ``Queue.enqueue_call``: ``job_id``, ``timeout``, ``retry``, ``depends_on``, …
    :raises UsageError: if the queue does not use RQ's JSON serializer.
    :raises CursorError: if an argument would not come back equal.
    """
    if queue.serializer is not JSONSerializer:
        raise UsageError(
            f"queue {queue.name!r} uses {queue.serializer!r}, allowed is RQ's JSON serializer; "
            "make it Queue(…, serializer='json')"
        )
    if not (isinstance(job_class, type) and issubclass(job_class, Job)):
        raise UsageError(f"enqueue() takes a ContinuableJob or an IterationJob, found {job_class!r}")
    encoded = [cursors.encode(value, f"argument {index}") for index, value in enumerate(args)]
    named = {name: cursors.encode(value, f"argument {name!r}") for name, value in kwargs.items()}
    settings = {"description": f"{job_class.__qualname__}({_shown(args, kwargs)})", **(options or {})}
    return queue.enqueue_call(perform, args=(job_class.path(), encoded, named), **settings)


def perform(path: str, args: list[Any], kwargs: dict[str, Any]) -> Interruption | None:
    """Run one execution of the job that RQ is working on; called by RQ, not by people.

    :raises Exception: what the job raised, if it is not resumed; RQ's ``Retry`` then goes on at the cursor.
    """
    job_class = find(path)
    if not (isinstance(job_class, type) and issubclass(job_class, Job)):
        raise UsageError(f"{path!r} is {job_class!r}, allowed is a ContinuableJob or an IterationJob")
    current = get_current_job()
    if current is None or current.connection is None:
        raise UsageError("perform() runs inside an RQ worker only; elsewhere use harness.run()")
    asked = execution.overrides
    seconds = POLL_SECONDS if asked.poll_seconds is None else asked.poll_seconds
    requests = throttled(Requests(current.connection), seconds, clock=asked.clock)
    attempt = execution.Execution(
        job_class,
        current.id,
        RQMetaStore(current.connection),
        args=[cursors.decode(value) for value in args],
        kwargs={name: cursors.decode(value) for name, value in kwargs.items()},
        stops=[shutdown, requests],
    )
    ended = attempt.run()
    if ended.outcome == "superseded":
        # Not a success: that would start dependents while the execution that has taken over is still at work.
        raise Superseded(f"another execution of job {current.id} has taken over; this one has left it alone")
    if ended.outcome == "completed":
        return None
    delay = PARKED if ended.outcome in {"paused", "cancelled"} else ended.delay
    return Interruption(ended.reason or ended.outcome, delay, cancelled=ended.outcome == "cancelled")


def request_stop(connection: Redis, job_id: str, reason: str = "requested") -> None:
    """Ask a job, wherever it runs, to stop at its next checkpoint once; it goes on when its turn comes again."""
    connection.set(_STOP.format(job_id), reason, ex=REQUEST_TTL)


def pause(connection: Redis, job_id: str) -> None:
    """Have a job stop at its next checkpoint, or before it starts, and not go on before :func:`resume`.

    It then waits in RQ's scheduled registry, under a date that is never reached.
    """
    connection.set(_CONTROL.format(job_id), PAUSE)


def resume(queue: Queue, job_id: str) -> bool:
    """Take a pause back, and put a job that has paused into its queue; return whether it had.

    If the process dies between the two, the job still waits, and resuming it again does the rest.
    """
    queue.connection.delete(_CONTROL.format(job_id))
    if job_id not in queue.scheduled_job_registry.get_job_ids():
        return False
    job = queue.fetch_job(job_id)
    if job is None:
        return False
    with queue.connection.pipeline() as pipeline:
        queue.scheduled_job_registry.remove(job, pipeline=pipeline)
        queue._enqueue_job(job, pipeline=pipeline)  # noqa: SLF001 - as RQ's scheduler does
        pipeline.execute()
    return True


def cancel(connection: Redis, job_id: str) -> None:
    """Have a job stop for good at its next checkpoint, or before it starts; its ``on_cancel`` runs (S4).

    Its progress is kept. Under our workers RQ then shows it as canceled, and its dependents do not run.
    """
    connection.set(_CONTROL.format(job_id), CANCEL, ex=REQUEST_TTL)


class Requests:
    """The stop source for what was asked of a job from outside, through Redis."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection

    def at_start(self, job_id: str) -> Control | None:
        """Return what holds before any work; a mere stop does not."""
        return _control(self._connection.get(_CONTROL.format(job_id)))

    def __call__(self, at: Position) -> str | None:
        """Look for a pause, a cancellation, or a stop, which is taken so that it stops one execution.

        If the process dies after taking it, the request is gone, but so is the execution that it was meant for.
        """
        with self._connection.pipeline(transaction=False) as pipeline:
            pipeline.get(_CONTROL.format(at.job_id))
            pipeline.getdel(_STOP.format(at.job_id))
            control, reason = pipeline.execute()
        return _control(control) or (None if reason is None else str(as_text(reason)))


def _control(value: Any) -> Control | None:
    return None if value is None else {str(each): each for each in (PAUSE, CANCEL)}.get(str(as_text(value)))


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


def _shown(args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    return ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
