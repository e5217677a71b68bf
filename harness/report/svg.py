"""Inline pictures: the timeline of a group of runs, and the ratio of a benchmark.

Positions across are per cent of the width, so that a picture fills the room it is given while its text keeps
its size. Curves cannot be given in per cent; they lie in boxes of 1000 x 100 units, stretched over the width.
Whole units are finer than a pixel and keep a run with thousands of executions small.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING

from harness.boundary.texts import escaped
from harness.report import formatting
from harness.report.headline import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.report.comparisons import Group
    from harness.report.records import Benchmark, Run

WIDTH, HEIGHT = 1000, 100
"""Units of a stretched box."""
LANE, BAR, LABEL = 54, 22, 15
"""Pixels: from lane to lane, a bar's height, and the baseline of the text above it."""
AXIS = 22
"""Pixels below the lanes, for the numbers of the time axis."""


def timeline(group: Group) -> str:
    """Draw the runs of a group under one another on one time axis.

    A bar is an execution; the area in it rises with the items worked on; a stroke at its end interrupts it.
    """
    runs = [run for run in group.runs if run.timeline.executions]
    end = max((run.timeline.executions[-1].end_s for run in runs), default=0.0) or 1.0
    lanes = LANE * len(runs)
    services = formatting.services(group.broker, group.database)
    name = f"{group.scenario}, {group.interruption} ({services}): executions over time"
    return (
        f'<svg class="timeline" role="img" width="100%" height="{lanes + AXIS}">'
        f"<title>{escaped(name)}</title><desc>{escaped(' '.join(_told(run, group) for run in runs))}</desc>"
        f"{_axis(end, lanes)}"
        f"{''.join(_lane(run, group, LANE * index, end) for index, run in enumerate(runs))}</svg>"
    )


def span(benchmarks: Sequence[Benchmark]) -> tuple[float, float]:
    """Return the ends of an axis on which the ranges of all ratios lie, and 1."""
    ends = [end for each in benchmarks for end in (each.ratio_low, each.ratio_high) if end is not None]
    return min([1.0, *ends]) * 0.95, max([1.0, *ends]) * 1.05


def ratio(benchmark: Benchmark, least: float, most: float) -> str:
    """Draw a ratio to plain as a dot on its range, on an axis from *least* to *most*; plain itself is a line."""
    middle, low, high = benchmark.ratio_to_plain, benchmark.ratio_low, benchmark.ratio_high
    if middle is None or low is None or high is None:
        return ""

    def at(value: float) -> str:
        return f"{(value - least) / (most - least) * 100:.1f}%"

    name = ", ".join(filter(None, (benchmark.scenario, benchmark.pattern, benchmark.durability)))
    told = f"{middle:.2f} times the cost of plain, between {low:.2f} and {high:.2f}."
    return (
        '<svg class="ratio" role="img" width="100%" height="20">'
        f"<title>{escaped(name)}: ratio to plain</title><desc>{told}</desc>"
        f'<line class="one" x1="{at(1)}" x2="{at(1)}" y1="0" y2="20"/>'
        f'<line class="range" x1="{at(low)}" x2="{at(high)}" y1="10" y2="10"/>'
        f'<circle class="dot" cx="{at(middle)}" cy="10" r="4"/></svg>'
    )


def _told(run: Run, group: Group) -> str:
    told = (
        f"{formatting.form(run, group.runs)}: {counted(run.executions, 'execution')} in "
        f"{formatting.seconds(run.elapsed_s)}, {counted(run.interruptions, 'interruption')}, {run.verdict}"
    )
    damage = formatting.damage(run)
    return f"{told} ({damage})." if damage else f"{told}."


def _lane(run: Run, group: Group, top: int, end: float) -> str:
    bad = "" if run.verdict == "exactly once" else " bad"
    executions = counted(run.executions, "execution")
    verdict = f"{formatting.SIGNS[run.verdict]} {run.verdict}"
    return (
        f'<text class="form" y="{top + LABEL}">{escaped(formatting.form(run, group.runs))}'
        f'<tspan class="quiet" dx="8">{executions}</tspan></text>'
        f'<text class="verdict{bad}" x="100%" y="{top + LABEL}">{verdict}</text>'
        f'<svg class="lane{bad}" role="presentation" y="{top + LABEL + 8}" width="100%" height="{BAR}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" overflow="visible">'
        f"{_curves(run, end)}</svg>"
    )


def _curves(run: Run, end: float) -> str:
    def across(time: float) -> int:
        return round(min(time / end, 1) * WIDTH)

    # The keys are ordered sets: what falls on the same unit is drawn once.
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
    return "".join(f'<path class="{name}" d="{"".join(parts)}"/>' for name, parts in drawn if parts)


def _straightened(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Leave out points that lie on the line between others, to within a unit and a half of height (Douglas-Peucker)."""
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


def _axis(end: float, lanes: int) -> str:
    ticks = _ticks(end)
    parts = []
    for tick in ticks:
        at = f"{tick / end * 100:.2f}%"
        side = "start" if not tick else "end" if tick > 0.9 * end else "middle"
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{LABEL + 8}" y2="{lanes + 2}"/>')
        parts.append(
            f'<text class="tick" x="{at}" y="{lanes + 16}" text-anchor="{side}">{_tick(tick, end)}</text>'
        )
    return "".join(parts)


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
