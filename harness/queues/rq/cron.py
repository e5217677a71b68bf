"""Cron entries for ``rq cron`` whose jobs are JSON, which the workers of this package need.

::

    # cron_config.py, for: rq cron cron_config.py
    from harness.queues.rq import cron
    from shop.jobs import Import

    cron.register(Import, "default", args=(17,), cron="0 3 * * *", job_id="nightly-import")

RQ's ``rq.cron.register`` pickles, and takes functions only. RQ offers no place to choose the serializer of an entry, so
the first call here replaces ``rq.cron.CronJob.enqueue`` in the process that reads the configuration, which is that of
``rq cron`` alone. Entries of RQ's own ``register`` do not change.

Without a ``job_id``, each run enqueues a new job. With one, a run joins the job while it is unfinished, and starts a
new round after that. So two ``rq cron`` processes do not double the work either.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import rq.cron
from rq import Queue, cron_job_registry
from rq.defaults import DEFAULT_CRON_JOB_HISTORY_LIMIT, DEFAULT_CRON_JOB_HISTORY_TTL

from harness import cursor as cursors
from harness.errors import HarnessError, UsageError
from harness.job import Job
from harness.queues.calls import check_class, check_importable
from harness.queues.rq.submit import enqueue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis
    from rq.job import Job as RQJob

log = logging.getLogger("harness.rq")


class _Entry:
    """Replacement of the function in RQ's entries."""

    def __init__(self, target: type[Job] | Callable[..., Any], job_id: str | None) -> None:
        self.target, self.job_id = target, job_id
        self.__module__, self.__name__ = target.__module__, target.__qualname__

    def __call__(self, *_: Any, **__: Any) -> None:
        """Refuse: RQ takes callables only, and calls none of a configuration."""
        raise UsageError(f"the cron entry for {self.__name__} is enqueued by rq cron, not called")

    def enqueue(self, cron_job: rq.cron.CronJob, connection: Redis) -> RQJob | None:
        """Enqueue the job, and record it in the history of RQ's entry.

        Crash between the two: the job is enqueued, but missing in the history. If only the answer is lost,
        ``rq cron`` ends as with its own entries; started again, an entry with a *job_id* joins the job.
        """
        queue = Queue(cron_job.queue_name, connection=connection, serializer="json")
        options = dict(cron_job.job_options)
        options["timeout"] = options.pop("job_timeout", None)
        if self.job_id is not None:
            options["job_id"] = self.job_id
        if isinstance(self.target, type) and issubclass(self.target, Job):
            try:
                job = enqueue(queue, self.target, *cron_job.args, options=options, **cron_job.kwargs)
            except (
                HarnessError
            ) as error:  # such as an unfinished job with other arguments: the other entries go on
                log.error("cron entry %s: not enqueued: %s", cron_job.name, error)  # noqa: TRY400 - it says all
                return None
        else:
            job = queue.enqueue_call(self.target, args=cron_job.args, kwargs=cron_job.kwargs, **options)
        self._note(cron_job, connection, job)
        return job

    @staticmethod
    def _note(cron_job: rq.cron.CronJob, connection: Redis, job: RQJob) -> None:
        at = (job.enqueued_at or job.created_at).timestamp()
        with connection.pipeline() as pipeline:
            pipeline.zadd(cron_job.job_history_key, {job.id: at})
            pipeline.zremrangebyrank(cron_job.job_history_key, 0, -(DEFAULT_CRON_JOB_HISTORY_LIMIT + 1))
            pipeline.expire(cron_job.job_history_key, DEFAULT_CRON_JOB_HISTORY_TTL)
            cron_job_registry.add(cron_job.name, pipeline, enqueue_timestamp=at)
            pipeline.execute()
        log.info("cron entry %s: job %s is in queue %s", cron_job.name, job.id, cron_job.queue_name)


def register(
    target: type[Job] | Callable[..., Any],
    queue_name: str,
    *,
    args: Sequence[Any] = (),
    kwargs: dict[str, Any] | None = None,
    interval: int | None = None,
    cron: str | None = None,
    job_id: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Register a job class, or a plain function, in the configuration of ``rq cron``; its jobs are JSON.

    :param args: and *kwargs*: of the job.
    :param interval: seconds between two runs. :param cron: cron expression; give one of the two. :param
        job_id: id of the job, the same each time; with it, an unfinished job is not enqueued again.
    :param options: of ``rq.cron.register``: ``job_timeout``, ``result_ttl``, ``failure_ttl``, ``meta``, ``name``, …
    :raises UsageError: if no worker could find the target, or the job cannot take the arguments.
    """
    if isinstance(target, type):
        check_class(target)
        job_class: type[Job] = target  # check_class() refuses others
        for index, value in enumerate(args):
            cursors.encode(value, f"argument {index}")
        for name, value in (kwargs or {}).items():
            cursors.encode(value, f"argument {name!r}")
        job_class.check_arguments(kwargs or {}, None)
        job_class.check_call(args, kwargs or {})
    elif not callable(target) or not hasattr(target, "__qualname__"):
        raise UsageError(
            f"got {target!r}; register a ContinuableJob, an IterationJob or a function of a module"
        )
    else:
        check_importable(target)
    _install()
    found: dict[str, Any] = rq.cron.register(
        _Entry(target, job_id),
        queue_name,
        args=tuple(args),
        kwargs=kwargs,
        interval=interval,
        cron=cron,
        **options,
    )
    return found


_original: Callable[..., Any] | None = None


def _install() -> None:
    global _original  # noqa: PLW0603 - once a process
    if _original is None:
        _original = rq.cron.CronJob.enqueue
        rq.cron.CronJob.enqueue = _enqueue  # type: ignore[method-assign, assignment]


def _enqueue(cron_job: rq.cron.CronJob, connection: Redis) -> RQJob | None:
    entry: Any = cron_job.func
    if isinstance(entry, _Entry):
        return entry.enqueue(cron_job, connection)
    assert _original is not None  # noqa: S101 - _install() has set it
    job: RQJob = _original(cron_job, connection)
    return job
