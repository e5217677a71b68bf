"""The pictures of the page as SVG files of their own, for a README or slides; they know light and dark too."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING

from harness.boundary.texts import escaped
from harness.report import charts, formatting, svg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.report.comparisons import Comparison, Group

WIDTH, EDGE, TITLE, GAP = 760, 20, 22, 18
"""Pixels: of a picture, of the margin around it, from a title to what is below it, and between two parts."""


def pictures(comparison: Comparison) -> dict[str, str]:
    """Return name and content of each file."""
    parts = formatting.scenarios(comparison)
    timelines = [
        (f"{name}, interrupted by {group.interruption}", svg.timeline(group)) for name, group in _shown(parts)
    ]
    most = charts.most_harm(comparison)
    damage = [
        (f"{name}: items repeated, duplicated, lost in an interrupted run", charts.harm(name, part, most))
        for name, part in parts.items()
    ]
    latencies = [
        (title, picture)
        for title, name in (("Time to stop", "stop_latency_s"), ("Time to resume", "resume_latency_s"))
        if (picture := charts.latencies(comparison, name, title))
    ]
    drawn = {"timelines.svg": timelines, "damage.svg": damage, "latencies.svg": latencies}
    return {name: _file(figures) for name, figures in drawn.items() if figures}


def _shown(parts: dict[str, Comparison]) -> Sequence[tuple[str, Group]]:
    """Choose one interruption of each scenario: of those in which all forms ran, where plain repeated most."""
    chosen = []
    for name, part in parts.items():
        whole = [group for group in part.groups if all(group.of(pattern) for pattern in part.patterns)]
        if whole:
            worst = max(whole, key=lambda group: max((run.repeated for run in group.of("plain")), default=0))
            chosen.append((name, worst))
    return chosen


def _file(figures: Sequence[tuple[str, str]]) -> str:
    top, drawn = EDGE, []
    for title, picture in figures:
        match = re.match(r'<svg class="(\w+)" role="img" width="100%" height="(\d+)">', picture)
        assert match  # noqa: S101 - they are drawn by this package
        kind, height = match[1], int(match[2])
        drawn.append(f'<text class="title" x="{EDGE}" y="{top + 12}">{escaped(title)}</text>')
        place = (
            f'<svg class="{kind}" x="{EDGE}" y="{top + TITLE}" width="{WIDTH - 2 * EDGE}" height="{height}">'
        )
        drawn.append(place + picture[match.end() :])
        top += TITLE + height + GAP
    height = top - GAP + EDGE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}"><title>{escaped("; ".join(title for title, _ in figures))}</title>'
        f'<style>{_style()}</style><rect class="ground" width="100%" height="100%" rx="6"/>{"".join(drawn)}</svg>\n'
    )


def _style() -> str:
    """Take the colours and what is about pictures from the style of the page."""
    style = (files(__package__) / "report.css").read_text(encoding="utf-8")
    colours = style[: style.index("* { box-sizing")]
    rules = "".join(re.findall(r"^svg [^{}]*\{[^{}]*\}\n", style, re.MULTILINE))
    own = (
        "text { font-family: system-ui, sans-serif; }",
        ".ground { fill: var(--paper); }",
        ".title { font-weight: 600; }",
    )
    return colours + rules + "\n".join(own)
