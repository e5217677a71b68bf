"""History of a job's executions and position of the current one, for monitoring only.

The progress does not grow with interruptions. So a job has two more keys:

* ``harness:history:<job id>``, a stream: an entry for each start and end of an execution, and for each action of a
  user. Redis gives them their times, so that the clocks of machines need not agree. The last :data:`EXECUTIONS` are
  kept; for how long, the queue decides.
* ``harness:pulse:<job id>``: the latest heartbeat, which a thread makes once a second from the job's counters.

Nothing depends on either; an error of Redis is logged. Crash before the entry of a start, which a thread writes after
the first item or a second: that execution is missing. Crash before the entry of an end: its heartbeat stays, and the
next start records it. Lost answer: an entry may be there twice; a reader takes the first.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from harness import overrides
from harness.boundary.decoding import parse_json, plain_text, read, shown
from harness.boundary.texts import bounded, error_text
from harness.errors import CorruptProgress
from harness.queues import keys
from harness.queues.connections import check_connection
from harness.queues.periodic import Heartbeats, PeriodicThread

if TYPE_CHECKING:
    from types import TracebackType

    from redis import Redis
    from redis.client import Pipeline

    from harness.execution import Execution
    from harness.runtime.ends import Ended

TTL = 30 * 24 * 3600
"""TTL of the history after the last entry of an unfinished job, and its maximum after the end of a job."""

EXECUTIONS = 100
"""Number of executions kept for each job."""

SHORTEST = 1e-6
"""Minimum duration of an execution, in seconds, for its rate to be shown."""

ENTRY_BYTES = 16 * 1024
"""Size limit of an entry or a heartbeat, in bytes."""

MILLIS_DIGITS = 15
"""Maximum digits of the milliseconds in the number of an entry."""

REASON_BYTES, NAME_BYTES = 300, 200
"""Size limits of a reason, and of the names in an entry: each job keeps a hundred entries."""

CURSOR_BYTES = 200
"""Size limit of the text of a cursor in a heartbeat."""

HEARTBEAT_SECONDS = 1.0
"""Interval of the heartbeats of a running job, in seconds."""

ASKED = "asked"
"""Kind of an action's entry."""

log = logging.getLogger("harness.rq")


@dataclass(frozen=True)
class Heartbeat:
    """Position of an execution at its latest heartbeat.

    :ivar at: seconds of the Redis server's clock. :ivar epoch: of the execution.
    :ivar done: items done in all executions. :ivar saved: number of saved items. :ivar unsaved_s: seconds
        since the last save. :ivar elapsed_s: seconds since the execution started. :ivar items: done in it.
    :ivar pid: of the process that does the work, on *host*. :ivar parent: of the worker that waits for it.
    :ivar crashes: number of crashed executions of the job. :ivar step: the step in progress; None between
        steps.
    :ivar cursor: its position as text, cut to :data:`CURSOR_BYTES`; None at the beginning of the step.
    :ivar steps: completed steps that are not saved. :ivar moved: whether anything is not saved.
    """

    at: float
    epoch: int
    done: int
    saved: int
    unsaved_s: float
    elapsed_s: float
    items: int
    total: int | None
    durability: str
    worker: str
    host: str
    pid: int
    parent: int
    crashes: int = 0
    step: str | None = None
    cursor: str | None = None
    steps: int = 0
    moved: bool = False

    @property
    def rate(self) -> float | None:
        """Items per second in this execution; None before the first."""
        return self.items / self.elapsed_s if self.items and self.elapsed_s > SHORTEST else None

    @classmethod
    def from_json(cls, text: str | bytes | None) -> Heartbeat | None:
        """Read the stored form; None if it is missing or unreadable."""
        if text is None:
            return None
        try:
            return cls.from_data(parse_json(text, "the heartbeat", limit=ENTRY_BYTES))
        except CorruptProgress:
            return None

    @classmethod
    def from_data(cls, data: Any) -> Heartbeat:
        """Read JSON data.

        :raises CorruptProgress: naming the missing field, or the field with a wrong type.
        """
        return read(cls, data, "the heartbeat", error=CorruptProgress)  # type: ignore[no-any-return]  # of that class


@dataclass(frozen=True)
class Entry:
    """Start or end of an execution, or action of a user.

    :ivar at: seconds of the Redis server's clock. :ivar what: ``"start"``, ``"end"`` or ``"asked"``.
    :ivar done: items by then.
    :ivar action: of an action, its name, such as ``"pause"``. :ivar by: of an action, the user.
    :ivar job: of the first start, the class.
    :ivar enqueued_at: of a start, when the job was last put into its queue, if known.
    :ivar died: for a start, the last heartbeat of the previous execution, if that one never ended.
    :ivar outcome: of an end: completed, interrupted, paused, cancelled, superseded or failed.
    :ivar crashes: number of executions that had crashed by then; None if an older release wrote the entry.
    """

    at: float
    what: str
    epoch: int
    done: int
    job: str = ""
    total: int | None = None
    worker: str = ""
    durability: str = ""
    enqueued_at: float | None = None
    died: Heartbeat | None = None
    outcome: str = ""
    reason: str | None = None
    crashes: int | None = None
    action: str = ""
    by: str = ""

    @classmethod
    def from_stream(cls, number: Any, fields: Any) -> Entry:
        """Read an entry of the stream.

        :raises CorruptProgress: if this package does not write such entries.
        """
        millis = (plain_text(number, "the number of an entry") or "").partition("-")[0]
        named = {
            name if isinstance(name, bytes) else str(name).encode(): value for name, value in fields.items()
        }
        data = parse_json(named.get(b"entry"), "an entry of the history", limit=ENTRY_BYTES)
        if not isinstance(data, dict) or not millis.isdecimal() or len(millis) > MILLIS_DIGITS:
            raise CorruptProgress(f"an entry of the history is {shown(data)}; it was not changed")
        entry: Entry = read(cls, {**data, "at": int(millis) / 1000}, "the entry", error=CorruptProgress)
        return entry


class HistoryRecorder:
    """Writes the history of one execution: a context manager around it, and its observer.

    :param worker: name of the worker. :param enqueued_at: when the job was last put into its queue, in seconds.
    :param ttl_after: returns for how many seconds the history is kept after an execution that ended so.
    :param found: time of the server, and heartbeat of an earlier execution, that were read with the claim.
    :param heartbeats: thread of the process that writes start and heartbeats; the job does not wait for it.
    """

    def __init__(
        self,
        connection: Redis,
        job_id: str,
        *,
        worker: str = "",
        enqueued_at: float | None = None,
        ttl_after: Callable[[str], int] = lambda _: TTL,
        found: tuple[float, bytes | None] | None = None,
        heartbeats: Heartbeats | None = None,
    ) -> None:
        self._connection, self._job_id, self._worker = connection, job_id, worker
        self._enqueued_at, self._ttl_after = enqueued_at, ttl_after
        self._execution: Execution | None = None
        self._beat: PeriodicThread | None = None
        self._found, self._heartbeats, self._unwritten = found, heartbeats, dict[str, Any]()
        self._epoch, self._offset, self._started = 0, 0.0, 0.0

    def __enter__(self) -> HistoryRecorder:
        return self

    def began(self, execution: Execution) -> None:
        """Write the start of the execution, and start its heartbeat."""
        self._execution, self._epoch = execution, execution.progress.epoch
        self._started = execution.clock()
        try:
            if self._found is None:
                self._found = self._look()
            self._unwritten = self._start_entry(execution, *self._found)
            if self._heartbeats is None:
                self._tell()
        except RedisError as error:
            self._excuse(error)
        if self._heartbeats is None:
            self._beat = PeriodicThread(f"harness-heartbeat-{self._job_id}", HEARTBEAT_SECONDS, self._tell)
            self._beat.start()
        else:
            self._heartbeats.add(self._tell, at_once=execution.progress.crashes_in_a_row > 0)  # it may again

    def ended(self, ended: Ended) -> Ended:
        """Write how the execution ended, and return it."""
        self._end(ended.outcome, ended.reason)
        return ended

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write that it failed, if it did."""
        if kind is not None:
            self._end("failed", kind.__name__ if error is None else error_text(error))

    def _look(self) -> tuple[float, bytes | None]:
        """Return the time of the server, and the heartbeat that an execution without an end has left."""
        with self._connection.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.get(keys.heartbeat(self._job_id))
            (seconds, micros), left = pipeline.execute()
        return seconds + micros / 1e6, left

    def _start_entry(self, execution: Execution, now: float, left: bytes | None) -> dict[str, Any]:
        progress, died = execution.progress, Heartbeat.from_json(left)
        self._offset = now - time.monotonic()
        entry = {
            "what": "start", "epoch": self._epoch, "done": progress.done,
            "worker": bounded(self._worker, NAME_BYTES), "durability": _durability(execution),
            "enqueued_at": self._enqueued_at and round(self._enqueued_at, 3), "died": died and _rounded(died),
        }  # fmt: skip
        if progress.crashes:  # most jobs have none, and a hundred entries are kept
            entry["crashes"] = progress.crashes
        if self._epoch == progress.crashes + 1:  # else an earlier execution has it
            entry |= {"job": bounded(progress.job, NAME_BYTES), "total": progress.total}
        return entry

    def _end(self, outcome: str, reason: str | None) -> None:
        execution, self._execution = self._execution, None
        if execution is None:
            return
        if self._beat is not None:
            self._beat.close()
        elif self._heartbeats is not None:
            self._heartbeats.remove(self._tell)
        entry = {
            "what": "end", "epoch": self._epoch, "done": execution.done, "outcome": outcome, "total": execution.total,
            "reason": None if reason is None else bounded(reason, REASON_BYTES), "crashes": execution.progress.crashes,
        }  # fmt: skip
        try:
            with self._connection.pipeline() as pipeline:
                if self._unwritten:
                    self._add(pipeline, self._unwritten)
                self._add(pipeline, entry, self._ttl_after(outcome))
                if outcome in {"completed", "cancelled"}:
                    # A request to pause has no TTL; for a job that is over it would stay forever.
                    pipeline.expire(keys.control(self._job_id), TTL)
                if outcome != "superseded":  # else the heartbeat is another execution's
                    pipeline.delete(keys.heartbeat(self._job_id))
                pipeline.execute()
        except RedisError as error:
            self._excuse(error)

    def _add(self, pipeline: Pipeline, entry: dict[str, Any], ttl: int = TTL) -> None:
        key = keys.history(self._job_id)
        # Missing fields get their defaults when they are read.
        known = {name: value for name, value in entry.items() if value is not None and value != ""}
        text = json.dumps(known, separators=(",", ":"))
        pipeline.xadd(key, {"entry": text}, maxlen=2 * EXECUTIONS, approximate=False)
        pipeline.expire(key, ttl)  # 0 removes it immediately, as RQ does with the job

    def _tell(self) -> None:
        if (execution := self._execution) is None:
            return
        with self._connection.pipeline(transaction=bool(self._unwritten)) as pipeline:
            if self._unwritten:
                self._add(pipeline, self._unwritten)
            pipeline.set(keys.heartbeat(self._job_id), self._heartbeat(execution), ex=TTL)
            pipeline.execute()
        self._unwritten = {}

    def _heartbeat(self, execution: Execution) -> str:
        now, progress, saved = execution.clock(), execution.progress, execution.saved
        elapsed, cursor = now - self._started, progress.cursor
        heartbeat = Heartbeat(
            at=time.monotonic() + self._offset, epoch=self._epoch, done=progress.done, saved=saved.done,
            unsaved_s=max(0.0, now - max(saved.at, self._started)), elapsed_s=elapsed, items=execution.items,
            total=progress.total, durability=_durability(execution), worker=self._worker,
            host=socket.gethostname(), pid=os.getpid(), parent=os.getppid(), crashes=progress.crashes,
            step=progress.step, cursor=None if cursor is None else bounded(repr(cursor), CURSOR_BYTES),
            steps=max(0, len(progress.completed) - saved.steps),
            moved=cursor != saved.cursor if progress.step == saved.step else execution.moved,
        )  # fmt: skip
        return json.dumps(_rounded(heartbeat), separators=(",", ":"))

    def _excuse(self, error: RedisError) -> None:
        log.warning("job %s: its history was not written (%s); the job continues", self._job_id, error)


def note_action(connection: Redis, job_id: str, action: str, by: str, reason: str | None = None) -> None:
    """Write a user's action to the history of a job.

    The caller writes it before the action. Crash between the two: the history has an action that did not
    happen, and no action is missing. Lost answer: the action is not carried out, and may be listed twice when
    it is repeated.

    :param by: user. :param reason: more about the action, such as why it was refused.
    """
    check_connection(connection)
    entry = {
        "what": ASKED, "epoch": 0, "done": 0, "action": bounded(action, NAME_BYTES), "by": bounded(by, NAME_BYTES),
        "reason": None if reason is None else bounded(reason, REASON_BYTES),
    }  # fmt: skip
    key = keys.history(job_id)
    text = json.dumps(
        {name: value for name, value in entry.items() if value is not None}, separators=(",", ":")
    )
    kept_s: Any = connection.ttl(key)
    with connection.pipeline() as pipeline:
        pipeline.xadd(key, {"entry": text}, maxlen=2 * EXECUTIONS, approximate=False)
        if kept_s < 0:  # else it is kept as it was: the history of a job that has ended expires with the job
            pipeline.expire(key, TTL)
        pipeline.execute()


def ask_history(pipeline: Pipeline, job_id: str, entries: int = 2 * EXECUTIONS) -> None:
    """Queue the commands for the input of :func:`read_history` and :meth:`Heartbeat.from_json`."""
    pipeline.xrevrange(keys.history(job_id), count=entries)
    pipeline.get(keys.heartbeat(job_id))


def read_history(answer: list[tuple[Any, dict[Any, Any]]], bad: list[str] | None = None) -> list[Entry]:
    """Return the entries of a stream, the oldest first, without unreadable ones.

    :param bad: receives the reasons for omitted entries.
    """
    entries: dict[tuple[Any, str], Entry] = {}
    for number, fields in reversed(answer):
        try:
            entry = Entry.from_stream(number, fields)
        except CorruptProgress as error:
            if bad is not None:
                bad.append(str(error))
            continue
        # Actions are separate entries; an execution starts once and ends once.
        entries.setdefault((number if entry.what == ASKED else entry.epoch, entry.what), entry)
    return list(entries.values())


def history(
    connection: Redis, job_id: str, bad: list[str] | None = None
) -> tuple[list[Entry], Heartbeat | None]:
    """Return the history of a job, the oldest entry first, and its heartbeat if it runs.

    :param bad: receives the reasons for omitted entries.
    """
    check_connection(connection)
    with connection.pipeline(transaction=False) as pipeline:
        ask_history(pipeline, job_id)
        entries, heartbeat = pipeline.execute(raise_on_error=False)
    if isinstance(entries, Exception):  # the key has another type
        if bad is not None:
            bad.append(f"its history cannot be read: {entries}")
        entries = []
    return read_history(entries, bad), None if isinstance(heartbeat, Exception) else Heartbeat.from_json(
        heartbeat
    )


def _rounded(heartbeat: Heartbeat) -> dict[str, Any]:
    """Return a heartbeat as JSON data, its times in milliseconds."""
    data = asdict(heartbeat)
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in data.items()}


def _durability(execution: Execution) -> str:
    return str(overrides.current.durability or type(execution.job).durability)
