"""State of RQ at one moment: queues, workers and jobs, read in one round trip.

The names of queues, workers and jobs are in Redis too. So a read describes those that the previous read
found, and reads the names again: a new one is described one read later. The first read of a :class:`Watcher`
repeats until nothing is new. No command writes or blocks. A read is bounded: it counts the jobs of
:data:`COUNTED` queues, and describes :data:`QUEUES` of them, the busiest, with :data:`WORKERS` workers and
:data:`JOBS` jobs. It says how many more there are. Later reads count the other queues in turn. What cannot be
read is left out and named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rq import Queue
from rq.job import Job as RQJob
from rq.registry import (
    CanceledJobRegistry,
    DeferredJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
)
from rq.utils import as_text, parse_composite_key
from rq.worker import BaseWorker
from rq.worker_registration import REDIS_WORKER_KEYS

from harness.errors import CorruptProgress
from harness.queues.connections import check_connection
from harness.queues.history import EXECUTIONS, ask_history
from harness.queues.rq.views import (
    JOB_FIELDS,
    WORKER_FIELDS,
    JobView,
    WorkerView,
    answered,
    job_view,
    names_in,
    worker_view,
)
from harness.stores.redis import PREFIX

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

REGISTRIES = ("queued", "started", "scheduled", "deferred", "finished", "failed", "canceled")
"""Places of a job of a queue, with RQ's names; the first is the queue itself."""

SHOWN = {"started": 50, "queued": 8, "scheduled": 5, "failed": 4, "finished": 4, "canceled": 2}
"""Number of jobs of each place that a read describes, the most important first."""

ENTRIES = 6
"""Number of entries of a job's history that are read."""

LOOKS = 4
"""Number of rounds of the first read: names, then their data."""

COUNTED, COUNTED_AGAIN = 5_000, 200
"""Number of queues whose jobs the first read counts, and number that each later read counts again, in turn."""

QUEUES, WORKERS, JOBS = 40, 200, 300
"""Number of queues, workers and jobs that a read describes."""

_KEYS = {
    "queued": Queue.redis_queue_namespace_prefix + "{0}",
    "started": StartedJobRegistry.key_template, "scheduled": ScheduledJobRegistry.key_template,
    "deferred": DeferredJobRegistry.key_template, "finished": FinishedJobRegistry.key_template,
    "failed": FailedJobRegistry.key_template, "canceled": CanceledJobRegistry.key_template,
}  # fmt: skip


@dataclass(frozen=True)
class Overview:
    """Result of a read.

    :ivar at: seconds of the Redis server's clock. :ivar queues: numbers of jobs by place, for each queue.
        :ivar more: number of queues, workers and jobs that are not described, by these names; those that are
        0 are absent. :ivar left_out: why records that cannot be read were left out, one text each. :ivar
        unlisted: number of jobs of the described queues that are not described, by place.
    """

    at: float
    queues: dict[str, dict[str, int]]
    workers: tuple[WorkerView, ...]
    jobs: tuple[JobView, ...]
    more: dict[str, int] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    unlisted: dict[str, int] = field(default_factory=dict)


class Watcher:
    """Reads the state of RQ repeatedly.

    :param queues: names of the queues; all if empty. :param jobs: ids of jobs to describe in any place.
    """

    def __init__(self, connection: Redis, queues: Iterable[str] = (), jobs: Iterable[str] = ()) -> None:
        check_connection(connection)
        self._connection = connection
        self._asked, self._wanted = tuple(queues), tuple(jobs)
        self._queues: list[str] = list(self._asked)
        self._workers: list[str] = []
        self._jobs: list[str] = list(self._wanted)
        self._busy: dict[str, int] = {}  # jobs at work and waiting, of the queues that were counted
        self._to_count: list[str] = []
        self._more: dict[str, int] = {}
        self._looked = False
        self._whole: dict[str, None] = {}

    def look(self, whole: Iterable[str] = ()) -> Overview:
        """Return the current state in one round trip, except the first time.

        :param whole: ids of jobs to describe in any place, with their whole history.
        """
        self._whole = dict.fromkeys(whole)
        if not self._looked:
            for _ in range(LOOKS):
                known = (self._queues, self._workers, self._jobs)
                self._look()
                if known == (self._queues, self._workers, self._jobs):
                    break
            self._looked = True
        return self._look()

    def _look(self) -> Overview:
        queues, workers, to_count = self._queues, self._workers, self._to_count
        jobs = list(self._whole | dict.fromkeys(self._jobs))
        with self._connection.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.smembers(Queue.redis_queues_keys)
            pipeline.smembers(REDIS_WORKER_KEYS)
            for name in queues:
                _ask_queue(pipeline, name)
            for name in to_count:
                pipeline.llen(_KEYS["queued"].format(name))
                pipeline.zcard(_KEYS["started"].format(name))
            for name in workers:
                pipeline.hmget(BaseWorker.redis_worker_namespace_prefix + name, *WORKER_FIELDS)
            for job_id in jobs:
                pipeline.hmget(RQJob.key_for(job_id), *JOB_FIELDS)
                pipeline.get(PREFIX + job_id)
                ask_history(pipeline, job_id, 2 * EXECUTIONS if job_id in self._whole else ENTRIES)
            # A key of another type is an error of its own command, not of the others.
            answers = iter(pipeline.execute(raise_on_error=False))
        seconds, micros = next(answers)
        now, left_out = seconds + micros / 1e6, dict[str, str]()
        found_queues, found_workers = next(answers), next(answers)
        counts, found, beyond = self._read_queues(queues, answers, left_out)
        for name in to_count:
            waiting, at_work = next(answers), next(answers)
            self._busy[name] = sum(each for each in (waiting, at_work) if isinstance(each, int))
        seen_workers = _seen(((name, next(answers)) for name in workers), left_out, now)
        seen = [self._job(job_id, [next(answers) for _ in range(4)], left_out) for job_id in jobs]
        there = [each for each in seen if each is not None]
        unlisted = _unlisted(beyond, found, set(jobs), [each for each in there if each.queue in counts])
        more = dict(self._more) | ({"jobs": sum(unlisted.values())} if unlisted else {})
        self._plan(found_queues, found_workers, found, seen_workers, left_out)
        return Overview(
            now, counts, tuple(each for each in seen_workers if self._concerns(each)),
            tuple(there), more, tuple(left_out.values()), unlisted,
        )  # fmt: skip

    def _read_queues(
        self, queues: list[str], answers: Iterator[Any], left_out: dict[str, str]
    ) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, None]], dict[str, int]]:
        """Return the numbers of jobs, and by place the ids of the shown ones and the number of the others."""
        counts: dict[str, dict[str, int]] = {}
        beyond = dict.fromkeys(REGISTRIES, 0)
        found: dict[str, dict[str, None]] = {place: {} for place in SHOWN}
        for queue in queues:
            counts[queue] = {}
            for place in REGISTRIES:
                with _leaving_out(left_out, f"the {place} jobs of queue {queue}") as what:
                    counts[queue][place] = 0
                    counts[queue][place] = answered(next(answers), what)
            sizes = dict(counts[queue])
            for place in SHOWN:
                what = f"the {place} jobs of queue {queue}"
                answer = next(answers)
                members = [] if isinstance(answer, Exception) else answer
                sizes[place] = max(
                    0, sizes[place] - len(members)
                )  # the queue may change between two commands
                for member in members:
                    try:
                        found[place][_job_id(place, member)] = None
                    except ValueError:  # not UTF-8, or not an id and an execution
                        left_out[what] = f"{what} have a wrong entry: {member!r:.80}"
            for place, number in sizes.items():
                beyond[place] += number
            self._busy[queue] = counts[queue]["queued"] + counts[queue]["started"]
        return counts, found, beyond

    def _plan(
        self,
        found_queues: Any,
        found_workers: Any,
        found: dict[str, dict[str, None]],
        seen: list[WorkerView],
        left_out: dict[str, str],
    ) -> None:
        """Choose the content of the next read."""
        names = names_in(found_queues, Queue.redis_queue_namespace_prefix, "RQ's set of queues", left_out)
        prefix = BaseWorker.redis_worker_namespace_prefix
        workers = names_in(found_workers, prefix, "RQ's set of workers", left_out)
        if not self._asked:
            known = set(names)
            self._busy = {name: number for name, number in self._busy.items() if name in known}
            # The busiest first; unknown queues come before empty ones.
            order = sorted(names, key=lambda name: -self._busy.get(name, 0.5))
            self._to_count = self._next_to_count(names)
            names = order[:QUEUES]
            self._queues = sorted(names)
            self._more_of("queues", len(order) - len(names))
        self._workers = workers[:WORKERS]
        self._more_of("workers", len(workers) - len(self._workers))
        at_work = {each.job_id: None for each in seen if each.job_id and self._concerns(each)}
        jobs = dict.fromkeys(self._wanted) | at_work
        for place in SHOWN:
            jobs |= found[place]
        self._jobs = list(jobs)[: JOBS + len(self._wanted)]

    def _next_to_count(self, names: list[str]) -> list[str]:
        if len(names) <= QUEUES:
            return []
        new = [name for name in names if name not in self._busy]
        limit = COUNTED_AGAIN if self._looked else max(0, COUNTED - len(self._busy))
        if not self._looked:
            return new[:limit]
        # In turn: the queue with the oldest count comes first, because a count moves its queue to the end.
        again = [*new, *self._busy][:limit]
        for name in again:
            self._busy[name] = self._busy.pop(name, 0)
        return again

    def _more_of(self, what: str, number: int) -> None:
        self._more.pop(what, None)
        if number > 0:
            self._more[what] = number

    def _job(self, job_id: str, answers: list[Any], left_out: dict[str, str]) -> JobView | None:
        with _leaving_out(left_out, f"the record of job {job_id}"):
            return job_view(job_id, answers, left_out)
        return None

    def _concerns(self, worker: WorkerView) -> bool:
        return not self._asked or bool(set(self._asked) & set(worker.queues))


@contextmanager
def _leaving_out(left_out: dict[str, str], what: str) -> Iterator[str]:
    """Omit unreadable data, and record the reason."""
    try:
        yield what
    except CorruptProgress as error:
        left_out[what] = str(error)


def _unlisted(
    beyond: dict[str, int], found: dict[str, dict[str, None]], asked: set[str], seen: list[JobView]
) -> dict[str, int]:
    """Return how many jobs are not described, by place.

    :param beyond: number of jobs whose ids were not read. :param found: ids that were read. :param asked: ids of
        the described jobs. :param seen: described jobs of these queues.
    """
    known = {job_id for ids in found.values() for job_id in ids}
    # A job that was asked for by its id may be in a place beyond the ids that were read.
    elsewhere = Counter(view.status for view in seen if view.id not in known)
    numbers = {
        place: number + len(found.get(place, {}).keys() - asked) - elsewhere[place]
        for place, number in beyond.items()
    }
    return {place: number for place, number in numbers.items() if number > 0}


def _seen(answers: Iterable[tuple[str, Any]], left_out: dict[str, str], now: float) -> list[WorkerView]:
    seen = []
    for name, answer in answers:
        with _leaving_out(left_out, f"the record of worker {name}"):
            seen.append(worker_view(name, answer, now))
    return [each for each in seen if each is not None]


def _ask_queue(pipeline: Pipeline, name: str) -> None:
    pipeline.llen(_KEYS["queued"].format(name))
    for place in REGISTRIES[1:]:
        pipeline.zcard(_KEYS[place].format(name))
    for place, most in SHOWN.items():
        key = _KEYS[place].format(name)
        if place == "queued":
            pipeline.lrange(key, 0, most - 1)
        elif place in {"started", "scheduled"}:
            pipeline.zrange(key, 0, most - 1)
        else:
            pipeline.zrevrange(key, 0, most - 1)


def _job_id(place: str, member: Any) -> str:
    """Return the id in a member of a registry.

    :raises ValueError: if it has none.
    """
    text: str = as_text(member)
    job_id: str = parse_composite_key(text)[0] if place == "started" else text
    return job_id
