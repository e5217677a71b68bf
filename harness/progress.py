"""Progress records and the protocol of the stores that keep them.

The format is JSON with a version number::

    {"version": 1, "id": "17", "job": "shop.jobs:Import", "epoch": 3, "state": "interrupted",
     "reason": "stopping", "begun": true, "ended": 2, "completed": ["load"], "current": ["price", 1700],
     "attributes": {"rejected": 2}, "done": 1700, "total": 2000, "resumptions": 2, "interruptions": 2,
     "errors": 0, "runtime_s": 12.5, "digest": "1f0c…", "round_id": "2031-05-01T…/", "enqueued": "2031-05-01T…/"}

``completed`` and ``current`` are those of ``ActiveJob::Continuation``. ``current`` is absent if no step is in
progress; for an iteration job its step is named ``each_iteration``. Unlike in Rails, nothing in the record
grows with the number of executions. If items beyond the cursor are done, the record has ``"beyond": [[1703,
true], …]`` and version 2. Older releases refuse version 2, because they would repeat those items. Missing
fields get their defaults, so data of an older version can be read. Data of a newer version is refused with a
named error, and so is a record with the ``id`` of another job.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, get_args

from harness import cursor as cursors
from harness.boundary import texts
from harness.boundary.decoding import MAX_INT, parse_json, shown
from harness.boundary.encoding import encoded
from harness.concurrency.kept_items import Beyond, Quarantined, corrupt, error_limit
from harness.errors import CorruptProgress, ProgressTooLarge, UnsupportedProgress

DIED = "its worker died"
"""Failure of an item whose worker crashed."""

NOW = -sys.maxsize
"""Item count that every comparison counts as reached."""

VERSION = 2
"""Latest version of the format: the first one with items beyond the cursor.

A record without such items has version 1, so that older releases can read it.
"""

MAX_BYTES = 128 * 1024
"""Size limit of a saved progress in bytes: a cursor is a position, not the data."""

State = Literal["new", "running", "interrupted", "paused", "failed", "cancelled", "completed"]


@dataclass(slots=True)
class Progress:
    """Record that a store keeps for a job.

    While a job runs, its record also holds its position: the step, the cursor and the counts.

    :ivar job_id: the id of the job in its queue, the same through all executions.
    :ivar epoch: number of executions that have begun; the latest one owns the job.
    :ivar state: state of the latest execution.
    :ivar begun: whether ``on_start`` has run.
    :ivar reason: reason of the interruption, or error of the failure; None otherwise.
    :ivar completed: names of completed steps, in order.
    :ivar step: name of the step in progress, or None.
    :ivar cursor: position in that step; None is its beginning.
    :ivar proof: proof that the cursor still means the same item; None if the enumerator needs no proof.
    :ivar attributes: values of the job's ``attribute``\\ s by name.
    :ivar done: items done in all executions. :ivar total: total number of items, if known.
    :ivar resumptions: executions that continued earlier progress.
    :ivar interruptions: executions that ended at a checkpoint. :ivar errors: executions that ended with an error.
    :ivar all_done: whether all work is done and only ``on_complete`` is left.
    :ivar ended: epoch of the latest execution that saved its end; later ones below ``epoch`` have crashed.
    :ivar crashes: executions that crashed. :ivar crashes_in_a_row: crashes since an item was done.
    :ivar failures: failures in a row of the item after the cursor. :ivar failure: error of the last one.
    :ivar quarantined: items that were set aside: their cursor, number of failures and last error.
    :ivar beyond: items that were read after the cursor, up to the last one that is done; see
        :mod:`harness.concurrency.kept_items`.
    :ivar longest_gap_s: the longest time between two checkpoints that was over the grace period.
    :ivar runtime_s: seconds spent in executions that ended or saved.
    :ivar digest: hash of the arguments and the portion; empty if unknown.
    :ivar round_id: enqueue that started this round of the job; see :mod:`harness.runtime.rounds`.
    :ivar enqueued: the latest enqueue that has joined this round.
    :ivar claimed: random mark of the latest claim, if the store makes one: a deleted record restarts epochs.
    :ivar check_at: number of done items from which a checkpoint has work to do. Not stored; each item compares with it.
    :ivar stored: text that the store last wrote for this record. While the store holds it, no other execution has
        claimed the job, and the store need not decode it.
    :ivar head: values of the fields that do not change between saves, and their stored form.
    """

    job_id: str
    job: str = ""
    epoch: int = 0
    state: State = "new"
    begun: bool = False
    reason: str | None = None
    completed: list[str] = field(default_factory=list)
    step: str | None = None
    cursor: Any = None
    proof: Any = None
    attributes: dict[str, Any] = field(default_factory=dict)
    done: int = 0
    total: int | None = None
    resumptions: int = 0
    interruptions: int = 0
    errors: int = 0
    all_done: bool = False
    ended: int = 0
    crashes: int = 0
    crashes_in_a_row: int = 0
    failures: int = 0
    failure: str | None = None
    quarantined: list[Quarantined] = field(default_factory=list)
    beyond: list[Beyond] = field(default_factory=list)
    longest_gap_s: float = 0.0
    runtime_s: float = 0.0
    digest: str = ""
    round_id: str = ""
    enqueued: str = ""
    claimed: str = field(default="", compare=False)
    check_at: int = field(default=NOW, compare=False, repr=False)
    stored: str | None = field(default=None, compare=False, repr=False)
    head: tuple[Any, str] | None = field(default=None, compare=False, repr=False)

    @property
    def started(self) -> bool:
        """True if there is anything to resume from."""
        return bool(self.completed or self.step is not None)

    @property
    def description(self) -> str:
        """Position of the job, as text."""
        if self.step is not None:
            return f"at {self.step!r}, cursor {self.cursor!r}"
        return f"after {self.completed[-1]!r}" if self.completed else "not started"

    def to_json(self) -> str:
        """Return the stored form; error messages and reasons are shortened, progress itself is not.

        :raises CursorError: for a cursor or attribute that would not be equal when read back.
        :raises ProgressTooLarge: if the text has more than :data:`MAX_BYTES` bytes.
        """
        changing = [f'"{name}":{encoded(getattr(self, name))}' for name in _CHANGING_FIELDS]
        if self.step is not None:
            changing.append(f'"current":[{encoded(self.step)},{encoded(cursors.encode(self.cursor))}]')
        if self.proof is not None:
            changing.append(f'"proof":{encoded(cursors.encode(self.proof, "proof"))}')
        attributes = self.attributes and {
            name: cursors.encode(value, f"attribute {name!r}") for name, value in self.attributes.items()
        }
        limit = error_limit(len(self.quarantined))
        quarantined = encoded([each.to_data(limit) for each in self.quarantined])
        changing.append(f'"attributes":{encoded(attributes)},"quarantined":{quarantined}')
        if self.beyond:
            changing.append(f'"beyond":{encoded([each.to_data() for each in self.beyond])}')
        values = (VERSION if self.beyond else 1, *_stable_values(self))
        if self.head is None or self.head[0] != values:
            self.head = values, self._encode_head(values)
        text = f"{self.head[1]}{','.join(changing)}}}"
        if len(text) > MAX_BYTES:
            raise ProgressTooLarge(
                f"the progress of job {self.job_id} has {len(text):,} bytes; the limit is {MAX_BYTES:,}; "
                "keep large data in the database and its key in the cursor"
            )
        return text

    def _encode_head(self, values: tuple[Any, ...]) -> str:
        data = dict(zip(("version", "id", *_STABLE_FIELDS), values, strict=True))
        for name in ("reason", "failure"):
            data[name] = None if data[name] is None else texts.bounded(data[name])
        return encoded(data)[:-1] + ","

    @classmethod
    def from_json(cls, job_id: str, text: str | bytes) -> Progress:
        """Read the stored form.

        :raises UnsupportedProgress: if a newer version wrote it.
        :raises CorruptProgress: for data that :meth:`to_json` never writes, or that belongs to another job.
        """
        data = parse_json(text, f"the progress of job {job_id}")
        version = data.get("version") if isinstance(data, dict) else None
        if type(version) is not int or version < 1:
            raise CorruptProgress(
                f"the progress of job {job_id} has the version {shown(version)}; this release reads 1 to {VERSION}; "
                "it was not changed"
            )
        if version > VERSION:
            raise UnsupportedProgress(
                f"the progress of job {job_id} was written in format version {version}, this release reads up to "
                f"{VERSION}; run the newer release, the progress was not changed"
            )
        owner = data.get("id", job_id)
        if owner != job_id:
            raise CorruptProgress(
                f"the progress of job {job_id} was written for job {_short(owner)}; it was not changed"
            )
        return cls._from_data(job_id, data)

    @classmethod
    def _from_data(cls, job_id: str, data: dict[str, Any]) -> Progress:
        values = {name: data[name] for name in _PLAIN if name in data}
        for name, value in values.items():
            if not _may_be(name, value):
                raise corrupt(job_id, name, value)
        attributes, current = data.get("attributes", {}), data.get("current")
        if not isinstance(attributes, dict):
            raise corrupt(job_id, "attributes", attributes)
        quarantined, beyond = data.get("quarantined", []), data.get("beyond", [])
        for name, found in (("quarantined", quarantined), ("beyond", beyond)):
            if not isinstance(found, list):
                raise corrupt(job_id, name, found)
        # Older data does not record the end; there is no reason to assume a crash.
        values.setdefault("ended", values.get("epoch", 0))
        progress = cls(job_id, **values)
        progress.quarantined = [Quarantined.from_data(job_id, each) for each in quarantined]
        progress.beyond = [Beyond.from_data(job_id, each) for each in beyond]
        progress.proof = cursors.decode(data.get("proof"))
        progress.attributes = {name: cursors.decode(value) for name, value in attributes.items()}
        if current is not None:
            if not (isinstance(current, list) and len(current) == 2 and isinstance(current[0], str)):
                raise corrupt(job_id, "current", current)
            progress.step, progress.cursor = current[0], cursors.decode(current[1])
        return progress


_TYPES: dict[str, type | tuple[type, ...]] = {
    "bool": bool, "str": str, "str | None": (str, type(None)), "State": str, "list[str]": list,
    "int": int, "int | None": (int, type(None)), "float": (int, float),
}  # fmt: skip
_SPECIAL_FIELDS = frozenset(
    ("job_id", "step", "cursor", "proof", "attributes", "quarantined", "beyond", "check_at", "stored", "head")
)
"""Fields that are not stored, or in another form."""

_PLAIN = {each.name: _TYPES[str(each.type)] for each in fields(Progress) if each.name not in _SPECIAL_FIELDS}
"""Fields that are stored unchanged, with their allowed types."""

_CHANGING_FIELDS = ("completed", "done", "runtime_s")
"""Fields that usually differ between two saves, or that are mutable."""

_STABLE_FIELDS = tuple(name for name in _PLAIN if name not in _CHANGING_FIELDS)
_stable_values = attrgetter("job_id", *_STABLE_FIELDS)


def _may_be(name: str, value: Any) -> bool:
    """Return whether a value is allowed for a field that is stored unchanged."""
    if not isinstance(value, _PLAIN[name]) or isinstance(value, bool) != (_PLAIN[name] is bool):
        return False
    if isinstance(value, int | float):
        return 0 <= value <= MAX_INT
    if name == "state":
        return value in get_args(State)
    return not isinstance(value, list) or all(isinstance(each, str) for each in value)


def _short(value: Any) -> str:
    return value if isinstance(value, str) and len(value) < 100 else shown(value)


class Saved(NamedTuple):
    """Position of the latest save.

    :ivar at: time of the save, by the job's clock. :ivar done: items in all executions.
    :ivar steps: number of completed steps. :ivar step: the step in progress, with its *cursor*.
    """

    at: float
    done: int
    steps: int
    step: str | None
    cursor: Any


class Store(Protocol):
    """Store of progress. Every implementation passes one behaviour suite.

    :ivar unavailable: errors that mean that the store is temporarily unreachable.
    """

    unavailable: ClassVar[tuple[type[Exception], ...]]

    def claim(self, job_id: str) -> Progress:
        """Claim the job: return its progress with the epoch raised by one, stored before it is returned.

        Afterwards, saves with an older epoch raise Superseded. A job without a record gets a new one.
        """
        ...

    def save(self, progress: Progress) -> int:
        """Store the progress, all of it or nothing; return its size in bytes.

        :raises Superseded: if another execution has claimed the job; nothing is stored then. :raises
            ProgressGone: if there is no stored record of the job; nothing is stored then either.
        """
        ...

    def renew(self, progress: Progress) -> int:
        """Store the progress of an execution whose record is gone; return its size in bytes.

        The caller knows that the execution still owns the job. After that, :func:`save` must work.

        :raises Superseded: if another execution has claimed the job since.
        """
        ...

    def load(self, job_id: str) -> Progress | None:
        """Return the stored progress without claiming the job, or None if there is none."""
        ...

    def delete(self, job_id: str) -> None:
        """Delete the progress of the job; no error if there is none."""
        ...

    def read(self, key: str) -> str | None:
        """Return the record that several jobs share under *key*, or None."""
        ...

    def replace(self, key: str, before: str | None, after: str) -> bool:
        """Replace the shared record *before* under *key* by *after*; return False if it is not *before*.

        ``before=None`` means that there is no record. A record is kept for at least 30 days after its last
        change.
        """
        ...


class TransactionalStore(Store, Protocol):
    """Store in the database of the work: progress and work are committed together or not at all."""

    def save_within(self, session: Any, progress: Progress) -> int:
        """Store the progress in the open transaction of a SQLAlchemy session; the caller commits it.

        It locks the progress of the job until then, so a claim waits for the commit and sees it.

        :raises Superseded: if another execution has claimed the job; roll the transaction back. :raises
            ProgressGone: if there is no stored record of the job; the transaction is still valid.
        """

    def renew_within(self, session: Any, progress: Progress) -> int:
        """Store the progress of an execution whose record is gone, as :meth:`save_within` does.

        :raises Superseded: if another execution has claimed the job since; roll the transaction back.
        """


class Position(Protocol):
    """Attributes that a stop source may read: the position of the execution at this checkpoint."""

    @property
    def job(self) -> Any:
        """The job object; check its class with ``isinstance(at.job, Import)``.

        None for a function without checkpoints.
        """

    @property
    def job_id(self) -> str:
        """The id of the job in its queue."""

    @property
    def run_id(self) -> str:
        """The id of the job that started the parallel run; outside of a parallel run, the job's own id."""

    @property
    def step(self) -> str | None:
        """The step in progress, None between steps."""

    @property
    def cursor(self) -> Any:
        """The cursor, as a Python value."""

    @property
    def items(self) -> int:
        """Items done in this execution."""

    @property
    def done(self) -> int:
        """Items done in all executions."""

    @property
    def total(self) -> int | None:
        """Total number of items, if known."""

    @property
    def completed(self) -> list[str]:
        """The names of the completed steps, in order."""


class StopSource(Protocol):
    """Function that a checkpoint calls to decide whether the job has to stop.

    A false value means continue, True means stop, a string means stop for that reason. A source is not asked
    again after it said stop.

    A source may have a float attribute ``interval``: it is then called at most once per interval, in seconds;
    without it, at every checkpoint. ``float("inf")`` means that it is only called after it has woken the
    execution. For that, ``attach(wake)`` gives the source the function to call, and ``detach(wake)`` takes it
    away. A source with a method ``at_start(at)`` is also asked before any work.
    """

    def __call__(self, at: Position, /) -> bool | str | None:
        """Return whether to stop, or the reason."""
