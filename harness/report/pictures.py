"""Drawings of the page as SVG files, for a README or slides, in light and dark."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.report import charts
from harness.report.overview import overview
from harness.report.templates import Drawing, render, source
from harness.report.timelines import timeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.report.comparisons import Comparison, Group

WIDTH, EDGE, TITLE, GAP = 760, 20, 22, 18
"""Pixels: width of a file, its margin, from a title to its drawing, and between two drawings."""
SHOWN = 12
"""Maximum number of scenarios in a file."""


def pictures(comparison: Comparison) -> dict[str, str]:
    """Return name and content of each file."""
    parts = dict([*comparison.scenarios.items()][:SHOWN])
    first = overview(comparison)
    timelines = [
        (f"{name}, interrupted by {group.interruption}", timeline(group)) for name, group in _chosen(parts)
    ]
    most = charts.most_harm(comparison)
    damage = [
        (f"{name}: items repeated, duplicated, lost in an interrupted run", charts.harm(name, part, most))
        for name, part in parts.items()
    ]
    latencies = [
        (title, picture)
        for title, name in (("Time to stop", "stop_s"), ("Time to resume", "resume_latency_s"))
        if (picture := charts.latencies(comparison, name, title))
    ]
    drawn = {
        "overview.svg": [first] if first else [],
        "timelines.svg": timelines,
        "damage.svg": damage,
        "latencies.svg": latencies,
    }
    return {name: _file(figures) for name, figures in drawn.items() if figures}


def _chosen(parts: dict[str, Comparison]) -> Iterable[tuple[str, Group]]:
    """Choose one interruption of each scenario: among those with all forms, the one where plain repeated most."""
    for name, part in parts.items():
        whole = [group for group in part.groups if all(group.of(pattern) for pattern in part.patterns)]
        if whole:
            yield (
                name,
                max(whole, key=lambda group: max((run.repeated for run in group.of("plain")), default=0)),
            )


def _file(figures: Sequence[tuple[str, Drawing]]) -> str:
    top, placed = EDGE, []
    for title, picture in figures:
        placed.append({"title": title, "baseline": top + 12, "top": top + TITLE, "drawing": picture})
        top += TITLE + picture.height + GAP
    return render(
        "picture.svg",
        name="; ".join(title for title, _ in figures),
        width=WIDTH,
        height=top - GAP + EDGE,
        edge=EDGE,
        figures=placed,
        style=_style(),
    )


def _style() -> object:
    """Return the colours and the rules for drawings from the style of the page."""
    style = source("report.css")
    colours = style[: style.index("* { box-sizing")]
    return type(style)(colours + "".join(re.findall(r"^svg [^{}]*\{[^{}]*\}\n", style, re.MULTILINE)))
