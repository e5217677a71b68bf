"""Base of targets that a queue runs, for all queues."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar

from redis import Redis

from harness.boundary.environment import variables
from harness.errors import UsageError
from harness.explore.targets import files_of, owners_of, target_of
from harness.job import Job, find
from harness.queues.delivery import TRIES

if TYPE_CHECKING:
    from harness.durability import Durability
    from harness.explore.external_state import ExternalState
    from harness.explore.resources import Resource
    from harness.explore.targets import Target
    from harness.explore.versions import Versions
    from harness.progress import Store


INLINE = "inline"
"""No queue."""
TARGETS = {
    "rq": "harness.explore.rq:RQTarget",
    "celery": "harness.explore.on_celery:CeleryTarget",
    "dramatiq": "harness.explore.on_dramatiq:DramatiqTarget",
}
"""Classes of the targets of queues; each is loaded at its first use."""
QUEUES = (INLINE, *TARGETS)


class QueuedTarget(ABC):
    """Job or function that a queue runs; see :class:`~harness.explore.targets.Target`."""

    counts_executions: bool = True
    """The queue counts executions."""
    settings: ClassVar[dict[str, str]] = {TRIES: "0"}
    """Environment of an execution. No other worker will take the job: an unknown class or step is refused by name."""

    def __init__(self, versions: Versions, redis: str | None) -> None:
        job = versions.old
        self.versions = versions
        self.documented = isinstance(job, type) and issubclass(job, Job)
        self.durability = getattr(job, "durability", None)
        self.name, self.files = f"{job.__module__}:{job.__qualname__}", files_of(versions)
        self.owners = owners_of(versions)
        self._lock, self._at_work, self._variables = Lock(), 0, ExitStack()
        self._connection = _broker(redis)

    @abstractmethod
    def attempt(self, external: ExternalState, *, deployed: bool = False) -> bool:
        """Let a worker run the job once."""

    @property
    def places(self) -> dict[str, Resource]:
        """Resources that no probe finds, by name."""
        return {}

    def close(self) -> None:
        """Empty the Redis database and close the connection.

        Crash before it: Redis keeps the records of the explored job, and the next exploration refuses it.
        """
        self._connection.flushdb()
        self._connection.close()

    @contextmanager
    def _set(self) -> Iterator[None]:
        """Set the environment variables while one of the concurrent executions runs."""
        with self._lock:
            self._at_work += 1
            if self._at_work == 1:
                self._variables.enter_context(variables(**self.settings))
        try:
            yield
        finally:
            with self._lock:
                self._at_work -= 1
                if not self._at_work:
                    self._variables.close()


def check_queue(queue: str, redis: str | None) -> None:
    """Refuse a queue that is unknown or not installed, or a Redis where none is used.

    :raises UsageError: saying what is allowed.
    """
    if queue not in QUEUES:
        raise UsageError(f"queue={queue!r}: use {', '.join(QUEUES)}")
    if redis is not None and queue == INLINE:
        raise UsageError(
            "redis= is for queue='rq', 'celery' or 'dramatiq'; got none of them: leave redis= out"
        )
    if queue != INLINE and find_spec(queue) is None:
        raise UsageError(f"{queue} is not installed; run pip install 'job-continuation-harness[{queue}]'")


def target_on(
    queue: str,
    versions: Versions,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    durability: Durability | None = None,
    store: Store | None = None,
    redis: str | None = None,
) -> Target:
    """Return the target of a job on a queue, or of one that runs inline.

    :param durability: of an inline job; a queue has its own. :param store: likewise.
    """
    if queue == INLINE:
        return target_of(versions, args, kwargs, durability, store)
    target: Callable[..., QueuedTarget] = find(TARGETS[queue])
    return target(versions, args, kwargs, redis)


def command_for(
    target: Target, args: tuple[Any, ...], queue: str = INLINE, durability: Durability | None = None
) -> str:
    """Return the command that repeats a trial, with ``{trial}`` for its name."""
    shown = "".join(f" {json.dumps(each, default=repr)!r}" for each in args)
    options = f" --durability '{durability}'" if durability else ""
    options += f" --deploy {target.versions.name}" if target.versions.deploys else ""
    options += f" --queue {queue}" if queue != INLINE else ""
    return f"harness explore {target.name}{shown}{options} --trial {{trial}}"


def _broker(url: str | None) -> Redis:
    """Connect to Redis: to fakeredis, or to an empty server.

    :raises UsageError: if it is not empty, because each trial empties it.
    """
    if url is None:
        from fakeredis import FakeRedis, FakeServer  # noqa: PLC0415 - it needs the test extra, and is not used inline or with a URL

        return FakeRedis(server=FakeServer())
    connection = Redis.from_url(url)
    if connection.dbsize():
        raise UsageError(
            "the Redis of redis= is not empty, and each trial would empty it; use another database"
        )
    return connection
