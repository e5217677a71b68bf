"""HTML of a read, in parts that are sent when they change. Jinja escapes every value, because each may be hostile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2s
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from harness.boundary.texts import bounded, printable
from harness.monitor import story_text
from harness.monitor.jobs import ITERATION, risk, seconds
from harness.monitor.story import Part, Story, story
from harness.queues.history import ASKED
from harness.web.actions import ACTIONS, OVER, offered
from harness.web.feed import LIST, Look, Parts

if TYPE_CHECKING:
    from harness.monitor.snapshot import Detail, JobRow, Snapshot
    from harness.progress import Progress
    from harness.web.stage import Stage

VALUE_BYTES = 300
"""Size limit of the text of a value, such as an attribute."""

PLACES = ("queued", "started", "scheduled", "deferred", "finished", "failed", "canceled")
MAIN_PLACES = ("queued", "started", "finished", "failed")
"""Columns of the table of queues; others are shown if they contain a job."""

LATEST = 30
"""Numbers of the latest executions, actions and quarantined items that are shown."""

KINDS = {
    "completed": "good", "running": "good", "interrupted": "polite", "paused": "polite", "cancelled": "polite",
    "superseded": "polite",
}  # fmt: skip
"""Colour of an execution by its outcome; all other outcomes are ``harsh``."""


def _text(value: Any) -> Any:
    """Return a value without characters that control or reorder text; escaped HTML is not changed."""
    return printable(value) if type(value) is str else value


def _whole(value: str) -> Markup:
    """Return a text for a hidden field, unchanged but escaped."""
    return Markup(escape(value))  # noqa: S704 - escaped here


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def key_of(job_id: str) -> str:
    """Return the id of an element about a job, because job ids may contain any character."""
    return f"j-{blake2s(job_id.encode('utf-8', 'surrogatepass'), digest_size=9).hexdigest()}"


environment = Environment(
    loader=PackageLoader("harness.web"), autoescape=True, undefined=StrictUndefined, finalize=_text,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip
environment.filters.update(
    number=lambda value: f"{value:,}", seconds=seconds, precise=story_text.seconds, clock=_clock, moment=_moment,
    key=key_of, whole=_whole,
)  # fmt: skip
environment.globals.update(ACTIONS=ACTIONS, offered=offered, OVER=OVER)


class Pages:
    """Renders reads.

    :param where: description of the watched servers. :param stage: the demo, if it runs.
    """

    def __init__(self, where: str, stage: Stage | None = None) -> None:
        self._where, self._stage = where, stage
        # A row costs a tenth of a millisecond, and few of a thousand jobs change between two reads.
        self._row = lru_cache(maxsize=2000)(self._render_row)

    def render(self, look: Look, topic: str) -> Parts:
        """Render a topic of a read; the page adds the base of the addresses."""
        return self._list(look) if topic == LIST else self._job(look, topic)

    def _list(self, look: Look) -> Parts:
        snapshot, parts = look.snapshot, self._status(look)
        if self._stage is not None:
            lanes = self._stage.view({row.id: row for row in snapshot.jobs} if snapshot else {})
            parts["stage"] = _render("_stage.html", lanes=lanes, hint=self._stage.hint)
        if snapshot is None:
            return Parts((), parts)
        rows = {key_of(row.id): self._row(row) for row in snapshot.jobs}
        parts["summary"] = _render("_summary.html", facts=_facts_of_all(snapshot))
        parts["rest"] = _render("_rest.html", places=snapshot.unlisted)
        parts["queues"] = _render("_queues.html", snapshot=snapshot, places=_places(snapshot))
        parts["workers"] = _render("_workers.html", snapshot=snapshot, demo=self._stage is not None)
        parts["news"] = _render("_news.html", snapshot=snapshot)
        return Parts(tuple(rows), parts | rows)

    def _status(self, look: Look) -> dict[str, str]:
        at = look.snapshot.at if look.snapshot else None
        return {
            "status": _render("_status.html", error=look.error, at=at if look.error else None),
            "clock": _render("_clock.html", at=at),
        }

    def _render_row(self, row: JobRow) -> str:
        return _render("_row.html", row=row, bar=bar_of(row), risk=_risk(row), plain=_plain(row))

    def _job(self, look: Look, job_id: str) -> Parts:
        parts, detail, snapshot = self._status(look), look.details.get(job_id), look.snapshot
        if detail is None or snapshot is None:
            parts["head"] = _render("_gone.html", job_id=job_id, known=snapshot is not None)
            return Parts((), parts)
        row, entries = detail.row, detail.view.entries
        told = None
        if any(each.what == "start" for each in entries):
            told = story(
                row.id, row.name, entries, detail.view.heartbeat, now=snapshot.at, progress=detail.progress,
                failure=_failure(detail),
            )  # fmt: skip
        log = [each for each in entries if each.what == ASKED][-LATEST:]
        parts["head"] = _render(
            "_head.html",
            row=row,
            bar=bar_of(row),
            risk=_risk(row),
            plain=_plain(row),
            parallel=_parallel(detail),
        )
        parts["facts"] = _render(
            "_facts.html", facts=_facts_of(detail), attributes=_attributes(detail.progress)
        )
        parts["timeline"] = _render("_timeline.html", **_timeline(told))
        parts["quarantine"] = _render("_quarantine.html", items=_quarantine(detail.progress))
        parts["log"] = _render("_log.html", log=log[::-1], at=snapshot.at)
        return Parts((), parts)


def _render(name: str, **values: Any) -> str:
    return environment.get_template(name).render(**values)


def bar_of(row: JobRow) -> dict[str, Any] | None:
    """Return the lengths of a job's bar, in per cent of the total; None without a bar."""
    if row.done is None:
        return None
    total = None if row.state == "finished" else row.total
    if total is None:
        share, words = (100.0 if row.state == "finished" else None), f"{row.done:,} items"
    else:
        share, words = (min(100.0, 100 * row.done / total) if total else 100.0), f"{row.done:,} of {total:,}"
    if share is None:
        return {"share": None, "saved": 0.0, "risk": 0.0, "words": words}
    unsaved = min(share, 100 * row.at_risk / total) if row.at_risk and total else 0.0
    return {"share": share, "saved": share - unsaved, "risk": unsaved, "words": words}


def _risk(row: JobRow) -> str:
    return risk(row) if row.at_risk is not None else ""


def _plain(row: JobRow) -> bool:
    """Return whether a running job does not belong to this package, whose jobs write their history when they start."""
    return row.state == "running" and not row.executions


def _places(snapshot: Snapshot) -> list[str]:
    """Return the columns of the table of queues: the main ones, and others with a job."""
    taken = {place for places in snapshot.queues.values() for place, number in places.items() if number}
    return [place for place in PLACES if place in taken.union(MAIN_PLACES)]


def _facts_of_all(snapshot: Snapshot) -> list[tuple[str, str, str]]:
    """Return the figures at the top: number, text, kind."""
    counts = dict.fromkeys(PLACES, 0)
    for places in snapshot.queues.values():
        for place, number in places.items():
            counts[place] = counts.get(place, 0) + number
    waiting = counts["queued"] + counts["scheduled"] + counts["deferred"]
    rate = sum(row.rate or 0 for row in snapshot.jobs if row.state == "running")
    at_risk = sum(row.at_risk or 0 for row in snapshot.jobs)
    return [
        (f"{counts['started']:,}", "at work", ""),
        (f"{waiting:,}", "waiting", ""),
        (f"{counts['failed']:,}", "failed", "harsh" if counts["failed"] else ""),
        (f"{rate:,.0f}", "items a second", ""),
        (f"{at_risk:,}", "items a kill would repeat", "harsh" if at_risk else ""),
        (f"{len(snapshot.workers) + snapshot.more.get('workers', 0):,}", "workers", ""),
    ]


def _facts_of(detail: Detail) -> list[tuple[str, str]]:
    row, view, progress = detail.row, detail.view, detail.progress
    heartbeat = view.heartbeat if row.at_risk is not None else None
    found: list[tuple[str, Any]] = [
        ("Id", row.id),
        ("Queue", row.queue),
        ("Step", None if row.step in {None, ITERATION} else row.step),
        ("Cursor", row.cursor),
        (
            "Completed steps",
            ", ".join(progress.completed) if progress and progress.completed != [ITERATION] else None,
        ),
        ("Durability", row.durability),
        ("Saved", f"{row.saved:,} items" if row.saved is not None else None),
        ("Executions", _executions(row, progress)),
        ("Last end", f"{row.last_end}: {row.reason}" if row.reason else row.last_end),
        ("Time at work, saved", seconds(progress.runtime_s) if progress and progress.runtime_s else None),
        ("Longest gap", seconds(progress.longest_gap_s) if progress and progress.longest_gap_s else None),
        (
            "Worker",
            f"{view.worker or heartbeat.worker} on {heartbeat.host}" if heartbeat else view.worker or None,
        ),
        ("Process", heartbeat.pid if heartbeat else None),
        ("Last enqueued", f"{_moment(view.enqueued_at)} UTC" if view.enqueued_at else None),
    ]
    return [(name, str(value)) for name, value in found if value not in {None, ""}]


def _executions(row: JobRow, progress: Progress | None) -> str:
    told = [f"{row.executions:,}"]
    if progress is not None:
        counts = {"interruptions": progress.interruptions, "errors": progress.errors}
        told += [f"{number:,} {name}" for name, number in counts.items() if number]
    return ", ".join([*told, f"{row.crashes:,} crashed"] if row.crashes else told)


def _attributes(progress: Progress | None) -> list[tuple[str, str]]:
    values: Mapping[str, Any] = progress.attributes if progress else {}
    return [(name, bounded(repr(value), VALUE_BYTES)) for name, value in list(values.items())[:LATEST]]


def _quarantine(progress: Progress | None) -> list[tuple[str, int, str]]:
    items: Iterable[Any] = progress.quarantined[-LATEST:] if progress else ()
    return [(bounded(repr(each.cursor), VALUE_BYTES), each.failures, each.error) for each in items]


def _failure(detail: Detail) -> str | None:
    """Return why the queue failed a job without a recorded reason; a read does not include RQ's results."""
    progress = detail.progress
    if detail.view.status != "failed" or (progress is not None and progress.state == "failed"):
        return None
    return "its worker or its queue stopped it; see the log of the worker"


def _parallel(detail: Detail) -> str:
    """Return the id under which a parallel run is scaled; empty if the job is no instance of one."""
    run_id, _, number = detail.row.id.rpartition("-")
    ours = run_id and number.isascii() and number.isdecimal() and detail.row.name.endswith(f" [{number}]")
    return run_id if ours else ""


def _timeline(told: Story | None) -> dict[str, Any]:
    if told is None:
        return {"story": None, "lanes": [], "headline": "", "shares": [], "limits": "", "earlier": 0}
    parts = told.parts[-LATEST:]
    whole = told.total_s or 1.0
    shares = [(words, value, 100 * value / whole) for words, value in story_text.where_time_went(told)]
    return {
        "story": told, "lanes": [_lane(part, whole) for part in parts], "headline": story_text.headline(told),
        "shares": shares, "limits": story_text.limits(told), "earlier": parts[0].epoch - 1,
    }  # fmt: skip


def _lane(part: Part, whole: float) -> dict[str, Any]:
    """Return an execution for the timeline, its lengths in per cent of the story."""
    left, waited = 100 * part.start_s / whole, 100 * (part.waited_s + part.unnoticed_s) / whole
    width = max(0.4, 100 * part.lasted_s / whole)
    again = min(1.0, part.repeated / part.items) * width if part.repeated and part.items else 0.0
    return {
        "epoch": part.epoch, "how": story_text.how(part), "detail": story_text.detail(part),
        "kind": KINDS.get(part.outcome, "harsh"), "left": min(left, 99.6), "width": width, "again": again,
        "waited": max(0.0, min(waited, left)), "worker": part.worker,
    }  # fmt: skip
