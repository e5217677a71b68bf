"""What goes into an RQ queue, and what RQ calls when it comes out."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rq import Retry
from rq.job import Job as RQJob
from rq.job import get_current_job
from rq.serializers import JSONSerializer

from harness import cursor as cursors
from harness import execution, overrides
from harness.errors import Superseded, UsageError
from harness.execution import Portion
from harness.job import Job, find
from harness.queues.rq.instances import PERFORM, family_of
from harness.queues.rq.requests import Requests, shutdown
from harness.stops import throttled
from harness.stores.rq_meta import RQMetaStore

if TYPE_CHECKING:
    from rq import Queue

POLL_SECONDS = 0.5
"""How often, at most, a job looks into Redis whether it shall stop."""

PARKED = 100 * 365 * 24 * 3600
"""Seconds until a job that waits for somebody would run by itself."""


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
    queue: Queue,
    job_class: type[Job],
    *args: Any,
    options: dict[str, Any] | None = None,
    portion: Portion | None = None,
    **kwargs: Any,
) -> RQJob:
    """Put a job into an RQ queue and return RQ's job.

    Arguments may be whatever a cursor may be, and arrive equal and of the same type (C5).

    :param options: for ``Queue.enqueue_call``: ``job_id``, ``timeout``, ``retry``, ``depends_on``, …
    :param portion: the part of an iteration job to do, to try it on a few items first.
    :raises UsageError: if the queue does not use RQ's JSON serializer, or the job cannot take this.
    :raises CursorError: if an argument would not come back equal.
    """
    if queue.serializer is not JSONSerializer:
        raise UsageError(
            f"queue {queue.name!r} uses {queue.serializer!r}, allowed is RQ's JSON serializer; "
            "make it Queue(…, serializer='json')"
        )
    if not (isinstance(job_class, type) and issubclass(job_class, Job)):
        raise UsageError(f"enqueue() takes a ContinuableJob or an IterationJob, found {job_class!r}")
    job_class.check_arguments(kwargs, portion)
    encoded = [cursors.encode(value, f"argument {index}") for index, value in enumerate(args)]
    named = {name: cursors.encode(value, f"argument {name!r}") for name, value in kwargs.items()}
    call: list[Any] = [job_class.path(), encoded, named]
    if portion is not None:
        call.append({"portion": [cursors.encode(portion.after), portion.limit]})
    settings = {"description": f"{job_class.__qualname__}({_shown(args, kwargs)})", **(options or {})}
    return queue.enqueue_call(PERFORM, args=tuple(call), **settings)


def perform(
    path: str, args: list[Any], kwargs: dict[str, Any], more: dict[str, Any] | None = None
) -> Interruption | None:
    """Run one execution of the job that RQ is working on; called by RQ, not by people.

    :raises Exception: what the job raised, if it is not resumed; RQ's ``Retry`` then goes on at the cursor.
    """
    job_class = find(path)
    if not (isinstance(job_class, type) and issubclass(job_class, Job)):
        raise UsageError(f"{path!r} is {job_class!r}, allowed is a ContinuableJob or an IterationJob")
    current = get_current_job()
    if current is None or current.connection is None:
        raise UsageError("perform() runs inside an RQ worker only; elsewhere use harness.run()")
    asked, more = overrides.current, more or {}
    seconds = POLL_SECONDS if asked.poll_seconds is None else asked.poll_seconds
    requests = throttled(Requests(current.connection), seconds, clock=asked.clock)
    after, limit = more.get("portion", (None, None))
    attempt = execution.Execution(
        job_class,
        current.id,
        job_class.progress_store() or RQMetaStore(current.connection),
        args=[cursors.decode(value) for value in args],
        kwargs={name: cursors.decode(value) for name, value in kwargs.items()},
        stops=[shutdown, requests],
        portion=execution.Portion(cursors.decode(after), limit) if "portion" in more else None,
        family=family_of(current, [path, args, kwargs], more),
    )
    ended = attempt.run()
    if ended.outcome == "superseded":
        # Not a success: that would start dependents while the execution that has taken over is still at work.
        raise Superseded(f"another execution of job {current.id} has taken over; this one has left it alone")
    if ended.outcome == "completed":
        return None
    delay = PARKED if ended.outcome in {"paused", "cancelled"} else ended.delay
    return Interruption(ended.reason or ended.outcome, delay, cancelled=ended.outcome == "cancelled")


def _shown(args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    return ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
