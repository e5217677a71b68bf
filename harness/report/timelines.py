"""Timelines of runs.

Horizontal positions are per cent of the width, so that a drawing fills its place and its text keeps its size. Curves
cannot be given in per cent. They lie in boxes of 1000 x 100 units, stretched over the width. Whole units are finer than
a pixel and keep a run with thousands of executions small.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from harness.report import formatting
from harness.report.headline import counted
from harness.report.templates import Drawing, drawing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.report.comparisons import Group
    from harness.report.records import Run

WIDTH, HEIGHT = 1000, 100
"""Units of a stretched box."""
LANE, BAR, LABEL = 54, 22, 15
"""Pixels: from lane to lane, height of a bar, and baseline of the text above it."""
AXIS = 22
"""Pixels below the lanes, for the numbers of the time axis."""


def timeline(group: Group) -> Drawing:
    """Draw the runs of a group below one another on one time axis: the worst of each form and durability.

    A bar is an execution; the area in it rises with the items started; a stroke at its end marks an
    interruption.
    """
    runs = _shown(group)
    end = max((run.timeline.executions[-1].end_s for run in runs), default=0.0) or 1.0
    services = formatting.services(group)
    return drawing(
        "timeline",
        LANE * len(runs) + AXIS,
        f"{group.scenario}, {group.interruption} ({services}): executions over time",
        " ".join(_told(run, group) for run in runs),
        lanes=[_lane(run, group, LANE * index, end) for index, run in enumerate(runs)],
        ticks=axis(end),
        top=LABEL + 8,
        bottom=LANE * len(runs),
        bar=BAR,
        box=f"0 0 {WIDTH} {HEIGHT}",
    )


def axis(end: float) -> list[tuple[str, str, str]]:
    """Return the ticks of a time axis: place, anchor and text."""
    return [
        (
            f"{tick / end * 100:.2f}%",
            "start" if not tick else "end" if tick > 0.9 * end else "middle",
            _tick(tick, end),
        )
        for tick in _ticks(end)
    ]


def _shown(group: Group) -> list[Run]:
    found: dict[tuple[str, str], Run] = {}
    for run in group.runs:
        if run.timeline.executions:
            name = run.pattern, run.durability
            worse = name not in found or formatting.harm(run) > formatting.harm(found[name])
            found[name] = run if worse else found[name]
    return [*found.values()]


def _told(run: Run, group: Group) -> str:
    told = (
        f"{formatting.form(run, group.runs)}: {counted(run.executions, 'execution')} in "
        f"{formatting.seconds(run.elapsed_s)}, {counted(run.interruptions, 'interruption')}, {run.outcome}"
    )
    damage = formatting.damage(run)
    return f"{told} ({damage})." if damage else f"{told}."


def _lane(run: Run, group: Group, top: int, end: float) -> dict[str, Any]:
    outcome = run.outcome
    return {
        "bad": "" if outcome in {"exactly once", "not hit"} else " bad",
        "baseline": top + LABEL,
        "form": formatting.form(run, group.runs),
        "executions": counted(run.executions, "execution"),
        "outcome": f"{formatting.SIGNS[outcome]} {outcome}",
        "box": top + LABEL + 8,
        "curves": _curves(run, end),
    }


def _curves(run: Run, end: float) -> list[tuple[str, str]]:
    """Return class and path of each curve."""

    def across(time: float) -> int:
        return round(min(time / end, 1) * WIDTH)

    # The keys are ordered sets: points on the same unit are drawn once.
    bars, polite, harsh = (dict[str, None]() for _ in range(3))
    areas, lines = [], []
    executions = run.timeline.executions
    counts = [execution.items[-1][1] if execution.items else 0 for execution in executions]
    # The plain form has no checkpoint, so each of its executions begins at the first item.
    before = [0] * len(counts) if run.pattern == "plain" else [0, *accumulate(counts)][:-1]
    most = max(run.items, *(done + count for done, count in zip(before, counts, strict=True)), 1)
    for execution, done in zip(executions, before, strict=True):
        left, right = across(execution.start_s), across(execution.end_s)
        bars[f"M{left} 0H{max(right, left + 1)}V{HEIGHT}H{left}z"] = None
        points = {
            across(time): HEIGHT - round((done + count) / most * HEIGHT) for time, count in execution.items
        }
        if points:
            line = "L".join(f"{x} {y}" for x, y in _straightened(list(points.items()))) + f"H{right}"
            lines.append(f"M{line}")
            areas.append(f"M{min(points)} {HEIGHT}L{line}V{HEIGHT}z")
        if execution.ended == "interrupted":
            polite[f"M{right} 0V{HEIGHT}"] = None
        elif execution.ended != "completed":
            harsh[f"M{right} -15V{HEIGHT + 15}"] = None
    drawn = [("bar", bars), ("area", areas), ("line", lines), ("polite", polite), ("harsh", harsh)]
    return [(name, "".join(parts)) for name, parts in drawn if parts]


def _straightened(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Remove points within a unit and a half of height from the line between others (Douglas-Peucker)."""
    if len(points) < 3:
        return points
    (left, start), (right, end) = points[0], points[-1]
    slope = (end - start) / (right - left)
    farthest = max(
        range(1, len(points) - 1),
        key=lambda index: abs(points[index][1] - start - slope * (points[index][0] - left)),
    )
    x, y = points[farthest]
    if abs(y - start - slope * (x - left)) <= 1.5:
        return [points[0], points[-1]]
    return _straightened(points[: farthest + 1]) + _straightened(points[farthest:])[1:]


def _ticks(end: float) -> Sequence[float]:
    """Choose 3 to 6 round times from 0 to *end*."""
    rough = end / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [step * number for number in range(math.floor(end / step + 1e-9) + 1)]


def _tick(time: float, end: float) -> str:
    if not time:
        return "0"
    return f"{time:g} s" if end >= 1 else f"{time * 1e3:g} ms"
