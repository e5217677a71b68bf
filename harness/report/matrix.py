"""The matrix of verdicts: a row an interruption, a column a form, a part for each kind of services."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from harness.boundary.texts import escaped
from harness.report import formatting
from harness.report.headline import counted
from harness.report.tables import sign, table

if TYPE_CHECKING:
    from harness.report.comparisons import Comparison, Group
    from harness.report.records import Pattern


def matrix(scenario: str, part: Comparison) -> str:
    """Put the verdicts of a scenario; *part* has its runs alone."""
    columns = "".join(f'<th scope="col">{pattern}</th>' for pattern in part.patterns)
    head = f'<tr><th scope="col">interruption</th>{columns}</tr>'
    bodies = []
    for services, groups in by_services(part).items():
        rows = [_row(group, part) for group in groups]
        if len(by_services(part)) > 1:
            span = len(part.patterns) + 1
            rows.insert(
                0,
                f'<tr><th class="services" scope="rowgroup" colspan="{span}">{escaped(services)}</th></tr>',
            )
        bodies.append(rows)
    caption = f"{escaped(scenario)}<span>{items(part)}</span>"
    return table(f"Verdicts of {scenario}", head, bodies, caption=caption)


def by_services(part: Comparison) -> dict[str, list[Group]]:
    """Set the groups apart by what they worked with."""
    found: dict[str, list[Group]] = {}
    for group in part.groups:
        found.setdefault(formatting.services(group.broker, group.database), []).append(group)
    return dict(sorted(found.items()))


def items(part: Comparison) -> str:
    """Say how many items a scenario has."""
    return " or ".join(counted(each, "item") for each in sorted({run.items for run in part.runs}))


def interruption(name: str) -> str:
    """Put the name of an interruption so that it may be broken into lines, but not before a number."""
    return re.sub(r"([:@])(?!\d)", r"\1<wbr>", escaped(name))


def _row(group: Group, part: Comparison) -> str:
    cells = "".join(f"<td>{_cell(group, pattern)}</td>" for pattern in part.patterns)
    return f'<tr><th scope="row">{interruption(group.interruption)}</th>{cells}</tr>'


def _cell(group: Group, pattern: Pattern) -> str:
    """Render the verdicts of a form; durabilities with the same result share a cell."""
    runs = group.of(pattern)
    found: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        found.setdefault((sign(run.verdict), formatting.damage(run)), []).append(run.durability)
    told = []
    for (verdict, damage), durabilities in found.items():
        details = [damage, ", ".join(durabilities) if len(runs) > 1 else ""]
        told.append(verdict + "".join(f"<small>{escaped(each)}</small>" for each in details if each))
    return "".join(told) or formatting.NOTHING
