"""Inline pictures that sum up runs: damage as bars, latencies as dots, shares of a whole.

As in :mod:`harness.report.svg`, positions across are per cent of the width, and each picture has a text
alternative. Text of the class ``spare`` is hidden where space is short.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from harness.boundary.texts import escaped
from harness.report import formatting
from harness.report.headline import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.report.comparisons import Comparison
    from harness.report.records import Run

HARMS = ("repeated", "duplicated", "lost")
ROW, BAR, TEXT = 58, 7, 14
"""Pixels: from form to form, a bar's height, and the baseline of the text above."""
STRIP, AXIS = 46, 22
"""Pixels: from strip to strip, and below them for the axis."""


def most_harm(comparison: Comparison) -> float:
    """Return what the longest bar of all scenarios stands for: items an interrupted run, on average."""
    return max(
        (
            mean
            for part in formatting.scenarios(comparison).values()
            for _, means, _ in _means(part)
            for mean in means
        ),
        default=0.0,
    )


def harm(scenario: str, part: Comparison, most: float) -> str:
    """Draw for each form how many items an interrupted run repeated, duplicated and lost on average.

    :param most: items that fill the width, so that pictures of several scenarios can be compared.
    """
    drawn, told = [], []
    for index, (pattern, means, runs) in enumerate(_means(part)):
        top = ROW * index
        figures = ", ".join(f"{name} {_mean(mean)}" for name, mean in zip(HARMS, means, strict=True))
        shown = ", ".join(
            f'<tspan class="spare">{name} </tspan>{_mean(mean)}'
            for name, mean in zip(HARMS, means, strict=True)
        )
        told.append(f"{pattern}: {figures} a run, over {counted(runs, 'interrupted run')}.")
        drawn.append(
            f'<text class="form" y="{top + TEXT}">{pattern}'
            f'<tspan class="quiet" dx="8">{counted(runs, "run")}</tspan></text>'
            f'<text class="figures{" bad" if any(means) else ""}" x="100%" y="{top + TEXT}">'
            f"{shown if any(means) else 'nothing'}</text>"
        )
        for number, (name, mean) in enumerate(zip(HARMS, means, strict=True)):
            y = top + TEXT + 6 + number * (BAR + 2)
            width = mean / most * 100 if most else 0.0
            drawn.append(f'<rect class="track" width="100%" height="{BAR}" y="{y}"/>')
            if mean:
                drawn.append(f'<rect class="{name}" width="{max(width, 0.4):.2f}%" height="{BAR}" y="{y}"/>')
    title = f"{scenario}: items repeated, duplicated and lost in an interrupted run"
    return _picture("damage", ROW * len(told), title, " ".join(told), "".join(drawn))


def latencies(comparison: Comparison, name: str, title: str) -> str:
    """Draw a latency of every run as a dot on a logarithmic axis, in a strip for each form and kind of worker.

    Who was cut off or killed was not asked to stop, and has no time to stop.

    :param name: ``stop_latency_s`` or ``resume_latency_s``.
    """
    strips = _strips(comparison, name)
    values = [value for _, found in strips for value in found]
    if not values:
        return ""
    least = math.floor(math.log10(max(min(values), 1e-4)))
    most = max(math.ceil(math.log10(max(values))), least + 1)

    def at(value: float) -> str:
        return f"{min(max((math.log10(max(value, 1e-4)) - least) / (most - least), 0), 1) * 100:.1f}%"

    height = STRIP * len(strips)
    drawn = []
    for power in range(least, most + 1):
        side = "start" if power == least else "end" if power == most else "middle"
        x = f"{(power - least) / (most - least) * 100:.1f}%"
        drawn.append(f'<line class="grid" x1="{x}" x2="{x}" y1="20" y2="{height}"/>')
        drawn.append(
            f'<text class="tick" x="{x}" y="{height + 14}" text-anchor="{side}">{_power(power)}</text>'
        )
    told = []
    for index, (label, found) in enumerate(strips):
        top = STRIP * index
        median, slowest = (
            f"median {formatting.seconds(statistics.median(found))}",
            f"slowest {formatting.seconds(max(found))}",
        )
        told.append(f"{label}, {counted(len(found), 'run')}: {median}, {slowest}.")
        drawn.append(
            f'<text class="form" y="{top + TEXT}">{escaped(label)}</text>'
            f'<text class="figures" x="100%" y="{top + TEXT}">{median}<tspan class="spare">, {slowest}</tspan></text>'
        )
        dots = dict.fromkeys(at(value) for value in found)  # what falls on one place is drawn once
        drawn += [f'<circle class="latency" cx="{x}" cy="{top + 30}" r="4"/>' for x in dots]
        x = at(statistics.median(found))
        drawn.append(f'<line class="median" x1="{x}" x2="{x}" y1="{top + 21}" y2="{top + 39}"/>')
    return _picture("latencies", height + AXIS, title, " ".join(told), "".join(drawn))


def share(part: float, whole: float, title: str) -> str:
    """Draw a part of a whole as a bar."""
    told = f"{part:,} of {whole:,}"
    width = part / whole * 100 if whole else 0.0
    bars = '<rect class="track" width="100%" height="8" y="6"/>' + (
        f'<rect class="part" width="{width:.1f}%" height="8" y="6"/>' if part else ""
    )
    return _picture("share", 20, title, told, bars)


def _picture(kind: str, height: int, title: str, told: str, drawn: str) -> str:
    return (
        f'<svg class="{kind}" role="img" width="100%" height="{height}">'
        f"<title>{escaped(title)}</title><desc>{escaped(told)}</desc>{drawn}</svg>"
    )


def _means(part: Comparison) -> list[tuple[str, list[float], int]]:
    found: list[tuple[str, list[float], int]] = []
    for pattern in part.patterns:
        runs = [run for run in part.runs if run.pattern == pattern and run.interruption != "none"]
        if runs:
            found.append(
                (pattern, [statistics.fmean(getattr(run, name) for run in runs) for name in HARMS], len(runs))
            )
    return found


def _mean(value: float) -> str:
    return f"{value:,.1f}" if value else "0"


def _strips(comparison: Comparison, name: str) -> Sequence[tuple[str, list[float]]]:
    strips: dict[str, list[float]] = {}
    for run in sorted(comparison.runs, key=lambda run: comparison.patterns.index(run.pattern)):
        value = getattr(run, name)
        unasked = name == "stop_latency_s" and (run.killed or run.pattern == "plain")
        if value is not None and not unasked:
            strips.setdefault(_strip(run), []).append(value)
    return list(strips.items())


def _strip(run: Run) -> str:
    return f"{run.pattern}, {formatting.worker(run.broker)}{', killed' if run.killed else ''}"


def _power(power: int) -> str:
    return f"{10.0**power:g} s" if power >= 0 else f"{10.0 ** (power + 3):g} ms"
