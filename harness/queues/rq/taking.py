"""Take jobs out of queues so that a job is always in a list that recovery reads.

RQ's worker takes the jobs of several queues with ``BLPOP``: a SIGKILL at that moment loses the job. Here each job moves
to the intermediate queue of its queue in one command, whatever the number of queues:

* :meth:`Taker.first` tries the queues in the worker's order with ``LMOVE``;
* :meth:`Taker.wait` then waits with one ``BLMOVE`` for each queue, on a connection each, until one of them answers. The
  others are ended with ``CLIENT UNBLOCK``. If one of them has moved a job too, that job goes back to the front of its
  queue.

Crash before a command reaches Redis: the job is in its queue. Crash after it, or a lost answer: the job is in the
intermediate queue, and the sweep (:mod:`harness.queues.rq.recovery`) puts it back.

The wait is a ``select`` on sockets, which read nothing. So a signal handler may raise in it and loses no job.
"""

from __future__ import annotations

import logging
import selectors
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import RedisError, WatchError
from redis.exceptions import TimeoutError as RedisTimeoutError

if TYPE_CHECKING:
    from redis import Redis
    from rq import Queue

ANSWER_SECONDS = 10
"""Time limit for the answer after the end of a ``BLMOVE``, in seconds; later the connection counts as broken."""

SHORT_SECONDS = 1.0
"""Duration of a wait that cannot watch all queues, in seconds."""

KEPT_CONNECTIONS = 3
"""Connections of a bounded pool that a wait leaves for other threads of the worker."""

log = logging.getLogger("harness.rq")


class Taken(NamedTuple):
    """Job that was moved to the intermediate queue of its queue."""

    queue: Queue
    job_id: bytes


class _Wait(NamedTuple):
    """Pending ``BLMOVE``: its connection, the queue, and the client id for ``CLIENT UNBLOCK``."""

    connection: Any
    queue: Queue
    client_id: int


class Taker:
    """Takes jobs of a worker's queues.

    :param connection: connection of the worker.
    """

    def __init__(self, connection: Redis) -> None:
        self._connection = connection
        self._pool: Any = connection.connection_pool

    def first(self, queues: Iterable[Queue]) -> Taken | None:
        """Take the first job of the first queue that has one."""
        for queue in queues:
            job_id: Any = self._connection.lmove(queue.key, queue.intermediate_queue_key)
            if job_id is not None:
                return Taken(queue, job_id)
        return None

    def wait(
        self,
        queues: Sequence[Queue],
        seconds: float,
        interruptible: Callable[[], AbstractContextManager[None]],
    ) -> Taken | None:
        """Wait for a job in one of the queues, and take it; None if none came.

        :param interruptible: context in which a signal handler may raise.
        :raises redis.exceptions.ConnectionError: if a connection fails.
        """
        if not _has_sockets(self._pool):
            return self._wait_without_sockets(queues[0], seconds)
        waits: list[_Wait] = []
        taken: list[Taken] = []
        try:
            for queue in queues[: self._room()]:
                waits.append(self._start(queue, seconds))  # noqa: PERF401 - one that fails leaves the others to end
            limit = seconds + ANSWER_SECONDS if len(waits) == len(queues) else SHORT_SECONDS
            for wait in _ready(waits, limit, interruptible):
                waits.remove(wait)
                taken += self._answer(wait)
        except BaseException:
            self._give_back([*taken, *self._end(waits)])
            raise
        taken += self._end(waits)
        taken.sort(key=lambda each: queues.index(each.queue))
        self._give_back(taken[1:])
        return taken[0] if taken else None

    def give_back(self, taken: Taken) -> None:
        """Return a job to the front of its queue, unless it has left the intermediate queue.

        Crash before EXEC: the sweep does the same. Answer lost: redis-py raises WatchError, and the next round finds
        the job gone from the intermediate queue. So the job is never in its queue twice.
        """
        key = taken.queue.intermediate_queue_key
        with self._connection.pipeline() as pipeline:
            while True:
                pipeline.watch(key)
                if pipeline.lpos(key, taken.job_id) is None:  # type: ignore[arg-type]  # bytes will do
                    return
                pipeline.multi()
                pipeline.lrem(key, 1, taken.job_id)  # type: ignore[arg-type]
                pipeline.lpush(taken.queue.key, taken.job_id)
                with suppress(WatchError):
                    pipeline.execute()
                    return

    def _give_back(self, all_taken: Iterable[Taken]) -> None:
        for taken in all_taken:
            try:
                self.give_back(taken)
            except RedisError as error:
                log.warning(
                    "job %r was dequeued and not returned to queue %s (%s); a sweep will return it",
                    taken.job_id, taken.queue.name, type(error).__name__,
                )  # fmt: skip

    def _room(self) -> int | None:
        most = getattr(self._pool, "max_connections", None)
        return None if most is None else max(1, most - KEPT_CONNECTIONS)

    def _start(self, queue: Queue, seconds: float) -> _Wait:
        connection = self._pool.get_connection()
        try:
            move = ("BLMOVE", queue.key, queue.intermediate_queue_key, "LEFT", "RIGHT", seconds)
            connection.send_packed_command(connection.pack_commands([("CLIENT", "ID"), move]))
            return _Wait(connection, queue, int(connection.read_response()))
        except BaseException:
            self._drop(connection)
            raise

    def _answer(self, wait: _Wait) -> list[Taken]:
        try:
            job_id = wait.connection.read_response()
        except BaseException:
            self._drop(wait.connection)
            raise
        self._pool.release(wait.connection)
        return [] if job_id is None else [Taken(wait.queue, job_id)]

    def _end(self, waits: Iterable[_Wait]) -> list[Taken]:
        """End waits, and return the jobs that they dequeued.

        If Redis or an access rule does not allow it, close the connection; if a job moves before Redis
        notices that, a sweep returns it.
        """
        waits = list(waits)
        if not waits:
            return []
        taken: list[Taken] = []
        try:
            with self._connection.pipeline(transaction=False) as pipeline:
                for wait in waits:
                    pipeline.client_unblock(wait.client_id)
                ended = pipeline.execute(raise_on_error=False)
        except RedisError:
            ended = [None] * len(waits)
        for wait, answer in zip(waits, ended, strict=True):
            if not isinstance(answer, int):
                self._drop(wait.connection)
                continue
            with suppress(RedisError):  # the connection is dropped
                taken += self._answer(wait)
        return taken

    def _drop(self, connection: Any) -> None:
        connection.disconnect()
        self._pool.release(connection)

    def _wait_without_sockets(self, queue: Queue, seconds: float) -> Taken | None:
        """Wait only for the first queue, for a short time: fakeredis has no socket to wait on."""
        job_id: Any = self._connection.blmove(
            queue.key,
            queue.intermediate_queue_key,
            min(seconds, SHORT_SECONDS),  # type: ignore[arg-type]
        )
        return None if job_id is None else Taken(queue, job_id)


def _has_sockets(pool: Any) -> bool:
    return not pool.connection_class.__module__.startswith("fakeredis")


def _ready(
    waits: Sequence[_Wait], seconds: float, interruptible: Callable[[], AbstractContextManager[None]]
) -> list[_Wait]:
    """Return the waits that can be read.

    :raises redis.exceptions.TimeoutError: if Redis answers none of them in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        # An answer may be in the buffer of the parser or of TLS, where select does not see it.
        ready = [wait for wait in waits if wait.connection.can_read(0)]
        if ready:
            return ready
        left = deadline - time.monotonic()
        if left <= 0:
            if seconds <= SHORT_SECONDS:
                return []
            raise RedisTimeoutError("no answer to BLMOVE")
        with selectors.DefaultSelector() as selector:
            for wait in waits:
                selector.register(wait.connection._sock, selectors.EVENT_READ)  # noqa: SLF001 - it has no public name
            with interruptible():
                selector.select(left)
