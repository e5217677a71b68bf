"""What goes on in RQ at one moment: queues, workers and jobs, read in one round trip.

Which queues, workers and jobs there are is itself in Redis, so a look asks for those that the look before has found,
and for their names again: what is new is described one look later. The first look of a :class:`Watcher` looks until
nothing is new. Everything is read with plain commands that take nothing away and wait for nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rq import Queue
from rq.job import Job as RQJob
from rq.utils import as_text, parse_composite_key
from rq.worker import BaseWorker
from rq.worker_registration import REDIS_WORKER_KEYS

from harness.errors import HarnessError
from harness.progress import Progress
from harness.queues.rq.connections import check_connection
from harness.queues.rq.history import Entry, Pulse, ask_history, read_history
from harness.queues.rq.names import queue_names
from harness.stores.redis import PREFIX
from harness.stores.rq_meta import FIELD, text_in_meta

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

REGISTRIES = ("queued", "started", "scheduled", "deferred", "finished", "failed", "canceled")
"""Where a job of a queue can be, in RQ's words; the first is the queue itself."""

SHOWN = {"queued": 8, "started": 50, "scheduled": 5, "finished": 4, "failed": 4, "canceled": 2}
"""How many jobs of each a look describes."""

ENTRIES = 6
"""How much of the history of a job a look reads."""

LOOKS = 4
"""How often the first look looks again: names, then what is behind them."""

_FIELDS = (
    "status",
    "description",
    "origin",
    "enqueued_at",
    "started_at",
    "ended_at",
    "worker_name",
    FIELD,
    "meta",
)
_WORKER = (
    "state", "hostname", "pid", "current_job", "last_heartbeat", "queues", "shutdown_requested_date",
    "successful_job_count", "failed_job_count",
)  # fmt: skip


@dataclass(frozen=True)
class WorkerView:
    """A worker, as it says of itself.

    :ivar heartbeat_s: seconds since its last sign of life. :ivar leaving: whether it was asked to leave.
    """

    name: str
    state: str
    host: str
    pid: int | None
    job_id: str | None
    heartbeat_s: float | None
    queues: tuple[str, ...]
    leaving: bool
    done: int
    failed: int


@dataclass(frozen=True)
class JobView:
    """A job, as RQ and its own records tell of it.

    :ivar status: RQ's word. :ivar progress: None if it is not one of ours, has not begun, or keeps it elsewhere.
    :ivar pulse: where it is at this moment, if it is at work. :ivar entries: the latest of its history.
    :ivar enqueued_at: and the other times: seconds of its worker's clock.
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
    pulse: Pulse | None
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Overview:
    """All that a look has found.

    :ivar at: seconds of the Redis server's clock. :ivar queues: how many jobs are where, for each queue.
    """

    at: float
    queues: dict[str, dict[str, int]]
    workers: tuple[WorkerView, ...]
    jobs: tuple[JobView, ...]


class Watcher:
    """Looks into RQ, again and again.

    :param queues: the names of those to look at; all if empty.
    :param jobs: ids of jobs to describe wherever they are.
    """

    def __init__(self, connection: Redis, queues: Iterable[str] = (), jobs: Iterable[str] = ()) -> None:
        check_connection(connection)
        self._connection = connection
        self._asked, self._wanted = tuple(queues), tuple(jobs)
        self._queues: list[str] = list(self._asked)
        self._workers: list[str] = []
        self._jobs: list[str] = list(self._wanted)
        self._looked = False

    def look(self) -> Overview:
        """Return what is there now: one round trip, but for the first time."""
        if not self._looked:
            for _ in range(LOOKS):
                known = (self._queues, self._workers, self._jobs)
                self._look()
                if known == (self._queues, self._workers, self._jobs):
                    break
            self._looked = True
        return self._look()

    def _look(self) -> Overview:
        queues = [Queue(name, connection=self._connection, serializer="json") for name in self._queues]
        workers, jobs = self._workers, self._jobs
        with self._connection.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.smembers(Queue.redis_queues_keys)
            pipeline.smembers(REDIS_WORKER_KEYS)
            for queue in queues:
                _ask_queue(pipeline, queue)
            for name in workers:
                pipeline.hmget(BaseWorker.redis_worker_namespace_prefix + name, *_WORKER)
            for job_id in jobs:
                pipeline.hmget(RQJob.key_for(job_id), *_FIELDS)
                pipeline.get(PREFIX + job_id)
                ask_history(pipeline, job_id, ENTRIES)
            answers = iter(pipeline.execute())
        seconds, micros = next(answers)
        now = seconds + micros / 1e6
        found_queues, found_workers = next(answers), next(answers)
        counts, found_jobs = {}, dict.fromkeys(self._wanted)
        for queue in queues:
            counts[queue.name] = {name: next(answers) for name in REGISTRIES}
            for name in SHOWN:
                found_jobs.update(dict.fromkeys(_job_id(name, each) for each in next(answers)))
        seen_workers = [_worker(name, next(answers), now) for name in workers]
        seen = [_job(job_id, *(next(answers) for _ in range(4))) for job_id in jobs]
        self._queues = list(self._asked) or queue_names(found_queues)
        prefix = BaseWorker.redis_worker_namespace_prefix
        self._workers = sorted(as_text(key).removeprefix(prefix) for key in found_workers)
        self._jobs = list(found_jobs)
        return Overview(
            now,
            counts,
            tuple(each for each in seen_workers if each is not None and self._concerns(each)),
            tuple(each for each in seen if each is not None),
        )

    def _concerns(self, worker: WorkerView) -> bool:
        return not self._asked or bool(set(self._asked) & set(worker.queues))


def _ask_queue(pipeline: Pipeline, queue: Queue) -> None:
    registries = {
        "started": queue.started_job_registry, "scheduled": queue.scheduled_job_registry,
        "deferred": queue.deferred_job_registry, "finished": queue.finished_job_registry,
        "failed": queue.failed_job_registry, "canceled": queue.canceled_job_registry,
    }  # fmt: skip
    pipeline.llen(queue.key)
    for name in REGISTRIES[1:]:
        pipeline.zcard(registries[name].key)
    for name, most in SHOWN.items():
        if name == "queued":
            pipeline.lrange(queue.key, 0, most - 1)
        elif name in {"started", "scheduled"}:
            pipeline.zrange(registries[name].key, 0, most - 1)
        else:
            pipeline.zrevrange(registries[name].key, 0, most - 1)


def _job_id(registry: str, member: Any) -> str:
    text: str = as_text(member)
    job_id: str = parse_composite_key(text)[0] if registry == "started" else text
    return job_id


def _worker(name: str, values: list[Any], now: float) -> WorkerView | None:
    known = dict(zip(_WORKER, (None if value is None else as_text(value) for value in values), strict=True))
    if known["state"] is None and known["hostname"] is None:
        return None  # it has left meanwhile
    heartbeat = _time(known["last_heartbeat"])
    return WorkerView(
        name=name, state=known["state"] or "", host=known["hostname"] or "",
        pid=int(known["pid"]) if known["pid"] else None, job_id=known["current_job"] or None,
        heartbeat_s=None if heartbeat is None else max(0.0, now - heartbeat),
        queues=tuple((known["queues"] or "").split(",")), leaving=bool(known["shutdown_requested_date"]),
        done=int(known["successful_job_count"] or 0), failed=int(known["failed_job_count"] or 0),
    )  # fmt: skip


def _job(job_id: str, values: list[Any], kept: Any, entries: list[Any], pulse: Any) -> JobView | None:
    *texts, held, meta = values
    known = dict(zip(_FIELDS, (None if value is None else as_text(value) for value in texts), strict=False))
    if known["status"] is None:
        return None  # it has expired meanwhile
    return JobView(
        id=job_id, status=known["status"] or "", description=known["description"] or "",
        queue=known["origin"] or "", enqueued_at=_time(known["enqueued_at"]),
        started_at=_time(known["started_at"]), ended_at=_time(known["ended_at"]), worker=known["worker_name"] or "",
        progress=_progress(job_id, held, meta, kept), pulse=Pulse.from_json(pulse),
        entries=tuple(read_history(entries)),
    )  # fmt: skip


def _progress(job_id: str, held: Any, meta: Any, kept: Any) -> Progress | None:
    """Read the progress from where RQ's jobs carry it, or from a key of its own; what cannot be read is not shown."""
    try:
        text = next((each for each in (kept, held) if each is not None), None) or text_in_meta(job_id, meta)
        return None if text is None else Progress.from_json(job_id, text)
    except (AttributeError, UnicodeDecodeError, ValueError, HarnessError):
        return None


def _time(text: str | None) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text else None
