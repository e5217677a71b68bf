"""Picture on the first screen: one interruption, the forms on one time axis, and the repeated work."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from harness.report import formatting
from harness.report.headline import counted
from harness.report.templates import Drawing, drawing
from harness.report.timelines import axis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.report.comparisons import Comparison, Group
    from harness.report.records import Execution, Run

LANE, BAR, TEXT, AXIS = 78, 20, 15, 22
"""Pixels: from lane to lane, height of a bar, baseline of the text above it, height of the axis."""
ENDS = {"killed": "SIGKILL", "cut off": "cut off", "interrupted": "stopped", "failed": "failed"}


def overview(comparison: Comparison) -> tuple[str, Drawing] | None:
    """Return title and picture of the interruption in which the plain form repeated most; kills come first."""
    group = chosen(comparison)
    if group is None:
        return None
    patterns = dict.fromkeys(run.pattern for run in group.runs)
    runs = [min(group.of(pattern), key=_preference) for pattern in patterns]
    end = max(run.timeline.executions[-1].end_s for run in runs) or 1.0
    what = "killed (SIGKILL)" if runs[0].killed else f"interrupted ({group.interruption})"
    title = f"{group.scenario}: {counted(runs[0].items, 'item')}, {what}"
    lanes = [_lane(run, LANE * index, end) for index, run in enumerate(runs)]
    bottom = LANE * len(lanes)
    told = " ".join(
        f"{each['form']}, {each['durability']}: {counted(run.executions, 'execution')}, {each['outcome']}."
        for run, each in zip(runs, lanes, strict=True)
    )
    return title, drawing(
        "overview",
        bottom + AXIS,
        f"{title}: the forms on one time axis",
        told,
        lanes=lanes,
        ticks=axis(end),
        bar=BAR,
        bottom=bottom,
    )


def chosen(comparison: Comparison) -> Group | None:
    """Return the group of the picture: a group in which all forms were hit, kills before others."""
    whole = [
        group
        for part in comparison.scenarios.values()
        for group in part.groups
        if len(part.patterns) > 1
        and all(any(run.hit and run.timeline.executions for run in group.of(each)) for each in part.patterns)
    ]
    # The first of equal groups is chosen: it has the name of the first interruption.
    return max(whole, key=lambda group: (group.runs[0].killed, _share(group)), default=None)


def _share(group: Group) -> float:
    """Return the share of the items that the plain form repeated."""
    return max((run.repeated / max(run.items, 1) for run in group.of("plain")), default=0.0)


def _preference(run: Run) -> tuple[Any, ...]:
    """Choose the durability that repeats the least; of equal ones, the strictest."""
    drawable = run.hit and bool(run.timeline.executions)
    return not drawable, formatting.harm(run), not run.durability.startswith("with_transaction")


def _lane(run: Run, top: int, end: float) -> dict[str, Any]:
    def at(moment: float) -> str:
        return f"{min(moment / end, 1) * 100:.2f}%"

    def wide(start: float, stop: float) -> str:
        return f"{max((min(stop, end) - start) / end * 100, 0.2):.2f}%"

    marks = [
        (at(each.end_s), _anchor(each.end_s / end), ENDS[each.ended])
        for each in run.timeline.executions
        if each.ended != "completed"
    ]
    return {
        "form": run.pattern,
        "durability": "no saved progress" if run.pattern == "plain" else run.durability,
        "outcome": _outcome(run),
        "bad": "" if run.outcome == "exactly once" else " bad",
        "text": top + TEXT,
        # After its end a job does not wait for anything.
        "ended": at(run.timeline.executions[-1].end_s if run.verdict != "never finished" else end),
        "top": top + TEXT + 9,
        "segments": [(kind, at(start), wide(start, stop)) for kind, start, stop in _segments(run)],
        # The names of many interruptions would overlap.
        "marks": [
            (place, anchor, name if number < 1 else "") for number, (place, anchor, name) in enumerate(marks)
        ],
        "label": top + TEXT + 9 + BAR + 15,
    }


def _anchor(share: float) -> str:
    return "start" if share < 0.08 else "end" if share > 0.92 else "middle"


def _outcome(run: Run) -> str:
    told = [f"{counted(run.lost, 'item')} lost"] if run.lost else []
    if run.duplicated:
        told.append(f"{counted(run.duplicated, 'item')} done twice")
    elif run.repeated:
        told.append(f"{counted(run.repeated, 'item')} repeated")
    if not told:
        return "every item once" if run.outcome == "exactly once" else run.outcome
    return ", ".join(told)


def _segments(run: Run) -> Iterator[tuple[str, float, float]]:
    """Split each execution into the part that repeats earlier work and the part that continues."""
    reached, left = 0, run.repeated
    for each in run.timeline.executions:
        count = each.items[-1][1] if each.items else 0
        again = min(count, reached) if run.pattern == "plain" else min(count, left) if reached else 0
        start = each.start_s
        if again:
            middle = each.end_s if again >= count else _time_at(each, again)
            yield "again", start, middle
            start = middle
        if start < each.end_s:
            yield "work", start, each.end_s
        reached = max(reached, count) if run.pattern == "plain" else reached + count - again
        left -= again


def _time_at(execution: Execution, items: int) -> float:
    """Return the time when an execution had started a number of items, in seconds."""
    points = [(execution.start_s, 0), *execution.items]
    for (start, before), (stop, after) in pairwise(points):
        if after >= items:
            return start + (stop - start) * (items - before) / max(after - before, 1)
    return execution.end_s
