"""Summary drawings: damage as bars, latencies as dots, ratios as ranges, shares of a whole.

Horizontal positions are per cent of the width, so that a drawing fills its place and its text keeps its size.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from harness.report import formatting
from harness.report.headline import counted
from harness.report.templates import Drawing, drawing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.report.comparisons import Comparison
    from harness.report.records import Benchmark, Run

HARMS = ("repeated", "duplicated", "lost")
ROW, BAR, TEXT = 58, 7, 14
"""Pixels: from form to form, height of a bar, and baseline of the text above."""
STRIP, AXIS = 46, 22
"""Pixels: from strip to strip, and height of the axis."""


def most_harm(comparison: Comparison) -> float:
    """Return the scale of all damage drawings: the maximum average of harmed items in an interrupted run."""
    parts = comparison.scenarios.values()
    return max((mean for part in parts for _, means, _ in _means(part) for mean in means), default=0.0)


def harm(scenario: str, part: Comparison, most: float) -> Drawing:
    """Draw the items that an interrupted run of each form repeated, duplicated and lost, on average.

    :param most: items that fill the width, so that drawings of several scenarios can be compared.
    """
    rows, told = [], []
    for index, (pattern, means, runs) in enumerate(_means(part)):
        figures = ", ".join(f"{name} {_mean(mean)}" for name, mean in zip(HARMS, means, strict=True))
        told.append(f"{pattern}: {figures} a run, over {counted(runs, 'interrupted run')}.")
        top = ROW * index + TEXT
        bars = [
            (name, mean, f"{max(mean / most * 100, 0.4) if mean else 0:.2f}%", top + 6 + number * (BAR + 2))
            for number, (name, mean) in enumerate(zip(HARMS, means, strict=True))
        ]
        shown = [(name, _mean(mean)) for name, mean in zip(HARMS, means, strict=True)]
        rows.append(
            {"pattern": pattern, "runs": counted(runs, "run"), "top": top, "bars": bars, "shown": shown,
             "bad": any(means)}
        )  # fmt: skip
    title = f"{scenario}: items repeated, duplicated and lost in an interrupted run"
    return drawing("damage", ROW * len(rows), title, " ".join(told), rows=rows, bar=BAR)


def latencies(comparison: Comparison, name: str, title: str) -> Drawing | None:
    """Draw a latency of every run as a dot on a logarithmic axis, in a strip for each form and kind of worker.

    :param name: ``stop_s`` or ``resume_latency_s``.
    """
    strips = _strips(comparison, name)
    values = [value for found in strips.values() for value in found]
    if not values:
        return None
    least = math.floor(math.log10(max(min(values), 1e-4)))
    most = max(math.ceil(math.log10(max(*values, 1e-4))), least + 1)

    def at(value: float) -> str:
        return f"{min(max((math.log10(max(value, 1e-4)) - least) / (most - least), 0), 1) * 100:.1f}%"

    ticks = [
        (
            f"{(power - least) / (most - least) * 100:.1f}%",
            "start" if power == least else "end" if power == most else "middle",
            f"{10.0**power:g} s" if power >= 0 else f"{10.0 ** (power + 3):g} ms",
        )
        for power in range(least, most + 1)
    ]
    drawn, told = [], []
    for index, (label, found) in enumerate(strips.items()):
        median = statistics.median(found)
        figures = f"median {formatting.seconds(median)}", f"slowest {formatting.seconds(max(found))}"
        told.append(f"{label}, {counted(len(found), 'run')}: {', '.join(figures)}.")
        # Values at the same place are drawn once.
        dots = dict.fromkeys(at(value) for value in found)
        drawn.append(
            {"top": STRIP * index, "label": label, "figures": figures, "dots": dots, "median": at(median)}
        )
    height = STRIP * len(drawn)
    return drawing(
        "latencies", height + AXIS, title, " ".join(told), strips=drawn, ticks=ticks, bottom=height
    )


def span(benchmarks: Sequence[Benchmark]) -> tuple[float, float]:
    """Return the ends of an axis on which the ranges of all ratios lie, and 1."""
    ends = [end for each in benchmarks for end in (each.ratio_low, each.ratio_high) if end is not None]
    return min([1.0, *ends]) * 0.95, max([1.0, *ends]) * 1.05


def ratio(benchmark: Benchmark, least: float, most: float) -> Drawing | None:
    """Draw a ratio to plain as a dot on its range, on an axis from *least* to *most*; plain itself is a line."""
    middle, low, high = benchmark.ratio_to_plain, benchmark.ratio_low, benchmark.ratio_high
    if middle is None or low is None or high is None:
        return None

    def at(value: float) -> str:
        return f"{(value - least) / (most - least) * 100:.1f}%"

    name = ", ".join(filter(None, (benchmark.scenario, benchmark.pattern, benchmark.durability)))
    told = f"{middle:.2f} times the cost of plain, between {low:.2f} and {high:.2f}."
    return drawing(
        "ratio", 20, f"{name}: ratio to plain", told, one=at(1), low=at(low), high=at(high), middle=at(middle)
    )


def share(part: float, whole: float, title: str) -> Drawing:
    """Draw a part of a whole as a bar."""
    width = f"{part / whole * 100 if whole else 0:.1f}%"
    return drawing("share", 20, title, f"{part:,} of {whole:,}", part=part, width=width)


def _means(part: Comparison) -> list[tuple[str, list[float], int]]:
    found: list[tuple[str, list[float], int]] = []
    for pattern in part.patterns:
        runs = [
            run
            for run in part.runs
            if run.pattern == pattern and run.interrupted and run.outcome != "not hit"
        ]
        if runs:
            means = [statistics.fmean(getattr(run, name) for run in runs) for name in HARMS]
            found.append((pattern, means, len(runs)))
    return found


def _mean(value: float) -> str:
    return f"{value:,.1f}" if value else "0"


def _strips(comparison: Comparison, name: str) -> dict[str, list[float]]:
    strips: dict[str, list[float]] = {}
    for run in sorted(comparison.runs, key=lambda run: comparison.patterns.index(run.pattern)):
        value = getattr(run, name)
        if value is not None:
            strips.setdefault(_strip(run), []).append(value)
    return strips


def _strip(run: Run) -> str:
    where = formatting.worker(run.broker) if run.queue == "rq" else formatting.queue(run.queue)
    return f"{run.pattern}, {where}{', killed' if run.killed else ''}"
