"""A snapshot as lines of a terminal, 80 columns wide and readable without colour, and the screen that is kept fresh."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from harness.texts import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from harness.monitor.snapshot import JobRow, Snapshot

WIDTH = 80
BAR = 14
"""Columns."""
LEFT_OUT = 5
"""Number of records left out that are named."""
STATES = {
    "running": "green", "finished": "cyan", "failed": "bold red", "paused": "yellow", "interrupted": "yellow",
    "delayed": "yellow", "cancelled": "red", "canceled": "red",
}  # fmt: skip


def draw(snapshot: Snapshot, where: str, *, height: int | None = None, note: str = "") -> Group:
    """Return what is to be printed.

    :param where: what is looked at, in words. :param height: how many lines there are for it; None for no limit.
    :param note: what else is to be said, on the last line.
    """
    drawn = [*lines(snapshot, where), *([Text(f" {printable(note)}", style="bold yellow")] if note else [])]
    if height is not None and len(drawn) > height:
        left = len(drawn) - height + 1
        drawn = [
            *drawn[: height - 1], Text(f" {left} more lines; enlarge the window or use --queue", style="dim"),
        ]  # fmt: skip
    return Group(*drawn)


def lines(snapshot: Snapshot, where: str) -> list[Text]:
    """Return a snapshot line by line, none longer than 80 columns."""
    title = Text(f" harness  {where}", style="bold")
    clock = f"{_clock(snapshot.at)} "
    title.truncate(WIDTH - len(clock) - 1, overflow="ellipsis")
    title.pad_right(WIDTH - len(clock) - title.cell_len)
    drawn = [title.append(clock), Text()]
    drawn += [
        *_jobs(snapshot),
        *_tables(snapshot),
        *_queues(snapshot),
        *_workers(snapshot),
        *_events(snapshot),
        *_left_out(snapshot),
    ]
    for line in drawn:
        line.plain = printable(line.plain)  # of the same length, so the styles keep their places
        line.truncate(WIDTH, overflow="ellipsis")
        line.no_wrap = True
    return drawn


class LiveScreen:
    """A screen that is drawn over and over, and taken away at the end; a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._live = Live(console=self.console, screen=True, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> LiveScreen:
        self._live.start()
        return self

    def show(self, snapshot: Snapshot, where: str, note: str = "") -> None:
        """Draw anew."""
        height = self.console.height - 1
        self._live.update(draw(snapshot, where, height=height, note=note), refresh=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()


def seconds(value: float) -> str:
    """Return a time as people say it."""
    if value < 90:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _jobs(snapshot: Snapshot) -> Iterator[Text]:
    yield _head("jobs")
    for row in snapshot.jobs:
        yield _first(row)
        if row.executions:
            yield Text(f"   {_story(row)}", style="dim")
        if row.at_risk is not None:
            yield _meter(row)
    yield from _more(snapshot, "jobs")
    if not snapshot.jobs:
        yield Text(" none", style="dim")
    yield Text()


def _first(row: JobRow) -> Text:
    name = Text(f" {row.name} {row.id[:8]}" if not row.name.endswith(row.id) else f" {row.id}")
    name.truncate(29, overflow="ellipsis", pad=True)
    line = name.append(f" {row.state:<11}", style=STATES.get(row.state, ""))
    if row.done is None:
        return line
    # Of what is finished nothing is missing, though a death may have kept some items from being counted.
    finished = row.state == "finished"
    share = 1.0 if finished else min(row.done / row.total, 1.0) if row.total else None
    line.append(("█" * int(share * BAR)).ljust(BAR, "░") if share is not None else " " * BAR)
    line.append(f" {row.done:,}" + (f"/{row.total:,}" if row.total is not None and not finished else ""))
    return line


def _story(row: JobRow) -> str:
    told = "1 execution" if row.executions == 1 else f"{row.executions} executions"
    if row.rate and row.state == "running":
        speed = f"{row.rate:,.0f}/s" if row.rate >= 10 else f"{row.rate:.1f}/s"
        left = "" if row.left_s is None else f", {seconds(row.left_s)} left"
        told = f"{speed}{left}; {told}"
    if row.crashes:
        told += f", {row.crashes} died"
    if row.last_end is not None:
        told += f"; last {row.last_end}" + (
            f": {row.reason}" if row.reason and row.reason != row.last_end else ""
        )
    return told


def _meter(row: JobRow) -> Text:
    items = "nothing" if not row.at_risk else "1 item" if row.at_risk == 1 else f"{row.at_risk:,} items"
    told = f"   killed now, it would repeat {items}"
    if row.at_risk and row.at_risk_s is not None:
        told += f", {seconds(row.at_risk_s)}"
    line = Text(f"{told}  [{row.durability}]", style="red" if row.at_risk else "green")
    if row.silent_s is not None:
        line.append(f"  no sign for {seconds(row.silent_s)}", style="bold red")
    return line


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
            line.append(f", at {worker.job_id[:8]}")
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
            yield Text(f" {_clock(event.at)} {event.job_id[:8]} {event.what}")


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
