"""The tables of the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from harness.boundary.texts import escaped
from harness.report import charts, formatting, svg
from harness.report.changes import Change
from harness.report.durabilities import durables

if TYPE_CHECKING:
    from harness.report.comparisons import Comparison
    from harness.report.records import Run, Verdict
    from harness.report.totals import Totals

_COST = (
    "What a run costs when nothing interrupts it, divided by its items: the median of all rounds, and the spread "
    "of their middle half. The ratio compares medians; low and high compare the nearest and the farthest quartiles. "
    "The dashed line is the plain form; its range to itself is the noise of the measurement. The longer the work on "
    "an item, the nearer the ratios come to 1."
)
SEVERE = {"lost", "never finished", "failed"}


def sign(verdict: Verdict) -> str:
    """Put a verdict with its sign."""
    severity = "none" if verdict == "exactly once" else "much" if verdict in SEVERE else "some"
    shown = f'<span class="sign" aria-hidden="true">{formatting.SIGNS[verdict]}</span>'
    return f'<span class="verdict {severity}">{shown} {verdict}</span>'


def totals(comparison: Comparison) -> str:
    """Add up every form of every scenario."""
    names = (
        "runs",
        "exactly once",
        "interruptions",
        *formatting.COLUMNS,
        "slowest stop",
        "slowest resume",
        "largest progress",
    )
    bodies = [
        [_totals(scenario, part.totals(pattern)) for pattern in part.patterns]
        for scenario, part in formatting.scenarios(comparison).items()
    ]
    return table("Totals", _head(("scenario", "form"), names), bodies, kind="wide")


def _totals(scenario: str, found: Totals) -> str:
    return (
        f'<tr><td>{escaped(scenario)}</td><th scope="row">{found.pattern}</th>'
        + _numbers((found.runs, found.exactly_once, found.interruptions))
        + _harms((found.lost, found.duplicated, found.duplicated_by_key, found.repeated))
        + _numbers(map(formatting.seconds, (found.stop_latency_s, found.resume_latency_s)))
        + _numbers([formatting.size(found.progress_bytes)])
        + "</tr>"
    )


def cost(comparison: Comparison) -> str:
    """Put what every form costs when nothing interrupts it."""
    if not comparison.benchmarks:
        return "<p>Not measured.</p>"
    least, most = svg.span(comparison.benchmarks)
    head = _head(
        ("scenario", "form", "durability"),
        ("items", "rounds", *formatting.BENCHMARK_COLUMNS),
        (f"{least:.2f} to {most:.2f} times plain",),
    )
    bodies: dict[str, list[str]] = {}
    for each in comparison.benchmarks:
        bodies.setdefault(each.scenario, []).append(
            f'<tr><td>{escaped(each.scenario)}</td><th scope="row">{each.pattern}</th>'
            f"<td>{formatting.durability(each.durability)}</td>"
            + _numbers((each.items, each.rounds, *formatting.benchmark(each)))
            + f"<td>{svg.ratio(each, least, most)}</td></tr>"
        )
    noise = (
        f"<p><strong>{escaped(formatting.noise(comparison))}</strong></p>"
        if formatting.noise(comparison)
        else ""
    )
    return f"<p>{_COST}</p>{noise}{table('Cost', head, bodies.values(), kind='wide')}"


def durability(comparison: Comparison) -> str:
    """Render the cost of each durability next to the cost of a SIGKILL under it."""
    found = durables(comparison)
    if not found:
        return "<p>Nothing was killed, and no durability measured.</p>"
    costs = [each.cost for each in found if each.cost is not None]
    least, most = svg.span(costs)
    worst = max(each.repeated_most for each in found)
    head = _head(
        ("durability", "form"),
        ("runs killed", "repeated at most", "duplicated at most", "by key, in all"),
        ("repeated at most", *((f"cost, {least:.2f} to {most:.2f} times plain",) if costs else ())),
    )
    bodies: dict[str, list[str]] = {}
    for each in found:
        told = [str(each.repeated_most), str(each.duplicated_most), formatting.number(each.by_key)]
        measured = each.killed > 0
        name = f"{each.pattern}, {each.durability}: items repeated at most"
        bodies.setdefault(each.durability, []).append(
            f'<tr><th scope="row">{formatting.durability(each.durability)}</th><td>{each.pattern}</td>'
            + _numbers([each.killed, *(told if measured else [formatting.NOTHING] * 3)])
            + f"<td>{charts.share(each.repeated_most, worst, name) if measured else formatting.NOTHING}</td>"
            + (
                f"<td>{svg.ratio(each.cost, least, most) if each.cost else formatting.NOTHING}</td>"
                if costs
                else ""
            )
            + "</tr>"
        )
    return table("Durability", head, bodies.values(), kind="wide")


def explorations(comparison: Comparison) -> str:
    """Put how many of all places an interruption was tried in, and what it showed."""
    if not comparison.explorations:
        return "<p>Not explored: the interruptions of these runs came at the places that are named.</p>"
    head = _head(
        ("scenario", "form", "durability", "verdict"),
        ("points", "states", "lines", "trials", "repeated", "time"),
        ("states tried",),
    )
    bodies: dict[str, list[str]] = {}
    for each in comparison.explorations:
        name = f"{each.scenario} as {each.pattern}, {each.durability}: states that a crash was tried in"
        bodies.setdefault(each.scenario, []).append(
            f'<tr><td>{escaped(each.scenario)}</td><th scope="row">{each.pattern}</th>'
            f"<td>{formatting.durability(each.durability)}</td><td>{escaped(each.verdict)}</td>"
            + _numbers((each.points, f"{each.tried:,} of {each.states:,}"))
            + _numbers((f"{each.lines_tried:,} of {each.lines:,}", each.trials, each.repeated_most))
            + _numbers((formatting.seconds(each.seconds),))
            + f"<td>{charts.share(each.tried, each.states, name)}</td></tr>"
        )
    return table("Exploration", head, bodies.values(), kind="all")


def changes(found: Sequence[Change]) -> str:
    """Put what moved since another comparison."""
    if not found:
        return "<p>Nothing moved beyond noise.</p>"
    head = _head(("", "where", "what", "before", "after"), ())
    rows = [
        f'<tr class="{each.direction}"><th scope="row">{each.direction}</th>'
        + "".join(f"<td>{escaped(text)}</td>" for text in (each.where, each.what, each.before, each.after))
        + "</tr>"
        for each in found
    ]
    return table("Changes", head, [rows], kind="wide")


def runs(comparison: Comparison) -> str:
    """Put every run with all its figures."""
    texts = ("scenario", "form", "interruption", "durability", "services", "verdict")
    numbers = ("executions", "items", *formatting.COLUMNS, "stop", "resume", "elapsed", "progress")
    head = _head(texts, numbers, ("checks that failed",))
    return table("Every run", head, [[_run(run) for run in comparison.runs]], kind="all")


def _run(run: Run) -> str:
    failed = ", ".join(name for name, held in run.checks.items() if not held)
    return (
        f"<tr><td>{escaped(run.scenario)}</td><td>{run.pattern}</td>"
        f'<th scope="row">{escaped(run.interruption)}</th>'
        f"<td>{formatting.durability(run.durability)}</td><td>{escaped(f'{run.broker}, {run.database}')}</td>"
        f"<td>{sign(run.verdict)}</td>"
        + _numbers((run.executions, run.items))
        + _harms((run.lost, run.duplicated, run.duplicated_by_key, run.repeated))
        + _numbers(map(formatting.seconds, (run.stop_latency_s, run.resume_latency_s, run.elapsed_s)))
        + _numbers([formatting.size(run.progress_bytes)])
        + f"<td>{escaped(failed) or formatting.NOTHING}</td></tr>"
    )


def _head(texts: Iterable[str], numbers: Iterable[str], after: Iterable[str] = ()) -> str:
    def cells(names: Iterable[str]) -> str:
        return "".join(f'<th scope="col">{name}</th>' for name in names)

    figures = "".join(f'<th scope="col" class="number">{name}</th>' for name in numbers)
    return f"<tr>{cells(texts)}{figures}{cells(after)}</tr>"


def _numbers(cells: Iterable[str | int]) -> str:
    told = (f"{cell:,}" if isinstance(cell, int) else cell for cell in cells)
    return "".join(f'<td class="number">{each}</td>' for each in told)


def _harms(counts: Iterable[int | None]) -> str:
    told = ((count, formatting.number(count)) for count in counts)
    return "".join(f'<td class="number {"harm" if count else "zero"}">{text}</td>' for count, text in told)


def table(name: str, head: str, bodies: Iterable[Iterable[str]], *, caption: str = "", kind: str = "") -> str:
    """Put a table into a box of its own that scrolls, by keyboard too, where the window is narrower."""
    told = f"<caption>{caption}</caption>" if caption else ""
    rows = "".join(f"<tbody>{''.join(body)}</tbody>" for body in bodies)
    return (
        f'<div class="scroll {kind}" role="region" tabindex="0" aria-label="{escaped(name)}">'
        f"<table>{told}<thead>{head}</thead>{rows}</table></div>"
    )
