"""Runs a job immediately in this thread, one execution after the other."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.errors import Superseded
from harness.queues.delivery import Again, Begun, Order, deliver
from harness.runtime.ends import Ended
from harness.sources.parallel import SliceTable, check_instances
from harness.stores.memory import MemoryStore

if TYPE_CHECKING:
    from harness.context import Portion
    from harness.durability import Durability
    from harness.job import Job
    from harness.progress import Progress, StopSource, Store
    from harness.stops import Clock


class InlineRun:
    """Job run by its caller: :meth:`execute` runs one execution, :meth:`drain` all remaining ones.

    :param store: progress store; by default in memory. :param stops: stop sources, asked in every execution;
        more may be added to the list of that name. :param portion: the part of an iteration job to do. :ivar
        instances: instances of a parallel run, by number; each is an InlineRun.
    """

    def __init__(
        self,
        job_class: type[Job],
        *args: Any,
        job_id: str | None = None,
        store: Store | None = None,
        stops: Sequence[StopSource] = (),
        durability: Durability | None = None,
        clock: Clock | None = None,
        portion: Portion | None = None,
        instance: tuple[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        job_class.check_arguments(kwargs, portion)
        job_class.check_call(args, kwargs)
        self.job_id = job_id or str(uuid.uuid4())
        self.store = store or job_class.progress_store() or MemoryStore()
        self._job_class, self._args, self._kwargs = job_class, args, kwargs
        self.stops = list(stops)
        self._durability, self._clock = durability, clock
        self._order = Order(job_class, args, kwargs, encoded=False, portion=portion, instance=instance)
        self.instances: dict[int, InlineRun] = {}

    @property
    def progress(self) -> Progress | None:
        """The stored progress."""
        return self.store.load(self.job_id)

    def execute(self) -> Ended:
        """Run one execution.

        :raises Exception: what the job raised, if it is not resumed.
        """
        try:
            ended = deliver(
                self._order, self, store=self.store, durability=self._durability, clock=self._clock
            )
        except Superseded:
            return Ended("superseded")
        return ended or Ended("completed")

    def scale(self, instances: int) -> None:
        """Change the number of instances of a parallel run; new ones are in :attr:`instances`."""
        check_instances(instances)
        for number in SliceTable.change(self.store, self.job_id, lambda table: table.resize(instances)):
            self._spawn(number)

    def _spawn(self, number: int) -> None:
        self.instances.setdefault(
            number,
            InlineRun(
                self._job_class, *self._args, job_id=f"{self.job_id}-{number}", store=self.store, stops=self.stops,
                durability=self._durability, clock=self._clock, instance=(self.job_id, number), **self._kwargs,
            ),
        )  # fmt: skip

    # The adapter of a delivery; see harness.queues.delivery.

    history = requests = None

    def begin(self) -> Begun:
        """Return facts that make unknown code an error: there is no other worker that might know it."""
        return Begun(unknown=sys.maxsize)

    @contextmanager
    def stop_sources(self) -> Iterator[Sequence[StopSource]]:
        """Return :attr:`stops`."""
        yield self.stops

    def owns(self) -> bool:
        """Return True: there is no queue that could reassign the job."""
        return True

    def enqueue(self, number: int, round_id: str) -> None:  # noqa: ARG002 - a run has one round
        """Start an instance of a parallel run, unless it exists."""
        self._spawn(number)

    def requeue(self, again: Again) -> Ended:
        """Return the end of an interrupted execution: another one follows.

        :raises HarnessError: if the store is unreachable, or the job belongs to another release, because
            there is no later attempt.
        """
        if again.error is not None:
            raise again.error
        return Ended("interrupted", again.reason, again.delay, again.queue, again.at_front, again.after_error)

    def park(self, reason: str, *, cancelled: bool) -> Ended:
        """Return the end of a paused or cancelled execution: none follows by itself."""
        return Ended("cancelled" if cancelled else "paused", reason)

    def executions(self) -> Iterable[Ended]:
        """Run executions until one needs no other; skip delays."""
        while True:
            ended = self.execute()
            yield ended
            if ended.outcome != "interrupted":
                return

    def drain(self) -> list[Ended]:
        """Run the job to its end, then the instances it started, and return the ends of all executions."""
        ended = list(self.executions())
        for instance in list(self.instances.values()):
            ended += instance.drain()
        return ended


def run(job_class: type[Job], *args: Any, **kwargs: Any) -> Progress:
    """Run a job to its end, in this thread, and return its final progress.

    It takes the arguments of :class:`InlineRun`.
    """
    inline = InlineRun(job_class, *args, **kwargs)
    inline.drain()
    progress = inline.progress
    assert progress is not None  # noqa: S101 - a completed job has stored its progress
    return progress
