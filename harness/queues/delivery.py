"""Delivery of a job by a queue: run one execution, and map its end to the queue's next action.

A queue calls :func:`deliver` with the job's :class:`Order` and an adapter, which implements :class:`Delivery`. The same
code then serves every queue: it finds the class, records the history, runs the execution and reports the end. The page
*Add a queue* describes the contract, and ``tests/queues`` is its behaviour suite.

What a crash means: each end is saved in the progress store before this module reports it to the queue. Crash
before the report: the queue delivers the job again, and the execution continues at the saved position, or
finds that the job is over. Crash after it: the report holds.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from harness import cursor as cursors
from harness import overrides
from harness.context import ParallelRun, Portion
from harness.errors import (
    HarnessError,
    ProgressUnavailable,
    StepsChanged,
    Superseded,
    UnsupportedProgress,
    UsageError,
)
from harness.execution import Execution
from harness.job import Job, find_stored
from harness.runtime.ends import Ended
from harness.runtime.rounds import Call, digest_of
from harness.stops import throttled

if TYPE_CHECKING:
    from types import TracebackType

    from harness.durability import Durability
    from harness.progress import StopSource, Store
    from harness.stops import Clock

POLL_SECONDS = 0.5
"""Shortest interval between two queries for a stop request, in seconds."""

UNAVAILABLE_SECONDS = 1.0
"""Seconds for which an execution that cannot reach its progress store holds the worker, before it goes back."""

TRIES, DEFAULT_TRIES = "HARNESS_UNKNOWN_TRIES", 60
"""Setting: number of workers in a row that may not know a job's class or steps before the job fails."""

TRY_SECONDS = 10
"""Seconds between two such tries."""

log = logging.getLogger("harness.queues")

Report_co = TypeVar("Report_co", covariant=True)
"""Value that an adapter returns to its queue."""


@dataclass(frozen=True)
class Order:
    """Job class and arguments of a job, as a queue delivers them.

    :ivar job: the class, or its stored path such as ``shop.jobs:Import``.
    :ivar encoded: whether *args* and *kwargs* are in the form that :func:`harness.cursor.encode` returns.
    :ivar portion: the part of an iteration job to do. :ivar instance: for a parallel run, the id of the job
        that started it and the number of this instance.
    """

    job: type[Job] | str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    encoded: bool = True
    portion: Portion | None = None
    instance: tuple[str, int] | None = None

    def job_class(self) -> type[Job]:
        """Return the class.

        :raises UsageError: if this process cannot import it.
        """
        return find_stored(self.job) if isinstance(self.job, str) else self.job

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments as the job gets them."""
        if not self.encoded:
            return list(self.args), dict(self.kwargs)
        named = {name: cursors.decode(value) for name, value in self.kwargs.items()}
        return [cursors.decode(value) for value in self.args], named

    def digest(self) -> str:
        """Return the hash that distinguishes this order from others under the same id; empty if unknown."""
        if not self.encoded:
            return ""
        portion = self.portion
        after = None if portion is None else cursors.encode(portion.after)
        return digest_of(self.args, dict(self.kwargs), after, None if portion is None else portion.limit)


@dataclass(frozen=True)
class Begun:
    """Facts about a job when its code starts.

    :ivar enqueued: identity of the enqueue, the same for all retries; empty if the queue has none.
    :ivar first: whether this is the first execution since that enqueue. :ivar unknown: number of workers in a
        row that did not know its class or its steps.
    """

    enqueued: str = ""
    first: bool = False
    unknown: int = 0


@dataclass(frozen=True)
class Again:
    """Order to run a job once more under the same id.

    :ivar delay: seconds to wait before. :ivar queue: name of the queue; None for the same one.
    :ivar at_front: whether it goes before all others there. :ivar after_error: whether an error ended the execution.
    :ivar error: reason why this worker could not run it: an unreachable store, or unknown code.
    """

    reason: str
    delay: float = 0.0
    queue: str | None = None
    at_front: bool = False
    after_error: bool = False
    error: HarnessError | None = None

    @property
    def unknown(self) -> bool:
        """True if this worker does not know the job's class or steps."""
        return self.error is not None and not isinstance(self.error, ProgressUnavailable)


class Recorder(Protocol):
    """Observer of one execution, which writes its history; also a context manager around it."""

    def __enter__(self) -> object:
        """Begin to observe."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Write that the execution failed, if it did."""
        ...

    def ended(self, ended: Ended) -> Ended:
        """Write how the execution ended, and return it."""
        ...

    def began(self, execution: Any, /) -> None:
        """Record the start of the execution: its progress is known, and no work was done yet."""
        ...


class Delivery(Protocol[Report_co]):
    """Adapter of a queue for one delivery of one job."""

    @property
    def job_id(self) -> str:
        """The id of the job, the same for all its deliveries."""
        ...

    @property
    def store(self) -> Store:
        """Progress store of jobs without their own."""
        ...

    @property
    def history(self) -> Recorder | None:
        """The observer that writes the history of this execution; None for none."""
        ...

    @property
    def requests(self) -> StopSource | None:
        """Stop source that checks for users' requests, asked every :data:`POLL_SECONDS`; None for none."""
        ...

    def begin(self) -> Begun:
        """Record that the code of the job starts, and return the facts about it.

        :raises ProgressUnavailable: if the queue is unreachable; no work was done.
        """
        ...

    def stop_sources(self) -> AbstractContextManager[Sequence[StopSource]]:
        """Yield the stop sources of this delivery for the duration of the execution."""
        ...

    def owns(self) -> bool:
        """Return whether this delivery still owns the job.

        :raises ProgressUnavailable: if the queue is unreachable.
        """
        ...

    def enqueue(self, number: int, round_id: str) -> object:
        """Enqueue an instance of a parallel run, unless it exists."""
        ...

    def requeue(self, again: Again) -> Report_co:
        """Put the job back under the same id. This is no retry, and no failure.

        :raises HarnessError: ``again.error``, if too many workers in a row did not know the job.
        """
        ...

    def park(self, reason: str, *, cancelled: bool) -> Report_co:
        """Keep the job without running it: until it is resumed, or permanently if it was cancelled."""
        ...


def deliver(
    order: Order,
    delivery: Delivery[Report_co],
    *,
    store: Store | None = None,
    durability: Durability | None = None,
    clock: Clock | None = None,
) -> Report_co | None:
    """Run one execution of a job, and return the adapter's report; None if the job is completed.

    :param store: replaces the job's own. :param durability: replaces the job's own. :param clock: monotonic
        seconds. :raises Superseded: if another execution owns the job; the queue must do nothing more with
        it. :raises Exception: what the job raised, if it is not resumed; the queue then retries or fails the
        job.
    """
    try:
        job_class = order.job_class()
    except UsageError as error:
        return _put_off(delivery, error)
    if not (isinstance(job_class, type) and issubclass(job_class, Job)):
        raise UsageError(f"{order.job!r} is {job_class!r}; use a ContinuableJob or an IterationJob")
    try:
        kept = store or job_class.progress_store() or delivery.store
        ended = _execute(order, job_class, delivery, kept, durability=durability, clock=clock)
    except ProgressUnavailable as error:
        # Requeue it instead of failing it: a claim does no harm, and no work starts before it.
        return delivery.requeue(Again(str(error), error=error))
    except Exception as error:
        if not _may_own(delivery):
            raise _superseded(delivery) from error
        if isinstance(error, StepsChanged | UnsupportedProgress):
            return _put_off(delivery, error)
        raise
    if ended.outcome == "superseded" or not _may_own(delivery):
        # Not a success: that would start dependents while the execution that owns the job still runs.
        raise _superseded(delivery)
    if ended.outcome == "completed":
        return None
    reason = ended.reason or ended.outcome
    if ended.outcome != "interrupted":
        return delivery.park(reason, cancelled=ended.outcome == "cancelled")
    return delivery.requeue(Again(reason, ended.delay, ended.queue, ended.at_front, ended.after_error))


def unknown_tries() -> int:
    """Return the number of workers in a row that may not know a job before it fails.

    :raises UsageError: if ``HARNESS_UNKNOWN_TRIES`` is not a number of 0 or more.
    """
    text = os.environ.get(TRIES, str(DEFAULT_TRIES))
    if not text.isdecimal():
        raise UsageError(f"{TRIES} takes a number of 0 or more, such as {DEFAULT_TRIES}; got {text!r}")
    return int(text)


def check_tries(error: HarnessError, tries: int) -> None:
    """Fail a job that too many workers in a row did not know.

    :raises HarnessError: an error of the same class, which says so.
    """
    limit = unknown_tries()
    if tries > limit:
        raise type(error)(
            f"{error} ({tries} workers in a row did not know it; the limit is {limit}, see {TRIES})"
        ) from error


def _execute(
    order: Order,
    job_class: type[Job],
    delivery: Delivery[Any],
    store: Store,
    *,
    durability: Durability | None,
    clock: Clock | None,
) -> Ended:
    begun, history = delivery.begin(), delivery.history
    args, kwargs = order.arguments()
    run_id, instance = order.instance or (delivery.job_id, None)
    with history or nullcontext(), delivery.stop_sources() as sources:
        stops: list[StopSource] = [*sources]
        if delivery.requests is not None:
            asked = overrides.current
            seconds = POLL_SECONDS if asked.poll_seconds is None else asked.poll_seconds
            stops.append(throttled(delivery.requests, seconds, clock=asked.clock))
        execution = Execution(
            job_class, delivery.job_id, store,
            args=args, kwargs=kwargs, stops=stops, observers=[] if history is None else [history],
            durability=durability, clock=clock, portion=order.portion,
            parallel_run=ParallelRun(run_id, instance, delivery.enqueue),
            call=Call(order.digest(), begun.enqueued, first=begun.first),
            owns=delivery.owns, patient=begun.unknown < unknown_tries(),
        )  # fmt: skip
        try:
            ended = execution.run()
        except (StepsChanged, UnsupportedProgress) as error:
            if history is not None and begun.unknown < unknown_tries():
                history.ended(Ended("interrupted", str(error)))
            raise
        return ended if history is None else history.ended(ended)


def _put_off(delivery: Delivery[Report_co], error: HarnessError) -> Report_co:
    """Leave a job that this worker does not know to another worker: during a deploy there is one."""
    log.warning("job %s is not known here: %s; another worker may know it", delivery.job_id, error)
    return delivery.requeue(Again(str(error), TRY_SECONDS, error=error))


def _may_own(delivery: Delivery[Any]) -> bool:
    """Return whether this delivery may still own the job; its report checks again, within its transaction."""
    try:
        return delivery.owns()
    except ProgressUnavailable:
        return True


def _superseded(delivery: Delivery[Any]) -> Superseded:
    return Superseded(f"another execution owns job {delivery.job_id}; this execution changed nothing")
