"""A comparison as one self-contained HTML page: no script, no request, opens from disk."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, get_args

from harness.boundary.texts import escaped
from harness.report import charts, formatting, methodology, svg, tables
from harness.report.advice import advice
from harness.report.changes import Change
from harness.report.headline import counted
from harness.report.matrix import by_services, interruption, items, matrix
from harness.report.records import Verdict

if TYPE_CHECKING:
    from harness.report.comparisons import Comparison


def html(comparison: Comparison, changes: Sequence[Change] | None = None) -> str:
    """Put everything on one page, the finding first.

    :param changes: what moved since another comparison; None where there is no other.
    """
    here = files(__package__)
    parts = formatting.scenarios(comparison)
    sections = {
        "changes": "" if changes is None else tables.changes(changes),
        "verdicts": "".join(matrix(name, part) for name, part in parts.items()),
        "timelines": "".join(_timelines(name, part) for name, part in parts.items()),
        "totals": tables.totals(comparison),
        "harm": _harm(comparison),
        "latencies": _latencies(comparison),
        "cost": tables.cost(comparison),
        "durability": tables.durability(comparison),
        "explorations": tables.explorations(comparison),
        "advice": _advice(comparison),
        "runs": tables.runs(comparison),
    }
    page = Template((here / "report.html").read_text(encoding="utf-8")).substitute(
        sections,
        css=(here / "report.css").read_text(encoding="utf-8"),
        finding=_finding(comparison),
        extent=_extent(comparison),
        signs=_signs(),
        columns=_definitions(formatting.COLUMNS.items()),
        simulated=_list(methodology.simulated(comparison)),
        caveats=_list(methodology.caveats(comparison)),
        interruptions=_definitions(methodology.interruptions(comparison)),
        environment=_definitions(methodology.environment(comparison)),
        count=counted(len(comparison.runs), "run"),
    )
    return page if changes is not None else _without_changes(page)


def _signs() -> str:
    """Explain what stands in the cells of the matrix, in its order: verdicts, no verdict, and the small print."""
    told = [tables.sign(verdict) for verdict in get_args(Verdict)]
    told += [
        f"{formatting.NOTHING} {formatting.NOT_TRIED}",
        f"<b>by key</b> {escaped(formatting.COLUMNS['by key'])}",
    ]
    return "".join(f"<li>{each}</li>" for each in told)


def _finding(comparison: Comparison) -> str:
    """Set what came of polite stops large, and what follows it in the sentence smaller."""
    first, *more = map(escaped, re.split("(?<=;) ", comparison.finding))
    return " ".join([first, *(f"<span>{clause}</span>" for clause in more)])


def _without_changes(page: str) -> str:
    """Take out what is about changes, between the two marks that the template has around it."""
    while "<!--changes-->" in page:
        before, _, rest = page.partition("<!--changes-->")
        page = before + rest.partition("<!--/changes-->")[2]
    return page


def _extent(comparison: Comparison) -> str:
    interruptions = {group.interruption for group in comparison.groups} - {"none"}
    told = (
        counted(len(comparison.runs), "run"),
        counted(len(formatting.scenarios(comparison)), "scenario"),
        counted(len(interruptions), "kind") + " of interruption",
    )
    return ", ".join(told) + "."


def _timelines(scenario: str, part: Comparison) -> str:
    told = [f"<h3>{escaped(scenario)}<span>{items(part)}</span></h3>"]
    for services, groups in by_services(part).items():
        figures = "".join(
            f"<figure><figcaption>{interruption(group.interruption)}</figcaption>{svg.timeline(group)}</figure>"
            for group in groups
        )
        told.append(f'<p class="services">{escaped(services)}</p><div class="timelines">{figures}</div>')
    return "".join(told)


def _harm(comparison: Comparison) -> str:
    most = charts.most_harm(comparison)
    figures = "".join(
        f"<figure><figcaption>{escaped(name)}</figcaption>{charts.harm(name, part, most)}</figure>"
        for name, part in formatting.scenarios(comparison).items()
    )
    return f'<div class="timelines">{figures}</div>'


def _latencies(comparison: Comparison) -> str:
    drawn = {
        "To stop": charts.latencies(comparison, "stop_latency_s", "time to stop"),
        "To resume": charts.latencies(comparison, "resume_latency_s", "time to resume"),
    }
    figures = "".join(
        f"<figure><figcaption>{name}</figcaption>{picture}</figure>"
        for name, picture in drawn.items()
        if picture
    )
    return f'<div class="timelines wide">{figures}</div>' if figures else "<p>Nothing was interrupted.</p>"


def _advice(comparison: Comparison) -> str:
    return "".join(
        f"<div><h3>{escaped(each.question)}</h3><p>{escaped(each.answer)}</p>"
        f'<p class="quiet"><b>Rule</b> {escaped(each.rule)} <b>Figures</b> {escaped(each.figures)}.</p>'
        "</div>"
        for each in advice(comparison)
    )


def _list(told: Iterable[str]) -> str:
    return "".join(f"<li>{escaped(each)}</li>" for each in told)


def _definitions(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<dt>{escaped(term)}</dt><dd>{escaped(meaning)}</dd>" for term, meaning in pairs)
