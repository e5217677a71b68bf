"""Views of workers and jobs for the monitor, read from Redis."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rq.utils import as_text

from harness.boundary.decoding import MAX_INT, plain_text, shown
from harness.errors import CorruptProgress, HarnessError
from harness.progress import Progress
from harness.queues.history import Entry, Heartbeat, read_history
from harness.stores.rq_meta import FIELD, text_in_meta

JOB_FIELDS = (
    "status", "description", "origin", "enqueued_at", "started_at", "ended_at", "worker_name", FIELD, "meta",
)  # fmt: skip
"""Fields of a job's hash that are read; the last two may contain progress."""

WORKER_FIELDS = (
    "state", "hostname", "pid", "current_job", "last_heartbeat", "queues", "shutdown_requested_date",
    "successful_job_count", "failed_job_count",
)  # fmt: skip
"""Fields of a worker's hash that are read."""


@dataclass(frozen=True)
class WorkerView:
    """View of a worker from its own record.

    :ivar heartbeat_s: seconds since its last heartbeat. :ivar leaving: whether it was asked to leave.
    :ivar done: number of jobs, and *failed* of those that failed; None for a queue that does not count them.
    """

    name: str
    state: str
    host: str
    pid: int | None
    job_id: str | None
    heartbeat_s: float | None
    queues: tuple[str, ...]
    leaving: bool
    done: int | None
    failed: int | None


@dataclass(frozen=True)
class JobView:
    """View of a job, from RQ's record and its own records.

    :ivar status: RQ's status. :ivar progress: None if it is a plain job, has not started, or uses another
        store. :ivar heartbeat: its latest heartbeat, if it runs. :ivar entries: latest entries of its history. :ivar
        enqueued_at: and the other times: seconds of its worker's clock.
    """

    id: str
    status: str
    description: str
    queue: str
    enqueued_at: float | None
    started_at: float | None
    ended_at: float | None
    worker: str
    progress: Progress | None
    heartbeat: Heartbeat | None
    entries: tuple[Entry, ...]


def answered(answer: Any, what: str) -> Any:
    """Return an answer of Redis.

    :raises CorruptProgress: if it is an error, such as that of a key of another type.
    """
    if isinstance(answer, Exception):
        raise CorruptProgress(f"{what} cannot be read: {answer}")
    return answer


def worker_view(name: str, answer: Any, now: float) -> WorkerView | None:
    """Return a worker; None if it has exited since its name was read.

    :raises CorruptProgress: if its record is unreadable.
    """
    what = f"the record of worker {name}"
    known = _texts(WORKER_FIELDS, answered(answer, what), what)
    if known["state"] is None and known["hostname"] is None:
        return None
    heartbeat = _time(known["last_heartbeat"], what)
    pid = _number(known["pid"], what)
    return WorkerView(
        name=name, state=known["state"] or "", host=known["hostname"] or "", pid=pid or None,
        job_id=known["current_job"] or None, heartbeat_s=None if heartbeat is None else max(0.0, now - heartbeat),
        queues=tuple((known["queues"] or "").split(",")), leaving=bool(known["shutdown_requested_date"]),
        done=_number(known["successful_job_count"], what), failed=_number(known["failed_job_count"], what),
    )  # fmt: skip


def job_view(job_id: str, answers: list[Any], left_out: dict[str, str]) -> JobView | None:
    """Return a job; None if it has expired since its id was read.

    :param answers: answers of Redis for its hash, the key of its progress, its history and its heartbeat. :param
        left_out: receives the reasons for omitted progress or history.
    :raises CorruptProgress: if RQ's record of it cannot be read.
    """
    what = f"the record of job {job_id}"
    *texts, held, meta = answered(answers[0], what)
    known = _texts(JOB_FIELDS[:-2], texts, what)
    if known["status"] is None:
        return None
    return JobView(
        id=job_id, status=known["status"] or "", description=known["description"] or "",
        queue=known["origin"] or "", enqueued_at=_time(known["enqueued_at"], what),
        started_at=_time(known["started_at"], what), ended_at=_time(known["ended_at"], what),
        worker=known["worker_name"] or "", progress=progress_view(job_id, held, meta, answers[1], left_out),
        heartbeat=None if isinstance(answers[3], Exception) else Heartbeat.from_json(answers[3]),
        entries=entries_view(job_id, answers[2], left_out),
    )  # fmt: skip


def progress_view(job_id: str, held: Any, meta: Any, kept: Any, left_out: dict[str, str]) -> Progress | None:
    """Return the progress from the RQ job or from its own key; None if it is unreadable."""
    what = f"the progress of job {job_id}"
    try:
        kept = answered(kept, what)
        text = next((each for each in (kept, held) if each is not None), None) or text_in_meta(job_id, meta)
        return None if text is None else Progress.from_json(job_id, text)
    except HarnessError as error:
        left_out[what] = str(error)
        return None


def entries_view(job_id: str, answer: Any, left_out: dict[str, str]) -> tuple[Entry, ...]:
    """Return the readable entries of a job's history."""
    what = f"the history of job {job_id}"
    try:
        stream = answered(answer, what)
    except CorruptProgress as error:
        left_out[what] = str(error)
        return ()
    bad: list[str] = []
    entries = read_history(stream, bad)
    if bad:
        left_out[what] = f"{what} has {len(bad)} entries that cannot be read: {bad[0]}"
    return tuple(entries)


def _texts(names: tuple[str, ...], values: list[Any], what: str) -> dict[str, str | None]:
    return {name: plain_text(value, what) for name, value in zip(names, values, strict=True)}


def _number(text: str | None, what: str) -> int:
    """Return a count, 0 if there is none."""
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) < len(str(MAX_INT))):
        raise CorruptProgress(f"{what} has {shown(text)} for a number")
    return int(text)


def _time(text: str | None, what: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp() if text else None
    except (ValueError, OverflowError) as error:
        raise CorruptProgress(f"{what} has {shown(text)} for a time") from error


def names_in(answer: Any, prefix: str, what: str, left_out: dict[str, str]) -> list[str]:
    """Return the names in a set of keys, sorted; a key that is not UTF-8 or has another prefix is omitted."""
    names = []
    try:
        keys = answered(answer, what)
    except CorruptProgress as error:
        left_out[what] = str(error)
        return []
    for key in keys:
        try:
            name = as_text(key)
        except UnicodeDecodeError:
            left_out[f"{what}, {shown(key)}"] = f"{what} has {shown(key)}, which is not UTF-8"
            continue
        if name.startswith(prefix):
            names.append(name.removeprefix(prefix))
        else:
            left_out[f"{what}, {shown(key)}"] = f"{what} has {shown(key)}, which does not begin with {prefix}"
    return sorted(names)
