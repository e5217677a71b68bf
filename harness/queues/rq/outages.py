"""Worker behaviour while Redis cannot be used: the worker logs it once, waits, and continues when Redis is back.

An outage is a refused or lost connection, a timeout, ``LOADING``, ``OOM`` (``maxmemory`` with
``noeviction``), ``READONLY`` (a failover), ``UNBLOCKED``, ``MISCONF`` and the like: any error of Redis,
except one about wrong data in a key. RQ's worker exits on most of them, idle or busy.

* Idle, the worker tries again every few seconds. It checks for a stop signal between the attempts.
* Busy, its heartbeats are skipped. The job decides at its checkpoints (:mod:`harness.runtime.checkpoints`).
* An end that cannot be reported is tried again for :data:`REPORT_SECONDS`. Then the execution is left to its lease: a
  sweep requeues the job, and the next execution finds in the progress how far it came. RQ's success callback may run
  twice then. An outage is never reported as a failure of the job.
* A wrong password is an error of the configuration, and raised when the worker starts.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError
from rq.exceptions import StopRequested
from rq.utils import now
from rq.worker import BaseWorker

from harness.queues.connections import check_server
from harness.queues.periodic import shown
from harness.queues.rq.entries import complaints, is_outage
from harness.queues.rq.places import is_ours

if TYPE_CHECKING:
    from collections.abc import Callable

    from rq import Queue
    from rq.executions import Execution as RQExecution
    from rq.job import Job as RQJob

WAIT_SECONDS, LONGEST_WAIT = 0.5, 5.0
"""Seconds between two attempts to use Redis: initial and maximum."""

REPORT_SECONDS = 20.0
"""Seconds for which a worker tries to report the end of an execution."""

_REFUSED = (AuthenticationError, AuthorizationError, NoPermissionError)


class Outages(BaseWorker):
    """Part of the workers that survives outages of Redis; it is the first of their bases."""

    _away = ""
    """Kind of the current error of Redis; empty while Redis can be used."""

    _wait_s = WAIT_SECONDS
    _unreported = False
    """True if Redis, not the job, caused the abnormal end of the execution."""

    # At the start and the end of the worker.

    def _set_ip_address(self, connection: Any) -> None:
        try:
            super()._set_ip_address(connection)
        except _REFUSED:
            raise
        except RedisError:
            self.ip_address = "unknown"

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """Work when Redis can be used."""
        self._patiently(lambda: check_server(self.connection))
        return super().work(*args, **kwargs)

    def register_birth(self) -> None:
        """Register the worker when Redis can be used."""
        tries = 0

        def register() -> None:
            nonlocal tries
            tries += 1
            try:
                super(Outages, self).register_birth()  # type: ignore[no-untyped-call]
            except ValueError:
                if tries == 1:
                    raise  # else it is registered: the answer to an earlier try was lost

        self._patiently(register)

    def subscribe(self) -> None:
        """Open the command channel when Redis can be used."""
        self._patiently(super().subscribe)

    def teardown(self) -> None:
        """Unregister the worker; without Redis the registration expires."""
        try:
            super().teardown()  # type: ignore[no-untyped-call]
        except RedisError as error:
            self._note_outage(error)
            if self.pubsub_thread:
                self.pubsub_thread.stop()

    def _patiently(self, action: Callable[[], object]) -> None:
        while True:
            try:
                action()
            except RedisError as error:
                if isinstance(error, _REFUSED) or not is_outage(error):
                    raise
                self._sit_out(error)
            else:
                return

    # In the worker's loop.

    def check_for_suspension(self, burst: bool) -> None:
        """Wait while workers are suspended."""
        self._tolerant(super().check_for_suspension, burst)

    def run_maintenance_tasks(self) -> None:
        """Clean RQ's registries; an unreadable one does not stop the worker."""
        try:
            super().run_maintenance_tasks()  # type: ignore[no-untyped-call]
        except StopRequested:
            raise
        except Exception as error:  # noqa: BLE001 - of RQ's registries, where anything may be
            if is_outage(error):
                self._note_outage(error)
            else:
                complaints.say("maintenance of worker", self.name, error)
                self.last_cleaned_at = now()  # type: ignore[assignment]  # RQ starts with None

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Send a heartbeat; one that is lost does no harm."""
        if pipeline is not None:
            super().heartbeat(timeout, pipeline)
        elif self._tolerant(super().heartbeat, timeout):
            self._note_return()

    def set_state(self, state: str, pipeline: Any = None) -> None:
        """Show the worker's state."""
        if pipeline is not None:
            super().set_state(state, pipeline)
        else:
            self._state = state
            self._tolerant(super().set_state, state)

    def maintain_heartbeats(self, job: RQJob, execution: RQExecution) -> None:
        """Renew RQ's records of the running job."""
        self._tolerant(super().maintain_heartbeats, job, execution)

    def execute_job(self, job: RQJob, queue: Queue) -> None:
        """Execute the job; if Redis fails before its start or after its end, a sweep requeues it."""
        self._unreported = False
        try:
            super().execute_job(job, queue)
        except StopRequested:
            raise
        except Exception as error:  # noqa: BLE001 - RQ would end the worker for it
            if is_outage(error):
                self._note_outage(error)
                self.log.warning("Worker %s: job %s is left to recovery", self.name, shown(job.id))
            else:
                complaints.say("job", job.id, error)
            self._horse_pid = 0
            self.executions.clear()

    def _refuse(self, found: Any) -> None:
        self._tolerant(super()._refuse, found)  # type: ignore[misc]  # of Signals

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:  # noqa: ARG002
        """Keep the thread of RQ's commands alive after any input."""
        if isinstance(exc, RedisError | OSError):
            time.sleep(LONGEST_WAIT)
        else:
            complaints.say("command to worker", self.name, exc)
            time.sleep(WAIT_SECONDS)  # an error that comes at each look must not keep a core busy

    # Where the job runs.

    def prepare_job_execution(self, job: RQJob, remove_from_intermediate_queue: bool = False) -> None:
        """Record in Redis that the job starts."""
        try:
            super().prepare_job_execution(job, remove_from_intermediate_queue)
        except RedisError:
            self._unreported = is_ours(job)
            raise

    def _finalize_success(self, job: RQJob, queue: Queue, execution: RQExecution, return_value: Any) -> None:
        """Report the end of the execution, and try again for some seconds while Redis is away."""
        give_up = time.monotonic() + REPORT_SECONDS
        while True:
            try:
                super()._finalize_success(job, queue, execution, return_value)
            except RedisError as error:
                if not is_ours(job):
                    raise
                if not is_outage(error) or time.monotonic() >= give_up:
                    self._unreported = True
                    raise
                self._note_outage(error)
                time.sleep(WAIT_SECONDS)
            else:
                return

    def _finalize_failure(self, job: RQJob, queue: Queue, execution: RQExecution, exc_info: Any) -> None:
        """Report a failure of the job; an outage is not one."""
        if self._unreported and exc_info[1] is not None:
            raise exc_info[1]
        super()._finalize_failure(job, queue, execution, exc_info)

    # Log lines.

    def _tolerant(self, action: Callable[..., object], *arguments: Any) -> bool:
        """Run an action that may fail while Redis is away, and return whether it succeeded."""
        try:
            action(*arguments)
        except RedisError as error:
            if is_outage(error):
                self._note_outage(error)
            else:
                complaints.say("record of worker", self.name, error)
            return False
        return True

    def _sit_out(self, error: RedisError) -> None:
        """Wait before Redis is tried again; a signal to stop ends the wait.

        :raises StopRequested: then.
        """
        if is_outage(error):
            self._note_outage(error)
        else:
            complaints.say("queue", ", ".join(self.queue_names()), error)
        self._pause(self._wait_s)  # type: ignore[attr-defined]  # of Signals
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT)

    def _note_outage(self, error: BaseException) -> None:
        if not self._away:
            self.log.warning(
                "Worker %s: Redis cannot be used (%s); the worker continues when Redis is back",
                self.name, shown(error),
            )  # fmt: skip
        self._away = type(error).__name__

    def _note_return(self) -> None:
        if self._away:
            self.log.warning("Worker %s: Redis can be used again", self.name)
        self._away, self._wait_s = "", WAIT_SECONDS
