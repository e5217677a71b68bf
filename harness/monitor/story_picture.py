"""Story as one standalone SVG file, light and dark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.boundary.texts import escaped
from harness.monitor.story_text import detail, failed_by_queue, headline, how, seconds, where_time_went

if TYPE_CHECKING:
    from harness.monitor.story import Part, Story

WIDTH, MARGIN, LANE, TOP = 900, 20, 46, 94
"""Pixels."""
KINDS = {
    "completed": "good", "running": "good", "interrupted": "polite", "paused": "polite", "cancelled": "polite",
    "superseded": "polite",
}  # fmt: skip
STYLE = """
text{font:13px system-ui,sans-serif;fill:#1b1f24}.title{font-size:17px;font-weight:600}.quiet{fill:#57606a}
.back{fill:#fff}.axis{stroke:#d0d7de}.good{fill:#1a7f37}.polite{fill:#9a6700}.harsh{fill:#cf222e}
.wait{fill:#afb8c1}.again{fill:#cf222e}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#9198a1}.back{fill:#0d1117}.axis{stroke:#3d444d}
.good{fill:#3fb950}.polite{fill:#d29922}.harsh,.again{fill:#f85149}.wait{fill:#656c76}}
"""


def svg(story: Story) -> str:
    """Draw a story: a lane for each execution on one time axis; grey is waiting."""
    lanes = [_lane(part, story, TOP + LANE * index) for index, part in enumerate(story.parts)]
    bottom = TOP + LANE * len(lanes)
    shares = "; ".join(f"{words} {seconds(value)}" for words, value in where_time_went(story))
    told = ". ".join(f"Execution {part.epoch}: {how(part)}, {detail(part)}" for part in story.parts)
    height = bottom + 40
    failed = ""
    if story.failure:
        told += f". {failed_by_queue(story.failure)}"
        failed, height = _line(failed_by_queue(story.failure), bottom + 44), height + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">'
        f"<title>{escaped(story.description)}: {escaped(headline(story))}</title><desc>{escaped(told)}</desc>"
        f'<style>{STYLE}</style><rect class="back" width="{WIDTH}" height="{height}"/>'
        f'<text class="title" x="{MARGIN}" y="30">{escaped(story.description)}</text>'
        f'<text x="{MARGIN}" y="52">{escaped(headline(story))}</text>{_axis(story.total_s, bottom)}{"".join(lanes)}'
        f'<text class="quiet" x="{MARGIN}" y="{bottom + 24}">{escaped(shares)}</text>{failed}</svg>\n'
    )


def _x(value: float, whole: float) -> float:
    return round(MARGIN + value / (whole or 1.0) * (WIDTH - 2 * MARGIN), 1)


def _axis(whole: float, bottom: int) -> str:
    right = WIDTH - MARGIN
    return (
        f'<path class="axis" d="M{MARGIN} {TOP - 10}H{right}M{MARGIN} {TOP - 14}V{bottom}"/>'
        f'<path class="axis" d="M{right} {TOP - 14}V{bottom}"/>'
        f'<text class="quiet" x="{MARGIN}" y="{TOP - 18}">0</text>'
        f'<text class="quiet" x="{right}" y="{TOP - 18}" text-anchor="end">{seconds(whole)}</text>'
    )


def _lane(part: Part, story: Story, top: int) -> str:
    whole, start = story.total_s, _x(part.start_s, story.total_s)
    waited = part.start_s - part.waited_s - part.unnoticed_s
    drawn = [_bar("wait", _x(max(0.0, waited), whole), start, top + 9, 4)] if waited < part.start_s else []
    end = max(_x(part.end_s, whole), start + 1.5)
    drawn.append(_bar(KINDS.get(part.outcome, "harsh"), start, end, top, 22))
    if part.repeated and part.items:
        drawn.append(
            _bar("again", start, start + (end - start) * min(1.0, part.repeated / part.items), top + 18, 4)
        )
    return "".join(drawn) + _line(f"{part.epoch}  {how(part)}: {detail(part)}", top + 37)


def _line(words: str, top: int) -> str:
    if len(words) > 120:
        words = words[:119] + "…"
    return f'<text x="{MARGIN}" y="{top}">{escaped(words)}</text>'


def _bar(kind: str, left: float, right: float, top: int, height: int) -> str:
    return (
        f'<rect class="{kind}" x="{left}" y="{top}" width="{max(right - left, 0.5):.1f}" height="{height}"/>'
    )
