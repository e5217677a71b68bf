"""Targets of an exploration: a job class, or any function; and the recovery after its crash."""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any, Protocol

from harness.errors import UsageError
from harness.explore.crash import current
from harness.job import Job
from harness.queues.inline import InlineRun

if TYPE_CHECKING:
    from harness.durability import Durability
    from harness.explore.external_state import ExternalState
    from harness.explore.versions import Versions
    from harness.progress import Store

JOB_ID = "explored"


class Target(Protocol):
    """Something to explore.

    :ivar name: its dotted name, ``module:name``. :ivar files: those of its source.
    :ivar owners: qualified names of its functions and classes.
    :ivar documented: whether its durability limits the repeated work. :ivar counts_executions: whether
        its outcome may depend on the number and ends of its executions.
    :ivar versions: its code, before a deploy and after it.
    """

    name: str
    files: frozenset[str]
    owners: frozenset[str]
    documented: bool
    versions: Versions
    counts_executions: bool

    def attempt(self, external: ExternalState, *, deployed: bool = False) -> bool:
        """Run one execution in this thread; return whether it was the last.

        :param deployed: whether to run the new version, if there is one.
        :raises Exception: what the job raised; the queue would then try again, a number of times.
        """
        ...


class JobTarget:
    """Job class, run inline: after a crash the next execution claims its progress."""

    documented = True

    def __init__(
        self,
        versions: Versions,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        durability: Durability | None,
        store: Store | None,
    ) -> None:
        self.name = versions.old.path()
        self.files, self.owners = files_of(versions), owners_of(versions)
        job = versions.old
        self.counts_executions = counts_executions(job)
        self.versions, self._durability, self._store = versions, durability, store
        self.durability = durability or versions.old.durability
        self._args, self._kwargs = args, kwargs

    def attempt(self, external: ExternalState, *, deployed: bool = False) -> bool:
        """Run one execution."""
        args, kwargs = copy.deepcopy((self._args, self._kwargs))
        with self.versions.deployed(deployed) as job_class:
            store = self._store or job_class.progress_store() or external.progress
            run = InlineRun(
                job_class, *args, job_id=JOB_ID, store=store, durability=self._durability, **kwargs
            )
            over = run.execute().outcome != "interrupted"
            if over:
                ended()
            return over


class FunctionTarget:
    """Any function: after a crash it is called again with the same arguments, as RQ does."""

    documented = False
    counts_executions = False

    def __init__(self, versions: Versions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        function = versions.old
        module = getattr(function, "__module__", "?")
        self.name = f"{module}:{getattr(function, '__qualname__', repr(function))}"
        self.files, self.owners = files_of(versions), owners_of(versions)
        self.versions, self._args, self._kwargs = versions, args, kwargs

    def attempt(self, external: ExternalState, *, deployed: bool = False) -> bool:
        """Call it."""
        del external
        args, kwargs = copy.deepcopy((self._args, self._kwargs))  # a queue decodes the arguments each time
        with self.versions.deployed(deployed) as function:
            function(*args, **kwargs)
            ended()
        return True


def counts_executions(job: Any) -> bool:
    """Return whether the outcome of a job class may depend on the number and ends of its executions."""
    return bool(getattr(job, "quarantine", False) or job.max_resumptions is not None)


def ended() -> None:
    """Reach the last crash point: the job is done, but the queue has not been updated."""
    simulated = current()
    if simulated is not None:
        simulated.reach("end", "end")


def files_of(versions: Versions) -> frozenset[str]:
    """Return the files of a job's source, if any."""
    return frozenset(filter(None, map(_file_of, versions.all)))


def owners_of(versions: Versions) -> frozenset[str]:
    """Return the qualified names of a job's functions, or of its classes and their bases."""
    return frozenset(
        each.__qualname__ for version in versions.all for each in getattr(version, "__mro__", (version,))
        if hasattr(each, "__qualname__")
    )  # fmt: skip


def _file_of(thing: Any) -> str | None:
    try:
        return inspect.getsourcefile(thing)
    except TypeError:
        return None


def target_of(
    versions: Versions,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    durability: Durability | None,
    store: Store | None,
) -> Target:
    """Return the target of an exploration.

    :raises UsageError: if it is neither a job nor a function.
    """
    job = versions.old
    if isinstance(job, type) and issubclass(job, Job):
        return JobTarget(versions, args, kwargs, durability, store)
    if callable(job) and not isinstance(job, type):
        return FunctionTarget(versions, args, kwargs)
    raise UsageError(f"explore() takes a ContinuableJob, an IterationJob or a function; got {job!r}")
