"""A snapshot as lines of a terminal, readable without colour, and the live screen."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from harness.boundary.texts import printable
from harness.monitor.jobs import job_lines, seconds, short

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from harness.monitor.snapshot import Snapshot

WIDTH = 80
LEFT_OUT = 5
"""Maximum number of omitted records to name."""

ROOMY = 30
"""Lines of a screen that has room for empty ones."""
JOBS_LINES, SECTION_LINES = 8, 3
"""Minimum lines of the jobs, and of each other section, on a small screen."""


def draw(
    snapshot: Snapshot, where: str, *, width: int = WIDTH, height: int | None = None, note: str = ""
) -> Group:
    """Return the lines to print.

    :param where: description of the watched servers. :param height: number of lines available; None for no
        limit.
    :param note: more text for the last line.
    """
    notes = [Text(f" {printable(note)}", style="bold yellow")] if note else []
    drawn = lines(snapshot, where, width=width, height=None if height is None else height - len(notes))
    return Group(*drawn, *notes)


def lines(snapshot: Snapshot, where: str, *, width: int = WIDTH, height: int | None = None) -> list[Text]:
    """Return the lines of a snapshot, none longer than *width*.

    With a *height*, jobs are dropped first, from the end; workers and events always keep some lines.
    """
    title = Text(f" harness  {where}", style="bold")
    clock = f"{_clock(snapshot.at)} "
    title.truncate(max(1, width - len(clock) - 1), overflow="ellipsis")
    title.pad_right(max(0, width - len(clock) - title.cell_len))
    sections = [
        list(_tables(snapshot)),
        list(_queues(snapshot)),
        list(_workers(snapshot)),
        list(_events(snapshot)),
        list(_left_out(snapshot)),
    ]
    roomy = height is None or height >= ROOMY
    head = [title.append(clock), *([Text()] if roomy else [])]
    room = None
    if height is not None:
        if not roomy:
            sections = [[line for line in section if line.plain] for section in sections]
        left = height - len(head) - JOBS_LINES
        sections = [
            _shortened(section, limit)
            for section, limit in zip(sections, _limits(sections, left), strict=True)
        ]
        room = height - len(head) - sum(map(len, sections))
    drawn = [
        *head,
        *_jobs(snapshot, width, room, gap=roomy),
        *(line for section in sections for line in section),
    ]
    for line in drawn:
        line.plain = printable(line.plain)  # the length is the same, so the styles keep their positions
        line.truncate(width, overflow="ellipsis")
        line.no_wrap = True
    return drawn if height is None else drawn[:height]


def _limits(sections: list[list[Text]], left: int) -> list[int]:
    """Return the number of lines of each section: all lines, or the longest sections are shortened first."""
    wanted = [len(section) for section in sections]
    while sum(wanted) > left and max(wanted) > SECTION_LINES:
        wanted[max(range(len(wanted)), key=wanted.__getitem__)] -= 1
    return wanted


def _shortened(section: list[Text], limit: int) -> list[Text]:
    if len(section) <= limit:
        return section
    blank = section[-1:] if not section[-1].plain else []
    kept = section[: limit - 1 - len(blank)]
    missing = len(section) - len(kept) - len(blank)
    return [*kept, Text(f" {missing:,} more lines; enlarge the window", style="dim"), *blank]


class LiveScreen:
    """Screen that is redrawn, and removed at the end; a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._live = Live(console=self.console, screen=True, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> LiveScreen:
        self._live.start()
        return self

    def show(self, snapshot: Snapshot, where: str, note: str = "") -> None:
        """Draw a snapshot."""
        width, height = self.console.size
        self._live.update(draw(snapshot, where, width=width, height=height - 1, note=note), refresh=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()


def _jobs(snapshot: Snapshot, width: int, room: int | None, *, gap: bool) -> list[Text]:
    """Return the jobs that fit into *room* lines, running jobs first, each with all its lines."""
    drawn, end = [_head("jobs")], [*_unlisted(snapshot), *([Text()] if gap else [])]
    blocks = [job_lines(row, width) for row in snapshot.jobs]
    if not blocks and not snapshot.unlisted:
        return [*drawn, Text(" none", style="dim"), *end]
    for index, block in enumerate(blocks):
        last = index + 1 == len(blocks)
        if room is not None and len(drawn) + len(block) + len(end) + (not last) > room:
            hidden = Counter(row.state for row in snapshot.jobs[index:])
            states = ", ".join(f"{number:,} {state}" for state, number in hidden.items())
            if index == 0:  # at least the id and the bar
                drawn += block[: max(0, room - len(drawn) - 1)]
            drawn.append(Text(f" more jobs: {states}; enlarge the window or use --queue", style="dim"))
            break
        drawn += block
    return [*drawn, *end]


def _unlisted(snapshot: Snapshot) -> Iterator[Text]:
    if snapshot.unlisted:
        places = ", ".join(f"{number:,} {place}" for place, number in snapshot.unlisted.items())
        yield Text(f" not listed: {places}", style="dim")


def _tables(snapshot: Snapshot) -> Iterator[Text]:
    if snapshot.tables:
        yield _head("database")
        for what, counts in snapshot.tables.items():
            yield Text(f" {what}: " + ", ".join(f"{number:,} {status}" for status, number in counts.items()))
        yield Text()


def _queues(snapshot: Snapshot) -> Iterator[Text]:
    yield _head("queues")
    for name, counts in snapshot.queues.items():
        there = [f"{number:,} {registry}" for registry, number in counts.items() if number]
        yield Text(f" {name}: " + (", ".join(there) or "empty"))
    yield from _more(snapshot, "queues")
    if not snapshot.queues:
        yield Text(" none", style="dim")
    yield Text()


def _workers(snapshot: Snapshot) -> Iterator[Text]:
    yield _head("workers")
    for worker in snapshot.workers:
        line = Text(f" {worker.name[:12]} {worker.host}:{worker.pid} {worker.state}")
        if worker.leaving:
            line.append(", leaving", style="yellow")
        if worker.job_id:
            line.append(f", at {short(worker.job_id)}")
        if worker.name in snapshot.silent:
            line.append(f", silent for {seconds(snapshot.silent[worker.name])}", style="bold red")
        elif worker.heartbeat_s is not None:
            line.append(f", heartbeat {seconds(worker.heartbeat_s)} ago")
        yield line
    yield from _more(snapshot, "workers")
    if not snapshot.workers:
        yield Text(" none", style="dim")
    yield Text()


def _events(snapshot: Snapshot) -> Iterator[Text]:
    if snapshot.events:
        yield _head("events")
        for event in snapshot.events:
            yield Text(f" {_clock(event.at)} {short(event.job_id)} {event.what}")


def _left_out(snapshot: Snapshot) -> Iterator[Text]:
    if snapshot.left_out:
        yield Text()
        yield _head("left out")
        for each in snapshot.left_out[:LEFT_OUT]:
            yield Text(f" {each}", style="yellow")
        if len(snapshot.left_out) > LEFT_OUT:
            yield Text(f" and {len(snapshot.left_out) - LEFT_OUT:,} more", style="yellow")


def _more(snapshot: Snapshot, what: str) -> Iterator[Text]:
    if what in snapshot.more:
        yield Text(f" and {snapshot.more[what]:,} more", style="dim")


def _head(words: str) -> Text:
    return Text(words.upper(), style="bold blue")


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%H:%M:%S")


def summary(snapshot: Snapshot) -> str:
    """Return a snapshot in one line, for a log."""
    running = [row for row in snapshot.jobs if row.state == "running"]
    parts = []
    for row in running[:3]:
        of = "" if row.total is None else f"/{row.total:,}"
        risk = f", {row.at_risk:,} at risk" if row.at_risk is not None else ""
        parts.append(f"{row.name} {row.done or 0:,}{of}{risk}")
    counts = [
        f"{sum(queue[name] for queue in snapshot.queues.values()):,} {name}" for name in ("queued", "failed")
    ]
    line = f"{_clock(snapshot.at)} {len(running)} running, {', '.join(counts)}"
    return printable(line + "".join(f"; {each}" for each in parts))
