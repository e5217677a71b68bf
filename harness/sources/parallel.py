"""Several instances of a job that share its items.

::

    class Backfill(IterationJob):
        def build_enumerator(self, *, cursor):
            return parallel_items(regions, instances=4, cursor=cursor)

        def on_complete(self):       # once, when all of it is done
            ...

The enqueued job starts the instances, each a job of its own, and completes. The work is divided into more slices than
there are instances, and an instance takes one slice after the other. So the number of instances can change while they
run, and a slow instance does not delay the rest. ``on_start`` runs once, before the instances;
``on_complete`` runs once, in the instance that did the last slice.

**SliceTable.** The division of the work is stored when the run begins. It is the same for all instances until the end,
even if the code changes: all data of each slice, and an id that separates the positions of this run from those of
another.

**Ownership** is in one record that the instances share, in the store of the job's progress. Each change is one
compare-and-swap. Crash before a slice is taken: it stays free. Crash after: the instance keeps it, is recovered like
any job and finds it there. Crash between the last item of a slice and the note that it is done: the instance resumes at
its own cursor and finds nothing left. Answer lost: the instance reads the record again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from harness import cursor as cursors
from harness import events
from harness.boundary.decoding import parse_json, read
from harness.errors import CollectionChanged, CorruptProgress, CursorError, UnsupportedProgress, UsageError
from harness.sources.enumerators import Enumerator, as_pair, items, iterating, proof_of

if TYPE_CHECKING:
    from harness.context import Context, ParallelRun
    from harness.progress import Store
    from harness.runtime.guards import Witness

T = TypeVar("T")

SLICES_PER_INSTANCE = 4
"""Default number of slices."""


DIVISION_BYTES = 16 * 1024 * 1024
"""Size limit of the record of a division in bytes."""


@dataclass
class SliceTable:
    """The record that the instances share.

    :ivar slices: one description each, in stored form. :ivar run: tells the positions of this run from another's;
        empty in records of release 0.1. :ivar owners: who has it. :ivar done: whether it is done.
    :ivar wanted: number of instances there should be. :ivar active: the numbers of those that run.
    :ivar started: how many numbers were given. :ivar last: instance that did the last slice.
    """

    slices: list[Any]
    owners: list[int | None]
    done: list[bool]
    wanted: int
    active: list[int]
    started: int
    last: int | None = None
    run: str = ""

    @classmethod
    def read(cls, store: Store, run_id: str, round_id: str = "") -> SliceTable | None:
        """Return the record of a parallel run, or None if it has not started.

        :param round_id: identifies the round of a job that is enqueued again under its id. :raises
            CorruptProgress: if it is not such a record.
        """
        text = store.read(_key(run_id, round_id))
        return None if text is None else cls._parsed(run_id, text)

    @classmethod
    def _parsed(cls, run_id: str, text: str) -> SliceTable:
        what = f"the division of the parallel run {run_id}"
        data = parse_json(text, what, limit=DIVISION_BYTES)
        more = set(data) - {each.name for each in fields(cls)} if isinstance(data, dict) else ()
        if more:  # a newer release wrote it; what this one writes would lose them
            raise UnsupportedProgress(
                f"{what} has fields of a newer release; run that release; it was not changed"
            )
        table: SliceTable = read(cls, data, what, error=CorruptProgress)
        count = len(table.slices)
        if len(table.owners) != count or len(table.done) != count:
            raise CorruptProgress(
                f"{what} has {count} slices, {len(table.owners)} owners and {len(table.done)} marks of what is "
                "done; it was not changed"
            )
        return table

    @classmethod
    def change(cls, store: Store, run_id: str, change: Callable[[SliceTable], T], *, round_id: str = "") -> T:
        """Change the record in one step, and return the result of *change*, which is repeated after a conflict.

        :raises UsageError: if there is no such parallel run.
        """
        key = _key(run_id, round_id)
        while True:
            before = store.read(key)
            if before is None:
                raise UsageError(f"job {run_id} is not a parallel run, or ended over a month ago")
            table = cls._parsed(run_id, before)
            result = change(table)
            after = table.to_json()
            if after == before or store.replace(key, before, after):
                return result

    def to_json(self) -> str:
        """Return the stored form."""
        return json.dumps(asdict(self), separators=(",", ":"))

    # Changes.

    def take(self, instance: int) -> int | None:
        """Return the slice of the instance: its current one, or the next free one; None if it has to end."""
        for index, owner in enumerate(self.owners):
            if owner == instance and not self.done[index]:
                return index
        free = [index for index, owner in enumerate(self.owners) if owner is None]
        if not free or instance not in self.active or len(self.active) > self.wanted:
            self.active = [each for each in self.active if each != instance]
            return None
        self.owners[free[0]] = instance
        return free[0]

    def finish(self, index: int, instance: int) -> None:
        """Record that a slice is done, and which instance did it if it was the last."""
        self.done[index] = True
        if all(self.done) and self.last is None:
            self.last = instance

    def leave(self, instance: int) -> None:
        """Record that the instance ends, and that its remaining items need not be done.

        The others continue with the free slices; if there are no others, the free slices need not be done
        either.
        """
        self.active = [each for each in self.active if each != instance]
        for index, owner in enumerate(self.owners):
            if owner == instance or (owner is None and not self.active):
                self.owners[index] = instance
                self.finish(index, instance)

    def resize(self, wanted: int) -> list[int]:
        """Set the number of instances; return the numbers of those to start."""
        self.wanted = wanted
        missing = wanted - len(self.active) if None in self.owners else 0
        new = list(range(self.started, self.started + max(0, missing)))
        self.active, self.started = self.active + new, self.started + len(new)
        return new


class Parallel(Enumerator[Any]):
    """Outermost enumerator of a parallel job, returned by :func:`parallel` and its siblings.

    :param plan: returns a description of each slice, a cursor value; called once. :param open_slice: returns
        the items of a slice; takes its description, a cursor and the number of slices.
    """

    def __init__(
        self,
        plan: Callable[[], Sequence[Any]],
        open_slice: Callable[[Any, Any, int], Iterable[tuple[Any, Any]]],
        *,
        instances: int,
        cursor: Any,
        batched: bool = False,
    ) -> None:
        check_instances(instances)
        if cursor is not None and not (
            type(cursor) is dict and list(cursor) in (["slice", "cursor"], ["slice", "cursor", "run"])
        ):
            raise CursorError(f"a parallel run resumes from None or from its own cursor; got {cursor!r}")
        super().__init__((), batched=batched, serial="a parallel run")
        self._plan, self._open, self._instances, self._cursor = plan, open_slice, instances, cursor
        self._at: tuple[int, Witness | None] | None = None
        self._stored: Any = None
        self.witness = self

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        raise UsageError(
            "a parallel run is the outermost enumerator of a job: return it from build_enumerator"
        )

    def within(self, execution: Context) -> Enumerator[Any]:
        """Start the instances, or return the items of this one."""
        parallel_run, portion = execution.parallel_run, execution.portion
        if parallel_run is None:
            raise UsageError("this queue cannot start instances; run the job with harness.run() or on RQ")
        if portion.limit is not None or portion.after is not None:
            raise UsageError(
                "a portion of a parallel run is not defined; try the job with instances=1 or without"
            )
        if parallel_run.instance is None:
            self._start(execution, parallel_run)
            execution.completes = False
            return Enumerator(())
        shared = self._shared(execution, parallel_run.id, parallel_run.instance)
        return Enumerator(shared, batched=self.batched, witness=self)

    # It proves its own positions: each is in a slice.

    def proof(self, cursor: Any) -> Any:
        """Return the proof of the position in the current slice."""
        index, witness = self._at or (None, None)
        if witness is None or type(cursor) is not dict or cursor["slice"] != index:
            return None
        return witness.proof(cursor["cursor"])

    def check(self, cursor: Any, proof: Any) -> None:
        """Keep the proof until the slice is opened."""
        del cursor
        self._stored = proof

    def ended_early(self, execution: Context) -> None:
        """Leave the run; ``on_complete`` runs in this instance if it was the last.

        Crash after it: the instance takes the slices that are free by then, if it is not the last.
        """
        parallel_run = execution.parallel_run
        if parallel_run is None or parallel_run.instance is None:
            return
        number = parallel_run.instance
        round_id = execution.progress.round_id
        SliceTable.change(
            execution.store, parallel_run.id, lambda table: table.leave(number), round_id=round_id
        )
        self._note_end(execution, parallel_run.id, number)

    def _note_end(self, execution: Context, run_id: str, instance: int) -> None:
        table = SliceTable.read(execution.store, run_id, execution.progress.round_id)
        assert table is not None  # noqa: S101 - it was changed just now
        execution.completes = table.last == instance
        if execution.completes:
            name = type(execution.job).__name__
            events.emit(events.AllDone(execution.job_id, name, len(table.slices)))

    def _start(self, execution: Context, parallel_run: ParallelRun) -> None:
        """Create the record, then start the instances.

        Crash in between: the next execution finds the record, and starts the instances without a slice.
        """
        store, round_id = execution.store, execution.progress.round_id
        if SliceTable.read(store, parallel_run.id, round_id) is None:
            slices = [cursors.encode(each, "slice") for each in self._plan()]
            numbers = list(range(self._instances))
            nobody: list[int | None] = [None] * len(slices)
            table = SliceTable(
                slices,
                nobody,
                [False] * len(slices),
                self._instances,
                numbers,
                self._instances,
                run=uuid4().hex[:8],
            )
            store.replace(_key(parallel_run.id, round_id), None, table.to_json())
        found = SliceTable.read(store, parallel_run.id, round_id)
        assert found is not None  # noqa: S101 - made above, by this execution or another
        for number in found.active:
            if number not in found.owners:
                parallel_run.spawn(number, round_id)
        name = type(execution.job).__name__
        events.emit(events.ParallelStarted(execution.job_id, name, len(found.active), len(found.slices)))

    @staticmethod
    def _check_run(store: Store, run_id: str, round_id: str, position: dict[str, Any]) -> None:
        """Refuse a position in the slices of another run, which divided the work differently."""
        run, table = position.get("run"), SliceTable.read(store, run_id, round_id)
        if run and table is not None and table.run != run:
            raise CollectionChanged(
                f"job {run_id} started a new parallel run after this instance stopped; its position belongs "
                f"to the run {run}, not to {table.run}; delete the instance, or start the job again"
            )

    def _shared(self, execution: Context, run_id: str, instance: int) -> Iterator[tuple[Any, Any]]:
        store, position = execution.store, self._cursor or {"slice": None, "cursor": None}
        round_id = execution.progress.round_id
        self._check_run(store, run_id, round_id, position)
        change = partial(SliceTable.change, store, run_id, round_id=round_id)
        while True:
            index = change(change=lambda table: table.take(instance))
            table = SliceTable.read(store, run_id, round_id)
            assert table is not None  # noqa: S101 - it was changed just now
            if index is None:
                break
            inner = position["cursor"] if position["slice"] == index else None
            opened = self._open(cursors.decode(table.slices[index]), inner, len(table.slices))
            witness = opened.witness if isinstance(opened, Enumerator) else None
            if inner is not None and witness is not None:
                witness.check(inner, self._stored)
            self._at = index, witness
            if inner is None:
                # Total of the slices taken until now. A resumed slice is already counted.
                size = opened.size if isinstance(opened, Enumerator) else None
                execution.total = None if size is None else execution.done + size
            with iterating(opened) as pairs:
                for item, cursor in map(as_pair, pairs):
                    yield item, {"slice": index, "cursor": cursor, "run": table.run}
            if execution.transactional:
                execution.commit()  # the slice is not done before its items are
            change(change=partial(SliceTable.finish, index=index, instance=instance))
        self._note_end(execution, run_id, instance)


def parallel(
    function: Callable[[int, int, Any], Iterable[tuple[Any, Any]]],
    *,
    instances: int,
    cursor: Any,
    slices: int | None = None,
) -> Parallel:
    """Share the items of any enumerator among several instances.

    ::

        parallel(lambda part, parts, cursor: records(session, Order.where_id_modulo(parts, part), cursor=cursor),
                 instances=4, cursor=cursor)

    :param function: returns the items of one slice: takes its number, the number of slices, and a cursor.
        :param instances: number of concurrent instances. :param slices: number of slices, at least
        *instances*; by default four for each instance.
    """
    check_instances(instances)
    number = SLICES_PER_INSTANCE * instances if slices is None else slices
    if type(number) is not int or number < instances:
        raise UsageError(f"parallel() takes slices of {instances} or more, one an instance; got {slices!r}")
    return Parallel(
        lambda: range(number),
        # The number of slices is that of the run, which may have started with other code.
        lambda index, inner, slices: function(index, slices, inner),
        instances=instances,
        cursor=cursor,
    )


def parallel_items(sequence: Sequence[T], *, instances: int, cursor: Any) -> Parallel:
    """Share the items of a sequence, in slices of nearly the same length; see :func:`~harness.items`."""
    check_instances(instances)
    items(sequence, cursor=None)  # refuses what is no sequence

    def plan() -> list[tuple[int, int, str | None]]:
        count = min(len(sequence), SLICES_PER_INSTANCE * instances)
        edges = [len(sequence) * each // count for each in range(count + 1)] if count else []
        return [(start, stop, proof_of(sequence[start:stop])) for start, stop in pairwise(edges)] or [
            (0, 0, None)
        ]

    def open_slice(described: tuple[Any, ...], inner: Any, _slices: int) -> Enumerator[T]:
        start, stop, *proof = described
        if len(sequence) < stop or (any(proof) and proof_of(sequence[start:stop]) != proof[0]):
            raise CollectionChanged(
                f"the sequence of parallel_items() has changed since the run started: the items {start} to "
                f"{stop - 1} are different; restore the data, or start the job again"
            )
        left = range(start if inner is None else inner + 1, stop)
        return Enumerator(lambda: ((sequence[index], index) for index in left), size=stop - start)

    return Parallel(plan, open_slice, instances=instances, cursor=cursor)


def check_instances(instances: Any) -> None:
    """Refuse a number of instances that makes no sense."""
    if type(instances) is not int or instances < 1:
        raise UsageError(f"a parallel run takes instances of 1 or more; got {instances!r}")


def _key(run_id: str, round_id: str) -> str:
    return f"parallel:{run_id}@{round_id}" if round_id else f"parallel:{run_id}"
