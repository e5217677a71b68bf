"""Actions of an application on a job from outside, at any command that the job's worker sends to Redis."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, ClassVar

from redis import ConnectionPool, Redis, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Queue
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job as RQJob

from harness import Enumerator, IterationJob, UsageError, every, items
from harness.queues.rq import SimpleWorker, cancel, enqueue, pause, recover, request_stop, resume
from harness.queues.rq.keys import LEASES, OPEN, STRAYS
from harness.queues.rq.requests import PERFORM
from harness.stores.rq_meta import FIELD
from tests.jobs import DONE


class Counted(IterationJob):
    """Does some numbers, each under a name."""

    durability = every(items=1)

    def build_enumerator(self, name: str, numbers: int, *, cursor: Any) -> Enumerator[int]:
        """Go through the numbers."""
        return items(range(numbers), cursor=cursor)

    def each_iteration(self, item: int, name: str, numbers: int) -> None:
        """Do one number."""
        DONE.append((name, item))


class Dead(BaseException):
    """Stands for a worker process that is no more."""


class Watched(UnixDomainSocketConnection):
    """A worker's connection: something happens before the n-th command of its main thread, by others or to it."""

    plan: ClassVar[dict[int, list[Callable[[], None]]]] = {}
    sent = 0
    dead = False

    def send_packed_command(self, *arguments: Any, **options: Any) -> None:
        """Let happen what is planned, then send."""
        if Watched.dead and "UNWATCH" in str(arguments):  # what is left of a pipeline, when it is collected
            raise RedisConnectionError
        if threading.current_thread() is threading.main_thread():
            if Watched.dead:
                raise Dead
            Watched.sent += 1
            for happens in Watched.plan.pop(Watched.sent, ()):
                happens()
        super().send_packed_command(*arguments, **options)  # type: ignore[no-untyped-call]


class Application:
    """An application that has enqueued a job, and what it may do to it.

    :ivar excused: whether the job may be gone: it was deleted, cancelled or expired on purpose.
    :ivar name: and *numbers*: what the job was last accepted with.
    :ivar calls: names and numbers of which one must have been done: an old copy that is saved is an old call, too.
    """

    def __init__(self, connection: Redis, numbers: int) -> None:
        self.connection = connection
        self.queue = Queue("test", connection=connection, serializer="json")
        self.name, self.numbers, self.excused = "a", numbers, False
        self.calls = [("a", numbers)]
        self.copies = [self._enqueue("a", numbers)]
        self.id = self.copies[0].id

    def over(self) -> bool:
        """Return whether nothing is left to do, as far as RQ says."""
        status = self.connection.hget(self.copies[0].key, "status")
        busy = self.queue.job_ids or self.connection.exists(self.queue.started_job_registry.key)
        return not busy and status in {None, b"finished", b"failed", b"canceled"}

    def _enqueue(self, name: str, numbers: int) -> RQJob:
        return enqueue(self.queue, Counted, name, numbers, options={"job_id": "j"})

    def do(self, what: str) -> None:
        """Do something, and take no notice of an error that says that it cannot be done now."""
        with suppress(InvalidJobOperation, NoSuchJobError, UsageError, ValueError):
            getattr(self, what)()

    def look(self) -> None:
        """Fetch a copy of the job."""
        self.copies.append(RQJob.fetch(self.id, connection=self.connection, serializer="json"))

    def save(self) -> None:
        """Save the oldest copy."""
        self.copies[0].description = "of Ann"
        self._save(self.copies[0])

    def save_latest(self) -> None:
        """Save the latest copy."""
        self._save(self.copies[-1])

    def _save(self, copy: RQJob) -> None:
        self.calls.append((copy.args[1][0], copy.args[1][1]))
        copy.save()

    def save_meta(self) -> None:
        """Save the meta of the oldest copy."""
        self.copies[0].meta["user"] = 17
        self.copies[0].save_meta()

    def delete(self) -> None:
        """Delete the job."""
        self.excused = True
        RQJob.fetch(self.id, connection=self.connection, serializer="json").delete()

    def requeue(self) -> None:
        """Requeue the job if it has failed."""
        self.copies[-1].requeue()

    def cancel(self) -> None:
        """Cancel the job as RQ does."""
        self.excused = True
        RQJob.fetch(self.id, connection=self.connection, serializer="json").cancel()

    def cancel_politely(self) -> None:
        """Cancel the job as this package does."""
        self.excused = True
        cancel(self.connection, self.id)

    def again(self) -> None:
        """Enqueue the same under the id."""
        self._enqueue_again(self.name, self.numbers)

    def other(self) -> None:
        """Enqueue something else under the id."""
        self._enqueue_again(self.name + "b", self.numbers + 1)

    def _enqueue_again(self, name: str, numbers: int) -> None:
        began = datetime.now(UTC)
        created = self._enqueue(name, numbers).created_at
        if created >= began:  # else the job was under way, and may have been cancelled already
            self.name, self.numbers, self.excused = name, numbers, False
            self.calls = [(name, numbers)]

    def raw(self) -> None:
        """Enqueue the same under the id, past this package."""
        call = ["tests.meddling:Counted", [self.name, self.numbers], {}]
        self.queue.enqueue_call(PERFORM, args=call, job_id=self.id)

    def empty(self) -> None:
        """Empty the queue."""
        self.excused = self.excused or self.id in self.queue.job_ids
        self.queue.empty()

    def expire(self) -> None:
        """Have the job expire."""
        self.excused = True
        self.connection.expire(self.copies[0].key, 0)

    def lose_queue(self) -> None:
        """Lose the list that the queue is."""
        self.connection.delete(self.queue.key)

    def lose_progress(self) -> None:
        """Lose the progress."""
        self.connection.hdel(self.copies[0].key, FIELD)

    def stop(self) -> None:
        """Ask the job to stop once."""
        request_stop(self.connection, self.id)

    def pause(self) -> None:
        """Pause the job."""
        pause(self.connection, self.id)

    def resume(self) -> None:
        """Resume the job."""
        resume(self.queue, self.id)

    def die(self) -> None:
        """Kill the worker."""
        Watched.dead = True
        raise Dead


ACTIONS = sorted(
    name for name, value in vars(Application).items() if callable(value) and name[0] != "_" and name != "do"
)


def work(application: Application) -> None:
    """Let a worker do all waiting work, or crash."""
    path = application.connection.connection_pool.connection_kwargs["path"]
    with Redis.from_pool(ConnectionPool(connection_class=Watched, path=path)) as connection:
        queue = Queue("test", connection=connection, serializer="json")
        Watched.sent, Watched.dead = 0, False
        try:
            worker = SimpleWorker([queue], connection=connection, commands=False)
            worker.work(burst=True, logging_level="CRITICAL")
        except Dead:
            application.connection.delete("rq:workers")
        finally:
            Watched.dead = False


def settle(application: Application) -> None:
    """Let workers come and sweeps find what is left, as they do with time."""
    Watched.plan.clear()
    for _ in range(6):
        recover_at_once(application.connection)
        resume(application.queue, application.id)
        work(application)
        if application.over():
            break
    for _ in range(3):
        recover_at_once(application.connection)


def recover_at_once(connection: Redis) -> list[str]:
    """Sweep as if much time had passed."""
    for key in (OPEN, STRAYS, LEASES):
        members: list[Any] = connection.zrange(key, 0, -1)
        for member in members:
            connection.zincrby(key, -(10**10), member)
    with _at_once():
        return recover(connection)


@contextmanager
def _at_once() -> Iterator[None]:
    before = os.environ.get("HARNESS_RECOVER_SECONDS")
    os.environ["HARNESS_RECOVER_SECONDS"] = "0.000001"
    try:
        yield
    finally:
        del os.environ["HARNESS_RECOVER_SECONDS"]
        if before is not None:
            os.environ["HARNESS_RECOVER_SECONDS"] = before
