"""A comparison as one self-contained HTML page: no script, no request, opens from disk."""

from __future__ import annotations

import re
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from harness.compare import counted
from harness.render import svg, words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.compare import Comparison, Group, Pattern, Run, Totals, Verdict

_SIMULATED = (
    "The worker is an RQ worker that runs the job in the process of the test. No process is killed and no machine "
    "goes away; where a signal is named, a real one is sent to that process.\n"
    "The plain form has no checkpoint. Where a polite stop is asked of it, the lab cuts it off at that item, as "
    "the end of a grace period would, and RQ's Retry starts it again from item 1, a few times at most.\n"
    "Grace periods and delays before a retry are not waited for, so stops and resumes are quicker here than in "
    "production."
).splitlines()
_SERVICES = {
    "redis": "The broker is a Redis server; workers are processes that fork a work horse for each job, are signalled "
    "and killed, and started again. The dead are noticed after 0.6 s here, after 15 s by default. The plain form is "
    "killed where it is signalled, at the end of no grace period.",
    "fakeredis": "The broker is fakeredis: Redis simulated in the memory of that process, without a server.",
    "sqlite": "The database is a file of SQLite: one writer at a time, without a server.",
}
_INTERRUPTIONS = {
    "none": "run undisturbed",
    "count": "stopped once, after so many items",
    "every": "stopped in every execution, after so many items of it",
    "time": "stopped once, at the first checkpoint after so long",
    "progress": "stopped once, after so many per cent of all items",
    "flag": "stopped once, by a flag set from outside while the job is half done",
    "step": "stopped once, in the step of that name",
    "after-step": "stopped once, between the step of that name and the next",
    "signal": "a real signal to the worker's process, where the trigger behind @ fires",
    "kill": "SIGKILL to the work horse, its worker or both, in the middle of the item where the trigger behind @ fires",
}
_COST = (
    "What a run costs when nothing interrupts it, divided by its items: the median of all rounds, and the spread "
    "of their middle half. The ratio compares medians; low and high compare the nearest and the farthest quartiles. "
    "The dashed line is the plain form; its range to itself is the noise of the measurement. The longer the work on "
    "an item, the nearer the ratios come to 1."
)
_SEVERE = {"lost", "never finished", "failed"}


def html(comparison: Comparison) -> str:
    """Put everything on one page: finding, verdicts, totals, timelines, cost, method, and every run."""
    here = files(__package__)
    return Template((here / "report.html").read_text(encoding="utf-8")).substitute(
        css=(here / "report.css").read_text(encoding="utf-8"),
        finding=words.escaped(comparison.finding),
        extent=_extent(comparison),
        signs="".join(f"<li>{_sign(verdict)}</li>" for verdict in words.SIGNS),
        verdicts="".join(_matrix(name, part) for name, part in words.scenarios(comparison).items()),
        columns=_definitions(words.COLUMNS.items()),
        totals=_totals(comparison),
        timelines="".join(_timelines(name, part) for name, part in words.scenarios(comparison).items()),
        cost=_cost(comparison),
        simulated="".join(f"<li>{each}</li>" for each in _simulated(comparison)),
        interruptions=_definitions(_interruptions(comparison)),
        environment=_definitions(_environment(comparison)),
        count=counted(len(comparison.runs), "run"),
        runs=_runs(comparison),
    )


def _extent(comparison: Comparison) -> str:
    interruptions = {group.interruption for group in comparison.groups} - {"none"}
    told = (
        counted(len(comparison.runs), "run"),
        counted(len(words.scenarios(comparison)), "scenario"),
        counted(len(interruptions), "kind") + " of interruption",
    )
    return ", ".join(told) + "."


def _sign(verdict: Verdict) -> str:
    severity = "none" if verdict == "exactly once" else "much" if verdict in _SEVERE else "some"
    sign = f'<span class="sign" aria-hidden="true">{words.SIGNS[verdict]}</span>'
    return f'<span class="verdict {severity}">{sign} {verdict}</span>'


def _matrix(scenario: str, part: Comparison) -> str:
    head = "".join(f'<th scope="col">{pattern}</th>' for pattern in part.patterns)
    rows = "".join(
        f'<tr><th scope="row">{_interruption(group, part)}</th>'
        f"{''.join(f'<td>{_cell(group, pattern)}</td>' for pattern in part.patterns)}</tr>"
        for group in part.groups
    )
    caption = f"{words.escaped(scenario)}<span>{_items(part)}</span>"
    head = f'<tr><th scope="col">interruption</th>{head}</tr>'
    return _table(f"Verdicts of {scenario}", head, f"<tbody>{rows}</tbody>", caption=caption)


def _cell(group: Group, pattern: Pattern) -> str:
    runs = group.of(pattern)
    return "".join(_verdict(run, alone=len(runs) == 1) for run in runs) or words.NOTHING


def _verdict(run: Run, *, alone: bool) -> str:
    details = [words.damage(run), "" if alone else run.durability]
    small = "".join(f"<small>{words.escaped(each)}</small>" for each in details if each)
    return _sign(run.verdict) + small


def _items(part: Comparison) -> str:
    return " or ".join(counted(items, "item") for items in sorted({run.items for run in part.runs}))


def _interruption(group: Group, part: Comparison) -> str:
    name = re.sub(r"([:@])", r"\1<wbr>", words.escaped(group.interruption))
    several = len({(each.broker, each.database) for each in part.groups}) > 1
    return f"{name}<small>{words.escaped(f'{group.broker}, {group.database}')}</small>" if several else name


def _totals(comparison: Comparison) -> str:
    names = (
        "runs",
        "exactly once",
        "interruptions",
        *words.COLUMNS,
        "slowest stop",
        "slowest resume",
        "largest progress",
    )
    head = '<tr><th scope="col">scenario</th><th scope="col">form</th>' + _numbers_head(names) + "</tr>"
    bodies = []
    for scenario, part in words.scenarios(comparison).items():
        rows = [_totals_row(scenario, part.totals(pattern)) for pattern in part.patterns]
        bodies.append(f"<tbody>{''.join(rows)}</tbody>")
    return _table("Totals", head, "".join(bodies), kind="wide")


def _totals_row(scenario: str, totals: Totals) -> str:
    return (
        f'<tr><td>{words.escaped(scenario)}</td><th scope="row">{totals.pattern}</th>'
        + _numbers((totals.runs, totals.exactly_once, totals.interruptions))
        + _harms((totals.lost, totals.duplicated, totals.duplicated_by_key, totals.repeated))
        + _numbers(map(words.seconds, (totals.stop_latency_s, totals.resume_latency_s)))
        + _numbers([words.size(totals.progress_bytes)])
        + "</tr>"
    )


def _timelines(scenario: str, part: Comparison) -> str:
    figures = "".join(
        f"<figure><figcaption>{_interruption(group, part)}</figcaption>{svg.timeline(group)}</figure>"
        for group in part.groups
    )
    return (
        f'<h3>{words.escaped(scenario)}<span>{_items(part)}</span></h3><div class="timelines">{figures}</div>'
    )


def _cost(comparison: Comparison) -> str:
    if not comparison.benchmarks:
        return "<p>Not measured.</p>"
    ends = [
        end for each in comparison.benchmarks for end in (each.ratio_low, each.ratio_high) if end is not None
    ]
    least, most = min([1.0, *ends]) * 0.95, max([1.0, *ends]) * 1.05
    names = ("items", "rounds", *words.BENCHMARK_COLUMNS)
    head = (
        '<tr><th scope="col">scenario</th><th scope="col">form</th>'
        + _numbers_head(names)
        + f'<th scope="col">{least:.2f} to {most:.2f} times plain</th></tr>'
    )
    bodies: dict[str, list[str]] = {}
    for each in comparison.benchmarks:
        bodies.setdefault(each.scenario, []).append(
            f'<tr><td>{words.escaped(each.scenario)}</td><th scope="row">{each.pattern}</th>'
            + _numbers((each.items, each.rounds, *words.benchmark(each)))
            + f"<td>{svg.ratio(each, least, most)}</td></tr>"
        )
    rows = "".join(f"<tbody>{''.join(body)}</tbody>" for body in bodies.values())
    return f"<p>{_COST}</p>{_table('Cost', head, rows, kind='wide')}"


def _simulated(comparison: Comparison) -> Iterable[str]:
    used = {run.broker for run in comparison.runs} | {run.database for run in comparison.runs}
    simulated = _SIMULATED if "fakeredis" in used else []
    return [*simulated, *(told for name, told in _SERVICES.items() if name in used)]


def _interruptions(comparison: Comparison) -> Iterable[tuple[str, str]]:
    kinds = {group.interruption.partition(":")[0] for group in comparison.groups}
    return [(kind, told) for kind, told in _INTERRUPTIONS.items() if kind in kinds]


def _environment(comparison: Comparison) -> Iterable[tuple[str, str]]:
    found = comparison.environment
    yield from (("Python", found.python), ("platform", f"{found.platform}, {counted(found.cpus, 'CPU')}"))
    yield from found.packages.items()
    yield from (
        ("size", found.size),
        ("pace", f"{words.seconds(found.pace_s)} an item, added to the work on it"),
    )
    yield "generated", found.generated


def _runs(comparison: Comparison) -> str:
    texts = ("scenario", "form", "interruption", "durability", "verdict")
    numbers = ("executions", "items", *words.COLUMNS, "stop", "resume", "elapsed", "progress")
    head = (
        "<tr>"
        + "".join(f'<th scope="col">{name}</th>' for name in texts)
        + _numbers_head(numbers)
        + '<th scope="col">checks that failed</th></tr>'
    )
    return _table("Every run", head, f"<tbody>{''.join(map(_run, comparison.runs))}</tbody>", kind="all")


def _run(run: Run) -> str:
    failed = ", ".join(name for name, held in run.checks.items() if not held)
    return (
        f"<tr><td>{words.escaped(run.scenario)}</td><td>{run.pattern}</td>"
        f'<th scope="row">{words.escaped(run.interruption)}</th>'
        f"<td>{words.escaped(run.durability)}</td><td>{_sign(run.verdict)}</td>"
        + _numbers((run.executions, run.items))
        + _harms((run.lost, run.duplicated, run.duplicated_by_key, run.repeated))
        + _numbers(map(words.seconds, (run.stop_latency_s, run.resume_latency_s, run.elapsed_s)))
        + _numbers([words.size(run.progress_bytes)])
        + f"<td>{words.escaped(failed) or words.NOTHING}</td></tr>"
    )


def _numbers_head(names: Iterable[str]) -> str:
    return "".join(f'<th scope="col" class="number">{name}</th>' for name in names)


def _numbers(cells: Iterable[str | int]) -> str:
    told = (f"{cell:,}" if isinstance(cell, int) else cell for cell in cells)
    return "".join(f'<td class="number">{each}</td>' for each in told)


def _harms(counts: Iterable[int | None]) -> str:
    told = ((count, words.NOTHING if count is None else f"{count:,}") for count in counts)
    return "".join(f'<td class="number {"harm" if count else "zero"}">{text}</td>' for count, text in told)


def _definitions(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(
        f"<dt>{words.escaped(term)}</dt><dd>{words.escaped(meaning)}</dd>" for term, meaning in pairs
    )


def _table(name: str, head: str, bodies: str, *, caption: str = "", kind: str = "") -> str:
    """Put a table into a box of its own that scrolls, by keyboard too, where the window is narrower."""
    told = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<div class="scroll {kind}" role="region" tabindex="0" aria-label="{words.escaped(name)}">'
        f"<table>{told}<thead>{head}</thead>{bodies}</table></div>"
    )
