"""Data of the monitor: one round trip to Redis and one query per refresh."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from harness.boundary.texts import bounded
from harness.queues.history import ASKED, CURSOR_BYTES
from harness.queues.rq.overview import Overview, Watcher
from harness.queues.rq.views import JobView, WorkerView

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from harness.monitor.tables import StatusTables
    from harness.progress import Progress
    from harness.queues.history import Entry, Heartbeat

SILENT_SECONDS = 4.0
"""Seconds without a heartbeat after which a running job counts as silent."""

HEARTBEAT_SECONDS = 45.0
"""The same for a worker whose job has no heartbeat: RQ's workers then send a heartbeat every 30 s."""

BUSY = "busy"
"""RQ's state of a busy worker."""

ACTIVE = {"started", "queued", "scheduled", "deferred"}
UNDER_WAY = {"running", "interrupted", "delayed", "queued", "scheduled", "deferred"}
REQUESTS, ANSWERS = {"interrupt", "pause", "cancel"}, {"resume", "requeue", "rewind"}
"""Requests that a job acts on at its next checkpoint or start, and actions after which none is pending."""

EVENTS = 6
ORDER = {
    state: place
    for place, states in enumerate(
        (
            {"running"},
            {"interrupted", "delayed", "paused"},
            {"queued", "scheduled", "deferred"},
            {"failed", "stopped"},
        )
    )
    for state in states
}
"""Order of states: running, waiting, failed, and finished last."""


@dataclass(frozen=True)
class JobRow:
    """Job in a snapshot.

    :ivar state: RQ's status, or a more exact state from the job's progress: ``paused``, ``interrupted``.
    :ivar done: items done, saved or not. :ivar saved: items done and saved.
    :ivar rate: items a second in this execution. :ivar left_s: seconds to the end at that rate.
    :ivar executions: number of executions started. :ivar crashes: number of crashed ones.
    :ivar last_end: how the latest execution ended that did not complete the job. :ivar reason: why.
    :ivar at_risk: items that would be repeated if it were killed now; None if it does not run, or does not
        report it. The item in progress comes on top: how many of its effects have happened cannot be known.
    :ivar at_risk_s: seconds since the last save, if anything is at risk. :ivar steps_at_risk: the same of steps.
    :ivar moved: whether anything is not saved, counted or not.
    :ivar step: the step in progress, or None. :ivar cursor: the position in it, as text.
    :ivar silent_s: seconds since its heartbeat, if that is too long.
    :ivar asked: ``interrupt``, ``pause`` or ``cancel``, if that was requested and the job has not acted on it yet.
    :ivar asked_by: who requested it.
    """

    id: str
    name: str
    queue: str
    state: str
    done: int | None
    saved: int | None
    total: int | None
    rate: float | None
    left_s: float | None
    executions: int
    crashes: int
    last_end: str | None
    reason: str | None
    at_risk: int | None
    at_risk_s: float | None
    durability: str | None
    silent_s: float | None
    step: str | None = None
    cursor: str | None = None
    steps_at_risk: int = 0
    moved: bool = False
    asked: str | None = None
    asked_by: str | None = None


@dataclass(frozen=True)
class JobEvent:
    """Event of a job.

    :ivar at: seconds of the Redis server's clock.
    """

    at: float
    job_id: str
    what: str


@dataclass(frozen=True)
class Snapshot:
    """Snapshot of everything shown.

    :ivar at: seconds of the Redis server's clock. :ivar queues: numbers of jobs by queue and place. :ivar
        tables: numbers of database rows by status. :ivar events: the latest, the newest first. :ivar silent:
        busy workers without a heartbeat for too long, with the seconds; they may have crashed. :ivar more:
        number of queues, workers and jobs that are not shown. :ivar left_out: why records were left out.
        :ivar unlisted: number of jobs of the shown queues that are not shown, by place.
    """

    at: float
    jobs: tuple[JobRow, ...]
    queues: dict[str, dict[str, int]]
    workers: tuple[WorkerView, ...]
    tables: dict[str, dict[str, int]]
    events: tuple[JobEvent, ...]
    silent: dict[str, float]
    more: dict[str, int] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    unlisted: dict[str, int] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        """True if any job runs or waits."""
        return any(
            number for counts in self.queues.values() for name, number in counts.items() if name in ACTIVE
        )

    def to_data(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return asdict(self)


@dataclass(frozen=True)
class Detail:
    """All data of one job.

    :ivar view: its data in Redis. :ivar progress: its stored progress, from Redis or a database.
    """

    row: JobRow
    view: JobView
    progress: Progress | None


class Monitor:
    """Takes snapshots.

    :param watcher: source for the queues. :param tables: source for the work's database, if there is one to query.
    """

    def __init__(self, watcher: Watcher, tables: StatusTables | None = None) -> None:
        self._watcher, self._tables = watcher, tables

    def refresh(self) -> Snapshot:
        """Take one snapshot.

        :raises RedisError: if Redis does not answer.
        """
        return self.look()[0]

    def look(self, whole: Collection[str] = ()) -> tuple[Snapshot, dict[str, Detail]]:
        """Take one snapshot, and return it with all data of some jobs.

        :param whole: their ids; jobs that RQ does not have are absent from the result. :raises RedisError: if
            Redis does not answer.
        """
        overview = self._watcher.look(whole)
        tables, kept = self._count(overview)
        rows, details = [], {}
        for job in overview.jobs:
            progress = kept.get(job.id) or job.progress
            rows.append(_row(job, progress, overview.at))
            if job.id in whole:
                details[job.id] = Detail(rows[-1], job, progress)
        rows.sort(key=lambda row: ORDER.get(row.state, len(ORDER)))
        snapshot = Snapshot(
            overview.at, tuple(rows), overview.queues, overview.workers, tables, tuple(_events(overview)),
            _silent(overview), overview.more, overview.left_out, overview.unlisted,
        )  # fmt: skip
        return snapshot, details

    def _count(self, overview: Overview) -> tuple[dict[str, dict[str, int]], dict[str, Progress]]:
        if self._tables is None:
            return {}, {}
        # Jobs that have started and keep no progress in Redis.
        elsewhere = [job.id for job in overview.jobs if job.progress is None and job.entries]
        return self._tables.count(elsewhere)


def _silent(overview: Overview) -> dict[str, float]:
    """Return the silent workers with their silent time: Redis keeps a killed worker as busy."""
    heartbeats = {job.id: job.heartbeat for job in overview.jobs}
    silent = {}
    for worker in overview.workers:
        heartbeat, quiet_s = heartbeats.get(worker.job_id or ""), worker.heartbeat_s
        if worker.state != BUSY or quiet_s is None:
            continue
        if (
            heartbeat is not None and heartbeat.worker == worker.name
        ):  # otherwise another worker runs that job by now
            quiet_s = min(quiet_s, overview.at - heartbeat.at)
        if quiet_s > (HEARTBEAT_SECONDS if heartbeat is None else SILENT_SECONDS):
            silent[worker.name] = quiet_s
    return silent


def _row(job: JobView, progress: Progress | None, now: float) -> JobRow:
    entries = [each for each in job.entries if each.what != ASKED]
    latest = entries[-1] if entries else None
    epoch = max([progress.epoch if progress else 0, *(each.epoch for each in entries)])
    # A heartbeat of a replaced or ended execution does not describe the job now.
    heartbeat = (
        job.heartbeat if job.status == "started" and job.heartbeat and job.heartbeat.epoch >= epoch else None
    )
    done = heartbeat.done if heartbeat else progress.done if progress else latest.done if latest else None
    total = next(
        (each.total for each in (heartbeat, progress, latest) if each and each.total is not None), None
    )
    rate = heartbeat.rate if heartbeat else None
    left = max(0, total - done) / rate if rate and total is not None and done is not None else None
    end = next(
        (each for each in reversed(entries) if each.what == "end" and each.outcome != "completed"), None
    )
    silent = now - heartbeat.at if heartbeat and now - heartbeat.at > SILENT_SECONDS else None
    step, cursor = _position(heartbeat, progress)
    state = _state(job, progress)
    return JobRow(
        id=job.id, name=_name(job, progress), queue=job.queue, state=state, done=done,
        saved=heartbeat.saved if heartbeat else progress.done if progress else None, total=total, rate=rate,
        left_s=left, executions=max(epoch, heartbeat.epoch if heartbeat else 0),
        # Independent of the progress store: the history and the heartbeat count crashes too.
        crashes=max([progress.crashes if progress else 0, heartbeat.crashes if heartbeat else 0,
                     *(each.crashes or 0 for each in entries)]),
        last_end=end.outcome if end else None, reason=end.reason if end else None,
        at_risk=max(0, heartbeat.done - heartbeat.saved) if heartbeat else None,
        at_risk_s=heartbeat.unsaved_s if heartbeat else None,
        durability=heartbeat.durability if heartbeat else latest.durability if latest else None, silent_s=silent,
        step=step, cursor=cursor, steps_at_risk=heartbeat.steps if heartbeat else 0,
        moved=heartbeat is not None and (heartbeat.moved or heartbeat.steps > 0 or heartbeat.done > heartbeat.saved),
        **_pending(job.entries, state),
    )  # fmt: skip


def _pending(entries: Sequence[Entry], state: str) -> dict[str, str]:
    """Return the latest request that neither an execution nor another action has answered."""
    refused: set[str] = set()
    for entry in reversed(entries if state in UNDER_WAY else ()):
        if entry.what != ASKED:
            break
        if (entry.reason or "").startswith("refused:"):
            refused.add(entry.action)  # the request itself is an earlier entry
        elif entry.action in refused:
            refused.remove(entry.action)
        elif entry.action in ANSWERS:
            break
        elif entry.action in REQUESTS:
            return {"asked": entry.action, "asked_by": entry.by}
    return {}


def _position(heartbeat: Heartbeat | None, progress: Progress | None) -> tuple[str | None, str | None]:
    """Return the step in progress and its cursor, as text."""
    if heartbeat is not None:
        return heartbeat.step, heartbeat.cursor
    if progress is None or progress.step is None:
        return None, None
    return progress.step, None if progress.cursor is None else bounded(repr(progress.cursor), CURSOR_BYTES)


def _name(job: JobView, progress: Progress | None) -> str:
    if job.description:
        return job.description
    return progress.job.rpartition(":")[2] if progress else job.id


def _state(job: JobView, progress: Progress | None) -> str:
    """Return the state of the job in one word: RQ keeps paused jobs among the scheduled ones."""
    if job.status == "started":
        return "running"
    if progress is not None and job.status in {"scheduled", "queued"}:
        if progress.state in {"paused", "cancelled"} and job.status == "scheduled":
            return progress.state
        if progress.state == "interrupted":
            return "interrupted" if job.status == "queued" else "delayed"
    return job.status


def _events(overview: Overview) -> list[JobEvent]:
    told = [
        JobEvent(entry.at, job.id, what)
        for job in overview.jobs
        for entry in job.entries
        for what in _told(entry)
    ]
    return sorted(told, key=lambda event: -event.at)[:EVENTS]


def _told(entry: Entry) -> list[str]:
    if entry.what == ASKED:
        why = f": {entry.reason}" if entry.reason else ""
        return [f"{entry.action} by {entry.by}{why}"]
    if entry.what == "end":
        why = f" ({entry.reason})" if entry.reason else ""
        return [f"{entry.outcome}{why} at {_items(entry.done)}"]
    begun = "started" if entry.epoch == 1 else f"resumed at {_items(entry.done)}"
    if entry.died is not None:
        # Without "items", so that the line fits 80 columns with a shortened id.
        begun = f"resumed at {entry.done:,} after a crash at {max(entry.died.done, entry.done):,} or later"
    return [f"execution {entry.epoch} {begun}"]


def _items(number: int) -> str:
    return f"{number:,} item{'' if number == 1 else 's'}"
