"""Comparison as one HTML page: it opens from disk, makes no request, and one small script filters and sorts it."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, get_args

from harness.report import charts, formatting, methodology, tables
from harness.report.advice import advice
from harness.report.headline import counted, sentences
from harness.report.overview import overview
from harness.report.queues import queues
from harness.report.records import Outcome
from harness.report.templates import render, source
from harness.report.timelines import timeline

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from harness.report.changes import Change
    from harness.report.comparisons import Comparison

CARDS = 4
"""Number of answers on the first screen."""
DRAWN = 240
"""Maximum number of timelines of a page; those with the most harm are drawn."""


def html(comparison: Comparison, changes: Sequence[Change] | None = None) -> str:
    """Return the page, the finding first.

    :param changes: changes since another comparison; None if there is no other.
    """
    script = source("report.js")
    given = advice(comparison)
    return render(
        "report.html",
        css=source("report.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        finding=sentences(comparison),
        extent=_extent(comparison),
        overview=overview(comparison),
        cards=given[:CARDS],
        more=given[CARDS:],
        compared=changes is not None,
        changes=tables.changes(changes or ()),
        outcomes=get_args(Outcome),
        matrices=[tables.matrix(name, part) for name, part in comparison.scenarios.items()],
        queues=queues(comparison),
        services=tables.services(comparison),
        timelines=_timelines(comparison),
        harm=_harm(comparison),
        totals=tables.totals(comparison),
        latencies=_latencies(comparison),
        patterns=tables.patterns(comparison),
        cost=tables.cost(comparison),
        noise=formatting.noise(comparison),
        durability=tables.durability(comparison),
        explorations=tables.explorations(comparison),
        runs=tables.runs(comparison),
        count=counted(len(comparison.runs), "run"),
        simulated=methodology.simulated(comparison),
        caveats=methodology.caveats(comparison),
        interruptions=methodology.interruptions(comparison),
        environment=methodology.environment(comparison),
        signs=formatting.SIGNS,
        severe=formatting.SEVERE,
        columns=formatting.COLUMNS,
        nothing=formatting.NOTHING,
        not_tried=formatting.NOT_TRIED,
        not_hit=formatting.NOT_HIT,
    )


def _extent(comparison: Comparison) -> str:
    interruptions = {group.interruption for group in comparison.groups} - {"none"}
    told = [
        counted(len(comparison.runs), "run"),
        counted(len(comparison.scenarios), "scenario"),
        counted(len(interruptions), "kind") + " of interruption",
    ]
    if comparison.explorations:
        told.append(
            counted(sum(each.trials for each in comparison.explorations), "trial") + " of the explorer"
        )
    return ", ".join(told) + "."


def _timelines(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the timelines of each scenario, by services."""
    limit = max(DRAWN // max(len(comparison.scenarios), 1), 1)
    found = []
    for name, part in comparison.scenarios.items():
        groups = sorted(part.groups, key=lambda group: max(map(formatting.harm, group.runs)), reverse=True)
        kept = {id(group) for group in groups[:limit]}
        services = {
            label: [(group.interruption, timeline(group)) for group in each if id(group) in kept]
            for label, each in tables.by_services(part).items()
        }
        drawn = sum(map(len, services.values()))
        left = len(groups) - drawn
        found.append(
            {
                "scenario": name,
                "size": formatting.items(part),
                "drawn": counted(drawn, "timeline"),
                "services": {label: each for label, each in services.items() if each},
                "left": f"{counted(left, 'timeline')} with less harm not drawn." if left else "",
            }
        )
    return found


def _harm(comparison: Comparison) -> list[tuple[str, object]]:
    most = charts.most_harm(comparison)
    parts = [*comparison.scenarios.items()][:DRAWN]
    return [(name, charts.harm(name, part, most)) for name, part in parts]


def _latencies(comparison: Comparison) -> list[tuple[str, object]]:
    drawn = (
        ("To stop", charts.latencies(comparison, "stop_s", "time to stop")),
        ("To resume", charts.latencies(comparison, "resume_latency_s", "time to resume")),
    )
    return [(name, picture) for name, picture in drawn if picture]
