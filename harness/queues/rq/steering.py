"""Checks before a user steers a job: it exists, belongs to this package, runs, and its processes are here."""

from __future__ import annotations

import socket
import subprocess
from typing import TYPE_CHECKING

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq.exceptions import NoSuchJobError
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.serializers import JSONSerializer

from harness.boundary.texts import error_text
from harness.errors import UsageError
from harness.queues.history import Heartbeat, history
from harness.queues.rq.overview import Watcher
from harness.queues.rq.places import is_ours

if TYPE_CHECKING:
    from redis import Redis

    from harness.queues.rq.views import JobView, WorkerView


def fetched(connection: Redis, job_id: str) -> RQJob | None:
    """Return a job of RQ, or None.

    :raises UsageError: if its record cannot be read.
    """
    try:
        return RQJob.fetch(job_id, connection=connection, serializer=JSONSerializer)
    except NoSuchJobError:
        return None
    except (RedisConnectionError, RedisTimeoutError):
        raise
    except Exception as error:
        raise UsageError(
            f"RQ's record of job {job_id} cannot be read: {error_text(error)}; it was not changed"
        ) from error


def ours(job: RQJob) -> RQJob:
    """Return the job.

    :raises UsageError: if it does not belong to this package.
    """
    if not is_ours(job):
        raise UsageError(
            f"job {job.id} is not a ContinuableJob or IterationJob: it has no checkpoint where it can stop"
        )
    return job


def not_over(job: RQJob) -> None:
    """Refuse a job that has ended.

    :raises UsageError: with its status.
    """
    status = job.get_status(refresh=False)
    if status in {"finished", "canceled", "failed", "stopped"}:
        raise UsageError(f"job {job.id} is over: {status.value}")


def at_work(connection: Redis, job: RQJob) -> JobView:
    """Return the view of a running job.

    :raises UsageError: if it does not run.
    """
    for each in Watcher(connection, [job.origin], [job.id]).look().jobs:
        if each.id == job.id and each.status == "started":
            return each
    raise UsageError(
        f"job {job.id} is not running: {job.get_status(refresh=False).value}; use `harness pause` for a waiting job"
    )


def worker_here(connection: Redis, job: JobView) -> WorkerView:
    """Return the worker of a job, if it is on this machine.

    :raises UsageError: if it is on another one, or no longer registered.
    """
    for worker in Watcher(connection).look().workers:
        if worker.name == job.worker:
            if worker.host != socket.gethostname():
                raise UsageError(
                    f"the worker of job {job.id} is on {worker.host}, this is {socket.gethostname()}; "
                    "signals do not reach other machines; use --flag"
                )
            if worker.pid is not None:
                return worker
    raise UsageError(
        f"the worker of job {job.id} is no longer registered; use --flag, which reaches any worker"
    )


def horse(connection: Redis, job_id: str, worker_pid: int) -> int:
    """Return the pid of the process of a job.

    :raises UsageError: if the worker has no such process.
    """
    heartbeat: Heartbeat | None = history(connection, job_id)[1]
    if heartbeat is None:
        raise UsageError(f"job {job_id} has not yet reported its process; kill its worker, or use --flag")
    if heartbeat.pid == worker_pid:
        raise UsageError(f"the worker of job {job_id} has no process for it: use --kill worker")
    # The system may have reused the pid: the process must still be a child of that worker.
    asked = subprocess.run(  # noqa: S603 - a number
        ["/bin/ps", "-o", "ppid=", "-p", str(heartbeat.pid)], capture_output=True, text=True, check=False
    )
    if asked.stdout.strip() != str(worker_pid):
        raise UsageError(
            f"process {heartbeat.pid}, which worked on job {job_id}, is gone; try again in a second"
        )
    return heartbeat.pid


def failure_of(job: RQJob) -> str | None:
    """Return in one line why RQ failed the job; None if it did not."""
    if job.get_status(refresh=False) != JobStatus.FAILED:
        return None
    try:
        result = job.latest_result()
    except (RedisConnectionError, RedisTimeoutError):
        raise
    except Exception:  # noqa: BLE001 - RQ does not say what it raises for a result that it cannot read
        return "RQ's record of its result cannot be read"
    said = (result.exc_string or "").strip() if result is not None else ""
    return said.splitlines()[-1] if said else "RQ gives no reason"
