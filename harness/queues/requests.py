"""Requests to a job from outside, through Redis: stop, pause, cancel. Each queue resumes a job in its own way."""

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
"""Set when the worker in this process is asked to stop; every job asks it at its checkpoints."""

REQUEST_TTL = 24 * 3600
"""Seconds after which a request is forgotten whose job never came."""


def request_stop(connection: Redis, job_id: str, reason: str = "requested") -> None:
    """Ask a job, wherever it runs, to stop at its next checkpoint once; it goes on when its turn comes again."""
    check_connection(connection)
    connection.set(keys.stop(job_id), reason, ex=REQUEST_TTL)


def pause(connection: Redis, job_id: str) -> None:
    """Have a job stop at its next checkpoint, or before it starts, and not go on before the queue's ``resume``.

    On RQ it then waits in the scheduled registry, under a date that is never reached.
    """
    check_connection(connection)
    connection.set(keys.control(job_id), PAUSE)


def cancel(connection: Redis, job_id: str) -> None:
    """Have a job stop for good at its next checkpoint, or before it starts; its ``on_cancel`` runs.

    Its progress is kept. RQ then shows it as canceled under our workers, and Celery as revoked.
    """
    check_connection(connection)
    connection.set(keys.control(job_id), CANCEL, ex=REQUEST_TTL)


def forget(pipeline: Pipeline, job_id: str) -> None:
    """Forget what was asked of an earlier round of a job, in the transaction that enqueues it again."""
    pipeline.delete(keys.stop(job_id), keys.control(job_id))


class Requests:
    """The stop source for what was asked of a job from outside, through Redis.

    :param worker_key: hash of an RQ worker whose shutdown stops the job too: RQ's own worker notes that it was asked to
        stop (``shutdown_requested_date``), but does not pass it on to its work horse.
    """

    def __init__(self, connection: Redis, worker_key: str | None = None) -> None:
        check_connection(connection)
        self._connection, self._worker_key = connection, worker_key

    def at_start(self, at: Position) -> Control | None:
        """Return what holds before any work; a mere stop does not."""
        try:
            return _control(self._connection.mget(_controls(at)))
        except RedisError:
            return None  # it is asked again at a checkpoint

    def __call__(self, at: Position) -> str | None:
        """Look for a pause, a cancellation, the worker's shutdown, or a stop, which is taken so that it stops once.

        If the process dies after taking it, the request is gone, but so is the execution that it was meant for.
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
    return [keys.control(job_id) for job_id in dict.fromkeys((at.job_id, at.family_id))]


def _control(values: list[Any]) -> Control | None:
    asked = [_text(value) for value in values if value is not None]
    return next((each for each in (CANCEL, PAUSE) if each in asked), None)


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
