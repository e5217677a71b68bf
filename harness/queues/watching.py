"""State of all queues at one moment: RQ's (see :mod:`harness.queues.rq.overview`), and queues with tickets.

The jobs of a kind of queue are counted together under its name: a ticket names its queue, but there is no set
for each queue. A read describes jobs in the order of their due time, so running jobs come before waiting
ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.boundary.decoding import parse_json, plain_text
from harness.errors import CorruptProgress
from harness.queues import keys
from harness.queues.history import EXECUTIONS, Heartbeat, ask_history
from harness.queues.rq import overview as rq_overview
from harness.queues.rq.overview import ENTRIES, REGISTRIES, Overview
from harness.queues.rq.views import JobView, WorkerView, answered, entries_view, progress_view
from harness.queues.ticket_jobs import KINDS, described
from harness.queues.ticket_requeuing import PLACES
from harness.queues.ticket_workers import SHOWN_SECONDS
from harness.queues.tickets import OUTCOMES
from harness.stores.redis import PREFIX

if TYPE_CHECKING:
    from redis import Redis

OPEN, OVER = 60, 4
"""Number of jobs of a kind that a read describes: unfinished ones, and the latest of each outcome."""

WORKERS, RECORD_BYTES = 100, 4096
"""Number of workers of a kind that one read describes, and size limit of the record of one."""

FIELDS = ("state", "outcome", "message", "queue", "eta")
"""Fields of a ticket that are read."""

ENDS = dict(zip(OUTCOMES, ("finished", "failed", "canceled"), strict=True))
"""RQ's words for the outcomes of tickets."""

COUNTED_AS = {"paused": "scheduled", "scheduled": "queued", "started": "queued"}
"""Places in which jobs are counted, by status, if the place has another name: the due time alone decides."""


class Watcher(rq_overview.Watcher):
    """Reads the states of RQ and of the tickets repeatedly; the parameters are those of RQ's watcher."""

    def __init__(self, connection: Redis, queues: Iterable[str] = (), jobs: Iterable[str] = ()) -> None:
        super().__init__(connection, queues, jobs)
        self._tickets = _TicketWatcher(connection, queues, jobs)

    def look(self, whole: Iterable[str] = ()) -> Overview:
        """Return the current state: RQ's in one round trip, the tickets in one, or two if there are any.

        :param whole: ids of jobs to describe in any place, with their whole history.
        """
        asked = list(whole)
        return self._tickets.add_to(super().look(asked), asked)


class _TicketWatcher:
    def __init__(self, connection: Redis, queues: Iterable[str], jobs: Iterable[str]) -> None:
        self._connection, self._queues, self._wanted = connection, frozenset(queues), tuple(jobs)

    def add_to(self, overview: Overview, whole: list[str]) -> Overview:
        """Return the overview with the jobs that have tickets."""
        left_out: dict[str, str] = {}
        sizes, found, at_work = self._ids(left_out)
        known = {job.id for job in overview.jobs}
        ids = dict.fromkeys([*whole, *self._wanted]) | dict.fromkeys(
            each for ids in found.values() for each in ids
        )
        views = self._views([each for each in ids if each not in known], set(whole), left_out)
        shown = [
            view for view in views.values()
            if not self._queues or view.queue in self._queues or view.id in whole or view.id in self._wanted
        ]  # fmt: skip
        queues, unlisted = dict(overview.queues), Counter(overview.unlisted)
        for kind, name in KINDS.items():
            places = sizes.get(kind, {})
            if not any(places.values()) or (
                self._queues and not any(each.id in found[kind] for each in shown)
            ):
                continue
            running = sum(view.status == "started" for view in views.values() if view.id in found[kind])
            queues[name] = dict.fromkeys(REGISTRIES, 0) | places
            queues[name] |= {"started": running, "queued": max(0, places["queued"] - running)}
            unlisted.update(_beyond(places))
        # A job that was asked for by its id may be beyond the ids that were read.
        known |= {each for ids in found.values() for each in ids}
        unlisted.subtract(COUNTED_AS.get(view.status, view.status) for view in shown if view.id not in known)
        left = {place: unlisted[place] for place in REGISTRIES if unlisted[place] > 0}
        more = dict(overview.more) | ({"jobs": sum(left.values())} if left else {})
        busy = {view.worker: view.id for view in views.values() if view.status == "started"}
        there = [
            each for kind, names in at_work.items()
            for each in self._workers(kind, names, overview.at, busy, left_out)
            if not self._queues or self._queues & set(each.queues)
        ]  # fmt: skip
        return replace(
            overview, jobs=(*overview.jobs, *shown), queues=queues, more=more, workers=(*overview.workers, *there),
            left_out=(*overview.left_out, *left_out.values()), unlisted=left,
        )  # fmt: skip

    def _ids(
        self, left_out: dict[str, str]
    ) -> tuple[dict[str, dict[str, int]], dict[str, list[str]], dict[str, list[tuple[Any, float]]]]:
        """Return the number of tickets of each kind in each place, the ids of the shown ones, and names of workers."""
        with self._connection.pipeline(transaction=False) as pipeline:
            for kind in KINDS:
                due = keys.due(kind)
                pipeline.zcard(due)
                pipeline.zcount(due, "+inf", "+inf")
                pipeline.zrange(due, 0, OPEN - 1)
                for outcome in OUTCOMES:
                    pipeline.zcard(keys.over(kind, outcome))
                    pipeline.zrevrange(keys.over(kind, outcome), 0, OVER - 1)
                pipeline.zrange(keys.workers(kind), 0, WORKERS - 1, withscores=True)
            answers = iter(pipeline.execute(raise_on_error=False))
        sizes: dict[str, dict[str, int]] = {}
        found: dict[str, list[str]] = {}
        names: dict[str, list[tuple[Any, float]]] = {}
        for kind, name in KINDS.items():
            some = [next(answers) for _ in range(3 + 2 * len(OUTCOMES))]
            members_of_workers = next(answers)
            names[kind] = [] if isinstance(members_of_workers, Exception) else members_of_workers
            sizes[kind], found[kind] = {}, []
            what = f"the tickets of {name}"
            try:
                total, parked, members, *over = [answered(each, what) for each in some]
                sizes[kind] = {"queued": total - parked, "scheduled": parked}
                for place, number in zip(ENDS.values(), over[::2], strict=True):
                    sizes[kind][place] = number
                for each in [*members, *(member for ids in over[1::2] for member in ids)]:
                    found[kind].append(plain_text(each, what) or "")
            except CorruptProgress as error:
                left_out[what] = str(error)
        return sizes, found, names

    def _workers(
        self,
        kind: str,
        names: list[tuple[Any, float]],
        now: float,
        busy: dict[str, str],
        left_out: dict[str, str],
    ) -> list[WorkerView]:
        """Return the workers of a kind: *names* have their times, and *busy* is the job of each that is at work."""
        if not names:
            return []
        texts = [plain_text(name, "the name of a worker") or "" for name, _ in names]
        answers: list[Any] = self._connection.mget([keys.worker(kind, name) for name in texts])
        found = []
        for name, (_, until), answer in zip(texts, names, answers, strict=True):
            if answer is None or until < now:
                continue
            try:
                found.append(
                    _worker_view(name, answer, max(0.0, now - (until - SHOWN_SECONDS)), busy.get(name))
                )
            except CorruptProgress as error:
                left_out[f"the record of worker {name}"] = str(error)
        return found

    def _views(self, ids: list[str], whole: set[str], left_out: dict[str, str]) -> dict[str, JobView]:
        if not ids:
            return {}
        with self._connection.pipeline(transaction=False) as pipeline:
            pipeline.time()
            for job_id in ids:
                pipeline.hmget(keys.ticket(job_id), *FIELDS)
                pipeline.get(PREFIX + job_id)
                ask_history(pipeline, job_id, 2 * EXECUTIONS if job_id in whole else ENTRIES)
            answers = iter(pipeline.execute(raise_on_error=False))
        seconds, micros = next(answers)
        views = {}
        for job_id in ids:
            what = f"the ticket of job {job_id}"
            some = [next(answers) for _ in range(4)]
            try:
                view = _view(job_id, some, seconds + micros / 1e6, left_out)
            except CorruptProgress as error:
                left_out[what] = str(error)
                continue
            if view is not None:
                views[job_id] = view
        return views


def _beyond(places: dict[str, int]) -> dict[str, int]:
    """Return the number of jobs of a kind in each place, without those whose ids are read."""
    beyond = {place: max(0, places[place] - OVER) for place in ENDS.values()}
    # Parked jobs are the last in the order of due times.
    hidden = max(0, places["queued"] + places["scheduled"] - OPEN)
    parked = min(hidden, places["scheduled"])
    return beyond | {"queued": hidden - parked, "scheduled": parked}


def _view(job_id: str, answers: list[Any], now: float, left_out: dict[str, str]) -> JobView | None:
    """Return a job; None if it no longer has a ticket.

    :raises CorruptProgress: if its ticket is unreadable.
    """
    what = f"the ticket of job {job_id}"
    texts = [plain_text(each, what) for each in answered(answers[0], what)]
    fields = {name: text for name, text in zip(FIELDS, texts, strict=True) if text is not None}
    if "state" not in fields:
        return None
    description, queue = described(fields)
    entries = entries_view(job_id, answers[2], left_out)
    starts = [each for each in entries if each.what == "start"]
    return JobView(
        id=job_id, status=_status(fields, now), description=description, queue=queue, enqueued_at=None,
        started_at=starts[-1].at if starts else None,
        ended_at=entries[-1].at if entries and fields["state"] == "over" else None,
        worker=starts[-1].worker if starts else "",
        progress=progress_view(job_id, None, None, answers[1], left_out),
        heartbeat=None if isinstance(answers[3], Exception) else Heartbeat.from_json(answers[3]), entries=entries,
    )  # fmt: skip


def _status(fields: dict[str, str], now: float) -> str:
    """Return RQ's status for the state of the job."""
    state = fields["state"]
    if state == "over":
        return ENDS.get(fields.get("outcome", ""), "finished")
    try:
        later = float(fields.get("eta", 0)) > now
    except ValueError:
        later = False
    return "scheduled" if later and state != "running" else PLACES.get(state, state)


def _worker_view(name: str, answer: Any, age: float, job_id: str | None) -> WorkerView:
    what = f"the record of worker {name}"
    data = parse_json(answer, what, limit=RECORD_BYTES)
    try:
        return WorkerView(
            name=name, state="idle" if job_id is None else "busy", host=str(data["host"]), pid=int(data["pid"]),
            job_id=job_id, heartbeat_s=age, queues=tuple(str(each) for each in data["queues"]),
            leaving=bool(data["leaving"]), done=None, failed=None,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptProgress(f"{what} cannot be read ({error!r}); it was left as it is") from error
