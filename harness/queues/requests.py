"""Requests to a job through Redis: stop, pause, cancel. Each queue resumes a job in its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from harness.queues import keys
from harness.queues.connections import check_connection
from harness.stops import CANCEL, PAUSE, Control, Flag

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from harness.progress import Position

shutdown = Flag()
"""Flag that is set when the worker in this process is asked to stop; every job checks it at its checkpoints."""

REQUEST_TTL = 24 * 3600
"""TTL of requests whose job never started, in seconds."""


def request_stop(connection: Redis, job_id: str, reason: str = "requested") -> None:
    """Ask a job on any machine to stop once at its next checkpoint; it is requeued and continues later."""
    check_connection(connection)
    connection.set(keys.stop(job_id), reason, ex=REQUEST_TTL)


def pause(connection: Redis, job_id: str) -> None:
    """Stop a job at its next checkpoint, or before it starts, until the queue's ``resume``.

    On RQ it then waits in the scheduled registry, under a date that is never reached.
    """
    check_connection(connection)
    connection.set(keys.control(job_id), PAUSE)


def cancel(connection: Redis, job_id: str) -> None:
    """Stop a job permanently at its next checkpoint, or before it starts; its ``on_cancel`` runs.

    Its progress is kept. RQ then shows it as canceled (with workers of this package), and Celery as revoked.
    """
    check_connection(connection)
    connection.set(keys.control(job_id), CANCEL, ex=REQUEST_TTL)


def forget(pipeline: Pipeline, job_id: str) -> None:
    """Delete requests to an earlier round of a job, in the transaction that enqueues it again."""
    pipeline.delete(keys.stop(job_id), keys.control(job_id))


class Requests:
    """Stop source for requests to a job through Redis.

    :param worker_key: hash of an RQ worker whose shutdown stops the job too: RQ's own worker notes that it was asked to
        stop (``shutdown_requested_date``), but does not pass it on to its work horse.
    :param found: pauses and cancellations of this job that were read a moment ago, with its claim.
    """

    def __init__(
        self,
        connection: Redis,
        worker_key: str | None = None,
        *,
        found: tuple[bytes | None, ...] | None = None,
    ) -> None:
        check_connection(connection)
        self._connection, self._worker_key, self._found = connection, worker_key, found

    def at_start(self, at: Position) -> Control | None:
        """Return what holds before any work; a mere stop does not."""
        found, self._found = self._found, None
        if found is not None:
            return _control(list(found))
        try:
            return _control(self._connection.mget(_controls(at)))
        except RedisError:
            return None  # it is asked again at a checkpoint

    def __call__(self, at: Position) -> str | None:
        """Check for a pause, a cancellation, the worker's shutdown, or a stop.

        A stop request is removed, so that it stops the job once. If the process crashes after that, the
        request is gone, but so is the execution that it was for.
        """
        try:
            with self._connection.pipeline(transaction=False) as pipeline:
                pipeline.mget(_controls(at))
                pipeline.getdel(keys.stop(at.job_id))
                if self._worker_key is not None:
                    pipeline.hget(self._worker_key, "shutdown_requested_date")
                controls, reason, *leaving = pipeline.execute()
        except RedisError:  # wrong data, too: a key of another program
            return None  # no reason to stop working; a stop that was taken now is lost, and may be asked for again
        if reason is not None:
            return _control(controls) or _text(reason)
        return _control(controls) or ("worker leaves" if any(leaving) else None)


def _controls(at: Position) -> list[str]:
    return [keys.control(job_id) for job_id in dict.fromkeys((at.job_id, at.run_id))]


def _control(values: list[Any]) -> Control | None:
    asked = [_text(value) for value in values if value is not None]
    return next((each for each in (CANCEL, PAUSE) if each in asked), None)


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
