"""What can be explored: a job class of ours, or any function; and what comes after its death."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from harness.errors import UsageError
from harness.job import Job
from harness.queues.inline import InlineRun

if TYPE_CHECKING:
    from harness.durability import Durability
    from harness.explore.world import World
    from harness.progress import Store

JOB_ID = "explored"


class Target(Protocol):
    """Something to explore.

    :ivar name: its dotted name, ``module:name``. :ivar file: of its source.
    :ivar documented: whether it says by its durability how much it may repeat.
    """

    name: str
    file: str
    documented: bool

    def attempt(self, world: World) -> bool:
        """Run one execution in this thread, the first or a later one; return whether that was the last.

        :raises Exception: what the job raised; the queue would then try again, a number of times.
        """
        ...


class JobTarget:
    """A job of ours, run inline: after a death its next execution claims its progress."""

    documented = True

    def __init__(
        self,
        job_class: type[Job],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        durability: Durability | None,
        store: Store | None,
    ) -> None:
        self.name = job_class.path()
        self.durability = durability or job_class.durability
        self.file = file_of(job_class)
        self._store = store
        self._job_class, self._args, self._kwargs = job_class, args, kwargs

    def attempt(self, world: World) -> bool:
        """Run one execution."""
        args, kwargs = copy.deepcopy((self._args, self._kwargs))
        store = self._store or self._job_class.progress_store() or world.progress
        run = InlineRun(
            self._job_class, *args, job_id=JOB_ID, store=store, durability=self.durability, **kwargs
        )
        ended = run.execute()
        return ended.outcome != "interrupted"


class FunctionTarget:
    """Any function: after a death it is called again with the same arguments, as RQ does."""

    documented = False

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        module = getattr(function, "__module__", "?")
        self.name = f"{module}:{getattr(function, '__qualname__', repr(function))}"
        self.file = file_of(function)
        self._function, self._args, self._kwargs = function, args, kwargs

    def attempt(self, world: World) -> bool:
        """Call it."""
        del world
        args, kwargs = copy.deepcopy((self._args, self._kwargs))  # they come out of the queue anew each time
        self._function(*args, **kwargs)
        return True


def file_of(thing: Any) -> str:
    """Return the file of a job's source, or nothing."""
    try:
        return inspect.getsourcefile(thing) or ""
    except TypeError:
        return ""


def target_of(
    job: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    durability: Durability | None,
    store: Store | None,
) -> Target:
    """Return what to explore.

    :raises UsageError: if it is neither a job nor a function.
    """
    if isinstance(job, type) and issubclass(job, Job):
        return JobTarget(job, args, kwargs, durability, store)
    if callable(job) and not isinstance(job, type):
        return FunctionTarget(job, args, kwargs)
    raise UsageError(f"explore() takes a ContinuableJob, an IterationJob or a function, found {job!r}")
