"""Jobs with data that these workers cannot read, and plain jobs that an application has pickled, RQ's default.

Loading a pickle can run any code. So jobs of this package are always JSON. Plain jobs are JSON too, unless
``HARNESS_ALLOW_PICKLE=1`` allows everyone who can write to this Redis to run code here, as with RQ's own
worker. Then each plain job is read, and its result written, in the format that it was enqueued in.

A job that cannot be read goes to the failed registry immediately, with cause and remedy. It has not run: its retries,
callbacks and dependents wait until it is requeued. In its queue, these workers would take it again for ever.
"""

from __future__ import annotations

import contextlib
import os
import pickletools
from typing import TYPE_CHECKING, Any

from rq.exceptions import NoSuchJobError
from rq.job import JobStatus
from rq.rate_limit import release_slot
from rq.serializers import DefaultSerializer, JSONSerializer, resolve_serializer
from rq.worker import BaseWorker

from harness.boundary.texts import bounded, error_text
from harness.errors import UsageError
from harness.queues.connections import check_worker_connection
from harness.queues.rq.places import PERFORM

if TYPE_CHECKING:
    from rq import Queue
    from rq.executions import Execution as RQExecution
    from rq.job import Job as RQJob

ALLOW = "HARNESS_ALLOW_PICKLE"
"""Environment variable that allows the workers of this package to load pickled plain jobs."""

_FIRST_OPCODES = 20
"""Number of a pickle's first opcodes that must include the name of the function."""

_NAME_LIMIT = 200
"""Number of bytes of a function's name in a message."""


def allowed() -> bool:
    """Return whether plain jobs that were pickled may be loaded.

    :raises UsageError: if the setting is neither 0 nor 1.
    """
    value = os.environ.get(ALLOW, "0")
    if value not in {"0", "1"}:
        raise UsageError(f"got {ALLOW}={value!r}; use 1 to load plain jobs that were pickled, or 0")
    return value == "1"


def is_pickled(job: RQJob) -> bool:
    """Return whether the data of a job is a pickle of RQ's; it is not loaded."""
    return job.data[:1] == b"\x80"  # no JSON and no UTF-8 begins so; RQ uses the highest protocol


def function_name(job: RQJob) -> str | None:
    """Return the name of a pickled job's function, without loading the pickle; None for another form."""
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(job.data)):
            if "UNICODE" in opcode.name:  # RQ's tuple begins with the name
                return str(argument)
            if number == _FIRST_OPCODES:
                break
    except Exception:  # noqa: BLE001 - the data may be anything
        return None
    return None


class Reading(BaseWorker):
    """Part of the workers that reads jobs: JSON, or a plain job's pickle if that is allowed."""

    def __init__(
        self, queues: Any, name: str | None = None, *, serializer: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(queues, name, serializer=_no_pickle(serializer), **kwargs)
        check_worker_connection(self.connection)
        for queue in self.queues:  # rq's commands make them with the default, pickle, before they ask
            queue.serializer = _no_pickle(queue.serializer)
        self._pickles = allowed()
        # RQ passes the path of its default if the option was not given, so only the short name means that it
        # was.
        self._asked_for_pickle = serializer == "pickle"

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """Work, and first log the handling of pickles if they were requested."""
        if self._asked_for_pickle and not self._pickles:
            self.log.warning(
                "Worker %s: --serializer pickle is ignored: this worker reads JSON, and fails pickled jobs "
                "without running them; set %s=1 to run plain jobs that were pickled",
                self.name, ALLOW,
            )  # fmt: skip
        if self._pickles:
            self.log.info(
                "Worker %s: %s=1: plain jobs that were pickled are loaded; everyone who can write to this "
                "Redis can run code here",
                self.name, ALLOW,
            )  # fmt: skip
        return super().work(*args, **kwargs)

    def execute_job(self, job: RQJob, queue: Queue) -> None:
        """Execute the job, if it can be read."""
        refused = self._unread(job)
        if refused is None:
            super().execute_job(job, queue)
        else:
            self._refuse_unread(job, queue, refused)

    def perform_job(self, job: RQJob, queue: Queue, execution: RQExecution) -> bool:
        """Perform the job; a spawned process has fetched it again, and must choose the format again."""
        self._unread(job)
        return super().perform_job(job, queue, execution)

    def _unread(self, job: RQJob) -> str | None:
        """Return why the job cannot be read, or None; a pickled job that may be loaded gets its serializer."""
        if self.serializer is JSONSerializer and is_pickled(job):
            name = function_name(job)
            if not self._pickles or name is None or name == PERFORM:
                return _reason(job, name)
            if job.serializer is not DefaultSerializer:
                job.serializer = DefaultSerializer
                with contextlib.suppress(
                    NoSuchJobError
                ):  # deleted just now; RQ's worker would execute it as well
                    job.refresh()  # its meta is a pickle too
        try:
            job.func_name  # noqa: B018 - loads the data
        except Exception as error:  # noqa: BLE001 - depends on the serializer, and on the data
            cause = error.__cause__ or error
            return (
                f"the data of job {job.id} cannot be read as {_named(job.serializer)} ({error_text(cause)}); it was "
                "not run: enqueue it again, with the serializer of the worker"
            )
        return None

    def _refuse_unread(self, job: RQJob, queue: Queue, reason: str) -> None:
        """Move an unreadable job to the failed registry, without running it or using a retry.

        One transaction. Crash before it: the job is in the intermediate queue, and RQ's maintenance fails it
        with a less exact reason. If only the answer is lost, it has failed with this reason.
        """
        reason = bounded(reason)
        with self.connection.pipeline() as pipeline:
            pipeline.lrem(queue.intermediate_queue_key, 1, job.id)
            job.set_status(JobStatus.FAILED, pipeline=pipeline)
            job._handle_failure(reason, pipeline=pipeline, worker_name=self.name)  # noqa: SLF001 - as RQ's worker does
            self.increment_failed_job_count(pipeline)
            pipeline.execute()
        release_slot(job)
        self.log.error("Worker %s: %s", self.name, reason)


def _reason(job: RQJob, name: str | None) -> str:
    shown = "an unknown function" if name is None else bounded(name, _NAME_LIMIT)
    start = f"job {job.id} ({shown}) was pickled, and "
    if name == PERFORM:
        return start + (
            "jobs of this package are never loaded from a pickle; it was not run: enqueue it with "
            "harness.queues.rq.enqueue(), or from cron with harness.queues.rq.cron.register()"
        )
    if name is None:
        return start + "it does not start like RQ's jobs; it was not run: enqueue it again"
    return start + (
        f"this worker reads JSON only; it was not run: enqueue it in Queue(…, serializer='json'), or set {ALLOW}=1 for "
        "the worker if everyone who can write to this Redis may run code there; then requeue it"
    )


def _named(serializer: Any) -> str:
    return "JSON" if serializer is JSONSerializer else getattr(serializer, "__name__", repr(serializer))


def _no_pickle(serializer: Any) -> Any:
    found = resolve_serializer(serializer)
    return JSONSerializer if found is DefaultSerializer else found
