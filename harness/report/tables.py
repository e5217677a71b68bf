"""Tables of a comparison as data: HTML, Markdown and the terminal show the same cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.report import charts, formatting
from harness.report.commands import command
from harness.report.summaries import durables

if TYPE_CHECKING:
    from harness.report.changes import Change
    from harness.report.comparisons import Comparison, Group
    from harness.report.records import Benchmark, Outcome, Pattern, Run
    from harness.report.summaries import Durable, Totals

ROWS = 150
"""Maximum number of rows of a matrix; rows with harm come before others."""


class Entry(NamedTuple):
    """An outcome in a cell, with its details."""

    outcome: Outcome
    details: tuple[str, ...] = ()


class Cell(NamedTuple):
    """A cell: text, outcomes or a drawing.

    :ivar small: second line, in small type. :ivar tone: ``head``, ``number``, ``harm``, ``zero``, ``code`` or nothing.
    """

    text: str = ""
    tone: str = ""
    entries: tuple[Entry, ...] = ()
    drawing: Any = None
    small: str = ""


class Column(NamedTuple):
    """A column. Only the page shows drawn columns."""

    name: str
    number: bool = False
    drawn: bool = False


Row = list[Cell]


@dataclass(frozen=True)
class Part:
    """Rows that belong together, with their title."""

    rows: list[Row]
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    :ivar kind: CSS class. :ivar caption: and :ivar aside: title of the table, and its continuation in small type.
    :ivar note: sentence below the table.
    """

    name: str
    columns: list[Column]
    parts: list[Part]
    kind: str = "wide"
    caption: str = ""
    aside: str = ""
    note: str = ""

    @property
    def rows(self) -> Iterator[Row]:
        """The rows of all parts."""
        return (row for part in self.parts for row in part.rows)


def matrix(scenario: str, part: Comparison) -> Table:
    """Return the outcomes of a scenario: a row for each interruption, a column for each form."""
    columns = [Column("interruption"), *map(Column, part.patterns)]
    kept = set(map(id, _worst(part.groups)))
    parts = [
        Part([_outcomes(group, part) for group in groups if id(group) in kept], services)
        for services, groups in by_services(part).items()
    ]
    left = len(part.groups) - len(kept)
    note = f"{left:,} more interruptions are in the table of all runs." if left else ""
    return Table(
        f"Results of {scenario}",
        columns,
        [each for each in parts if each.rows],
        "results",
        scenario,
        formatting.items(part),
        note,
    )


def by_services(part: Comparison) -> dict[str, list[Group]]:
    """Return the groups by the services they used."""
    found: dict[str, list[Group]] = {}
    for group in part.groups:
        found.setdefault(formatting.services(group), []).append(group)
    return dict(sorted(found.items()))


def services(comparison: Comparison) -> Table | None:
    """Return brokers and databases side by side, if there are several."""
    found: dict[str, list[Run]] = {}
    for run in comparison.runs:
        if run.interrupted:
            found.setdefault(formatting.services(run), []).append(run)
    queues = {run.queue for run in comparison.runs if run.interrupted}
    if len(found) < 2 or len(found) == len(queues):  # the table of queues shows it
        return None
    names = sorted(found)
    rows = [
        [Cell(pattern, "head"), *(Cell(_standing(found[name], pattern)) for name in names)]
        for pattern in comparison.patterns
    ]
    columns = [Column("form"), *map(Column, names)]
    return Table("Queues and databases side by side", columns, [Part(rows)], "")


def totals(comparison: Comparison) -> Table:
    """Return the totals of every form of every scenario."""
    numbers = ("runs", "exactly once", "not hit", "interruptions", *formatting.COLUMNS)
    columns = _columns(("scenario", "form"), (*numbers, "slowest stop", "slowest resume", "largest progress"))
    parts = [
        Part([_totals(scenario, part.totals(pattern)) for pattern in part.patterns])
        for scenario, part in comparison.scenarios.items()
    ]
    return Table("Totals", columns, parts)


def patterns(comparison: Comparison) -> Table | None:
    """Return the cost of the patterns themselves, if it was measured."""
    rows = [
        [
            Cell(each.pattern, "head"),
            Cell(formatting.durability(each.durability)),
            *_numbers((each.items, each.rounds, *formatting.overhead(each))),
        ]
        for each in comparison.of_patterns
        if each.overhead_ns is not None and each.pattern != "plain"
    ]
    columns = _columns(("form", "durability"), ("items", "rounds", "an item", f"low{formatting.DASH}high"))
    return Table("Cost of the pattern itself", columns, [Part(rows)]) if rows else None


def cost(comparison: Comparison) -> Table | None:
    """Return the cost of every form on real work without interruption, if it was measured."""
    found = comparison.on_work
    if not found:
        return None
    least, most = charts.span(found)
    columns = [
        *_columns(("scenario", "form", "durability"), ("items", "rounds", *formatting.BENCHMARK_COLUMNS)),
        Column(f"{least:.2f} to {most:.2f} times plain", drawn=True),
    ]
    parts: dict[str, list[Row]] = {}
    for each in found:
        parts.setdefault(each.scenario, []).append(_cost(each, least, most))
    return Table("Cost on real work", columns, [*map(Part, parts.values())])


def durability(comparison: Comparison) -> Table | None:
    """Return the cost of each durability next to the items that a SIGKILL repeats under it."""
    found = durables(comparison)
    if not found:
        return None
    costs = [each.cost for each in found if each.cost is not None]
    least, most = charts.span(costs)
    worst = max(max(each.repeated_most, each.explored_most or 0) for each in found)
    columns = [
        *_columns(
            ("durability", "form"),
            (
                "runs killed", "repeated at most", "duplicated at most", "by key, in all",
                "repeated in explored crashes", "cost to plain",
            ),
        ),
        Column("most repeated, kill or crash", drawn=True),
        Column(f"cost, {least:.2f} to {most:.2f} times plain", drawn=True),
    ]  # fmt: skip
    explored = any(each.explored_most is not None for each in found)
    parts: dict[str, list[Row]] = {}
    for each in found:
        row = _durability(each, worst, least, most, explored=explored)
        parts.setdefault(each.durability, []).append(row)
    return Table("Durability", columns, [*map(Part, parts.values())])


def explorations(comparison: Comparison) -> Table | None:
    """Return the coverage of all explorations, and their verdicts."""
    if not comparison.explorations:
        return None
    columns = [
        *_columns(("scenario", "form", "durability", "verdict"), ()),
        *_columns((), ("crash points", "states tried", "lines tried", "trials", "repeated at most", "time")),
        Column("share of states tried", drawn=True),
    ]
    parts: dict[str, list[Row]] = {}
    for each in comparison.explorations:
        name = f"{each.scenario} as {each.pattern}, {each.durability}: states in which a crash was tried"
        parts.setdefault(each.scenario, []).append(
            [
                Cell(each.scenario),
                Cell(each.pattern, "head"),
                *map(Cell, (formatting.durability(each.durability), each.verdict)),
                *_numbers((each.points, f"{each.tried:,} of {each.states:,}")),
                *_numbers((f"{each.lines_tried:,} of {each.lines:,}", each.trials, each.repeated_most)),
                *_numbers((formatting.seconds(each.seconds),)),
                Cell(drawing=charts.share(each.tried, each.states, name)),
            ]
        )
    return Table("Crash coverage", columns, [*map(Part, parts.values())], "all")


def changes(found: Sequence[Change]) -> Table | None:
    """Return the changes since another comparison."""
    if not found:
        return None
    rows = [
        [Cell(each.direction, "head"), *map(Cell, (each.where, each.what, each.before, each.after))]
        for each in found
    ]
    return Table("Changes", _columns(("change", "where", "what", "before", "after"), ()), [Part(rows)])


def runs(comparison: Comparison) -> Table:
    """Return every run with all its figures and the command that repeats it."""
    texts = ("scenario", "form", "interruption", "outcome")
    numbers = ("executions", "items", *formatting.COLUMNS, "stop", "resume", "elapsed", "progress")
    columns = [*_columns(texts, numbers), Column("command to repeat it")]
    rows = [_run(run, comparison) for run in comparison.runs]
    return Table("All runs", columns, [Part(rows)], "runs")


def _worst(groups: Sequence[Group]) -> list[Group]:
    """Return the groups that fit into a matrix: those with the most harm, if there are too many."""
    if len(groups) <= ROWS:
        return [*groups]
    return sorted(groups, key=lambda group: max(map(formatting.harm, group.runs)), reverse=True)[:ROWS]


def _outcomes(group: Group, part: Comparison) -> Row:
    cells = (_cell(group, pattern) for pattern in part.patterns)
    return [Cell(group.interruption, "head"), *cells]


def _cell(group: Group, pattern: Pattern) -> Cell:
    """Return the outcomes of a form; durabilities with the same outcome share an entry, and the worst run counts."""
    alike: dict[tuple[Outcome, str], list[Run]] = {}
    runs = group.of(pattern)
    for run in runs:
        alike.setdefault((run.outcome, run.durability), []).append(run)
    entries: dict[tuple[Outcome, str], list[str]] = {}
    for (outcome, durability), found in alike.items():
        name = durability if len(found) == 1 else f"{durability} ({len(found):,} runs)"
        damage = formatting.damage(max(found, key=formatting.harm))
        entries.setdefault((outcome, damage), []).append(name)
    several = len(runs) > 1
    told = (
        Entry(outcome, tuple(filter(None, (damage, ", ".join(names) if several else ""))))
        for (outcome, damage), names in entries.items()
    )
    return Cell("" if runs else formatting.NOTHING, entries=tuple(told))


def _standing(runs: Sequence[Run], pattern: Pattern) -> str:
    found = [run for run in runs if run.pattern == pattern]
    if not found:
        return formatting.NOTHING
    hit = [run for run in found if run.outcome != "not hit"]
    good = sum(run.outcome == "exactly once" for run in hit)
    resume = max((run.resume_latency_s for run in hit if run.resume_latency_s is not None), default=None)
    told = [f"{good:,} of {len(hit):,} exactly once"]
    told += [f"repeated at most {max((run.repeated for run in hit), default=0):,}"]
    told += [f"resumed within {formatting.seconds(resume)}"] if resume is not None else []
    return ", ".join(told)


def _totals(scenario: str, found: Totals) -> Row:
    return [
        Cell(scenario),
        Cell(found.pattern, "head"),
        *_numbers((found.runs, found.exactly_once, found.not_hit, found.interruptions)),
        *_harms((found.lost, found.duplicated, found.duplicated_by_key, found.repeated)),
        *_numbers(map(formatting.seconds, (found.stop_latency_s, found.resume_latency_s))),
        *_numbers([formatting.size(found.progress_bytes)]),
    ]


def _cost(each: Benchmark, least: float, most: float) -> Row:
    return [
        Cell(each.scenario),
        Cell(each.pattern, "head"),
        Cell(formatting.durability(each.durability)),
        *_numbers((each.items, each.rounds, *formatting.benchmark(each))),
        Cell(drawing=charts.ratio(each, least, most)),
    ]


def _durability(each: Durable, worst: int, least: float, most: float, *, explored: bool) -> Row:
    figures = (each.repeated_most, each.duplicated_most, formatting.number(each.by_key))
    ratio = each.cost.ratio_to_plain if each.cost else None
    repeated = max(each.repeated_most, each.explored_most or 0)
    name = f"{each.pattern}, {each.durability}: items repeated at most"
    tried = each.killed or each.explored_most is not None
    drawn = Cell(drawing=charts.share(repeated, worst, name)) if tried else Cell(formatting.NOTHING)
    if explored and tried and each.explored_most is None:
        # A short bar would look like the best of all, because it was tried less.
        drawn = Cell(f"{repeated:,}, not explored")
    return [
        Cell(formatting.durability(each.durability), "head"),
        Cell(each.pattern),
        *_numbers((each.killed, *(figures if each.killed else [formatting.NOTHING] * 3))),
        *_numbers((formatting.number(each.explored_most), formatting.times(ratio))),
        drawn,
        Cell(drawing=charts.ratio(each.cost, least, most)) if each.cost else Cell(formatting.NOTHING),
    ]


def _run(run: Run, comparison: Comparison) -> Row:
    failed = tuple(f"failed check: {name}" for name, held in run.checks.items() if not held)
    return [
        Cell(run.scenario),
        Cell(run.pattern, small="" if run.durability == "none" else run.durability),
        Cell(run.interruption, "head", small=f"{run.queue}, {run.broker}, {run.database}"),
        Cell(entries=(Entry(run.outcome, failed),)),
        *_numbers((run.executions, run.items)),
        *_harms((run.lost, run.duplicated, run.duplicated_by_key, run.repeated)),
        *_numbers(map(formatting.seconds, (run.stop_s, run.resume_latency_s, run.elapsed_s))),
        *_numbers([formatting.size(run.progress_bytes)]),
        Cell(command(run, comparison.environment), "code"),
    ]


def _columns(texts: Iterable[str], numbers: Iterable[str]) -> list[Column]:
    return [*map(Column, texts), *(Column(name, number=True) for name in numbers)]


def _numbers(cells: Iterable[str | int]) -> Iterator[Cell]:
    return (Cell(f"{cell:,}" if isinstance(cell, int) else cell, "number") for cell in cells)


def _harms(counts: Iterable[int | None]) -> Iterator[Cell]:
    return (Cell(formatting.number(count), "harm" if count else "zero") for count in counts)
