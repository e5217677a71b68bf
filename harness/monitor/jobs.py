"""Lines of the monitor about one job: its id, its progress, its executions, and the cost of a kill."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from harness.monitor.snapshot import JobRow

BARS = (14, 10, 6)
"""Columns of a bar: the first that fits."""
ID, NAME = 36, 30
"""Columns of an id of the usual length, and the minimum for the name of a job."""
STATES = {
    "running": "green", "finished": "cyan", "failed": "bold red", "paused": "yellow", "interrupted": "yellow",
    "delayed": "yellow", "cancelled": "red", "canceled": "red",
}  # fmt: skip
OVER = {"finished", "canceled", "cancelled"}
ITERATION = "each_iteration"
"""Name of the only step of an iteration job, which is not shown."""


def job_lines(row: JobRow, width: int) -> list[Text]:
    """Return a job as lines of at most *width* columns; a long id is wrapped, because other commands need it."""
    drawn = _id_and_bar(row, width)
    story = _story(row)
    if row.state != "running" and not _place(row) and len(row.name) + len(story) + 6 <= width:
        return [*drawn, Text(f"   {row.name}{'  ' if story else ''}").append(story, style="dim")]
    drawn += _title(row, width)
    if story:
        drawn += [Text(line, style="dim") for line in _folded(story, width)]
    if row.at_risk is not None:
        style = "red" if row.moved else "green"
        drawn += [Text(line, style=style) for line in _folded(risk(row), width)]
    if row.silent_s is not None:
        drawn.append(_cut(f"   no sign for {seconds(row.silent_s)}", width, "bold red"))
    return drawn


def risk(row: JobRow) -> str:
    """Return the work that a kill would repeat now, according to its last sign of life.

    It always includes the item in progress: some of its effects may have happened. With
    ``with_transaction()`` its changes of the database are rolled back, and effects elsewhere are repeated.
    """
    verb = (
        "roll back and redo" if row.durability and row.durability.startswith("with_transaction") else "repeat"
    )
    begun = row.step is not None and row.step != ITERATION and row.cursor is None
    what = "step" if begun else "item"
    parts = [_counted(row.at_risk or 0, "item"), _counted(row.steps_at_risk, "step")]
    counted = " and ".join(part for part in parts if part)
    if not row.moved:
        return f"a kill now would {verb} only the {what} in progress"
    lost = counted or "work"
    since = "" if row.at_risk_s is None else f", {seconds(row.at_risk_s)}"
    return f"a kill now would {verb} {lost}{since}, and the {what} in progress"


def seconds(value: float) -> str:
    """Return a duration in a readable unit."""
    if value < 90:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def short(job_id: str) -> str:
    """Return enough of an id to find the job on the same screen."""
    return job_id if len(job_id) <= 12 else f"{job_id[:8]}…"


def _id_and_bar(row: JobRow, width: int) -> list[Text]:
    *ids, last = [row.id[at : at + width - 1] for at in range(0, len(row.id), width - 1)] or [""]
    above = [Text(f" {each}") for each in ids]
    for bar in BARS:
        figures = Text(f"{row.state:<11} ", style=STATES.get(row.state, ""))
        figures.append(_bar(row, bar), style="default")
        figures.rstrip()
        # After an id of the usual length, so that the bars are aligned.
        for column in (ID, len(last)):
            if len(last) <= column and column + 3 + figures.cell_len <= width:
                return [*above, Text(f" {last:<{column}}  ").append(figures)]
    figures.truncate(width - 3, overflow="ellipsis")
    return [*above, Text(f" {last}"), Text("   ").append(figures)]


def _bar(row: JobRow, columns: int) -> str:
    if row.done is None:
        return ""
    # A finished job is complete, even if a crash prevented the count of some items.
    finished = row.state == "finished"
    total = None if finished else row.total
    share = 1.0 if finished else min(row.done / total, 1.0) if total else None
    bar = "" if share is None else ("█" * int(share * columns)).ljust(columns, "░") + " "
    return bar + f"{row.done:,}" + (f"/{total:,}" if total is not None else "" if finished else " items")


def _title(row: JobRow, width: int) -> list[Text]:
    place = _place(row)
    room = width - 3 - (len(place) + 2 if place else 0)
    if len(row.name) <= room or room >= NAME:
        name = row.name if len(row.name) <= room else f"{row.name[: room - 1]}…"
        return [_cut(f"   {name}{'  ' if place else ''}{place}", width)]
    return [_cut(f"   {row.name}", width), *(Text(line) for line in _folded(place, width))]


def _place(row: JobRow) -> str:
    if row.step is None or row.state in OVER:
        return ""
    where = "" if row.step == ITERATION else f"step {row.step}"
    if row.cursor is not None:
        where += f"{', ' if where else ''}cursor {row.cursor}"
    return where


def _story(row: JobRow) -> str:
    told = []
    if row.executions:
        told.append(_counted(row.executions, "execution"))
    if row.rate and row.state == "running":
        told.insert(0, f"{row.rate:,.0f}/s" if row.rate >= 10 else f"{row.rate:.1f}/s")
        if row.left_s is not None:
            told[0] += f", {seconds(row.left_s)} left"
    if row.crashes:
        told[-1] += f", {row.crashes:,} crashed"
    if row.last_end is not None:
        why = f": {row.reason}" if row.reason and row.reason != row.last_end else ""
        told.append(f"last {row.last_end}{why}")
    if row.durability and row.state == "running":
        told.append(row.durability)
    return "; ".join(told)


def _counted(number: int, word: str) -> str:
    return "" if not number else f"{number:,} {word}" + ("" if number == 1 else "s")


def _folded(text: str, width: int) -> list[str]:
    return wrap(text, max(20, width), initial_indent="   ", subsequent_indent="     ")


def _cut(text: str, width: int, style: str = "") -> Text:
    line = Text(text, style=style)
    line.truncate(width, overflow="ellipsis")
    return line
