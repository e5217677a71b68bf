"""Facts about an execution that a job may use, and the settings that a queue gives it.

The patterns and the enumerators use only :class:`Context`. They do not import the object that runs them, so a
test or another driver can replace that object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from harness.cursor import freeze
from harness.errors import UsageError
from harness.progress import Position

if TYPE_CHECKING:
    from harness.progress import Progress, Store
    from harness.runtime.guards import Witness
    from harness.runtime.loops import JobLoop


@dataclass(frozen=True)
class Portion:
    """Part of the items of an iteration job, for a trial on a few items or a start in the middle.

    :ivar after: the cursor of the item to start after; None for the beginning.
    :ivar limit: maximum number of items in all executions together; batches are done whole. None for no
        limit.
    """

    after: Any = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and (type(self.limit) is not int or self.limit < 0):
            raise UsageError(f"Portion(limit=…) takes an int of 0 or more; got {self.limit!r}")
        object.__setattr__(self, "after", freeze(self.after))

    def size_of(self, size: int | None) -> int | None:
        """Return the number of items in this portion of *size* items; None if it is unknown."""
        return min((each for each in (size, self.limit) if each is not None), default=None)


@dataclass(frozen=True)
class ParallelRun:
    """Facts about a parallel run, provided by the queue.

    :ivar id: id of the job that was enqueued. :ivar instance: number of this instance; None for the enqueued
        job itself.
    :ivar spawn: enqueues the instance with a given number in a round of the job, unless it exists.
    """

    id: str
    instance: int | None
    spawn: Callable[[int, str], object]


class Context(Position, Protocol):
    """Interface of an execution for its job, and the position that stop sources read.

    **The hot path.** After an item a pattern writes the cursor and the count to :attr:`progress`, then compares once:
    ``progress.done >= progress.check_at``. Only then does it call :meth:`run_checkpoint`.

    :ivar args: and *kwargs*: arguments of the job.
    :ivar progress: the record of the job. Its step, cursor and counts are the only copy of the position.
    :ivar loop: runs the awaitables that functions of the job return.
    :ivar witness: proof of the current enumerator that the cursor has the same meaning when the job resumes.
    :ivar holding: True while the job keeps a transaction open on purpose; checkpoints do nothing until it
        ends.
    :ivar commits: True if the execution commits, so the job does not commit its work itself.
    :ivar completes: True if the job ends with this execution; False for an instance that does only a part of
        the job.
    """

    args: Sequence[Any]
    kwargs: dict[str, Any]
    progress: Progress
    store: Store
    loop: JobLoop
    clock: Callable[[], float]
    portion: Portion
    parallel_run: ParallelRun | None
    witness: Witness | None
    holding: bool
    commits: bool
    completes: bool

    @property
    def total(self) -> int | None:
        """Total number of items, if known."""
        ...

    @total.setter
    def total(self, number: int | None) -> None:
        """Set the total number of items."""
        ...

    @property
    def advanced(self) -> bool:
        """True if this execution made progress beyond the previous one."""
        ...

    @property
    def transactional(self) -> bool:
        """True if work and cursor are committed together."""
        ...

    @property
    def description(self) -> str:
        """Position of the job, as text."""
        ...

    def enter(self, step: str, cursor: Any) -> None:
        """Start a step at *cursor*."""

    def complete(self, step: str) -> None:
        """Complete a step."""

    async def complete_async(self, step: str) -> None:
        """Complete a step, in a coroutine of the job."""

    def run_checkpoint(self) -> None:
        """Ask the stop sources, then save if a save is due.

        :raises Interrupt: if the job has to stop here.
        """

    async def run_checkpoint_async(self) -> None:
        """Do the same in a coroutine of the job, while its other tasks run.

        :raises Interrupt: if the job has to stop here.
        """

    async def stopping(self) -> str:
        """Wait until the job has to stop, and return the reason."""
        ...

    def interrupt(self, reason: str) -> None:
        """Stop here.

        :raises Interrupt: always.
        """

    def refuse_swallowed(self) -> None:
        """Raise InterruptSwallowed if the job caught an interruption and went on."""

    def commit(self, *, always: bool = False) -> None:
        """Commit the work since the latest commit together with the cursor."""

    async def commit_async(self, *, always: bool = False) -> None:
        """Commit in a coroutine of the job."""

    def save_on_the_way(self, why: str = "checkpoint") -> None:
        """Store the progress while the job runs."""

    def end_window(self) -> None:
        """Keep the record of items done beyond the cursor."""

    def save_every_item(self) -> None:
        """Save after each item in this execution."""

    def fail_item(self, error: Exception) -> None:
        """Count a failure of the item after the cursor."""

    def run_hook(self, name: str, *arguments: Any, at_work: bool = False) -> None:
        """Run a hook whose errors do not affect the job."""

    async def run_hook_async(self, name: str, *arguments: Any) -> None:
        """Run such a hook in a coroutine, while the job runs."""


class Observer(Protocol):
    """Observer of an execution, such as its history. It cannot stop the job."""

    def began(self, execution: Any, /) -> None:
        """Handle the start of an execution: its progress is loaded, and no work has been done yet.

        :param execution: a :class:`harness.execution.Execution`.
        """
        ...
