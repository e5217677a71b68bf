"""Comparison table of queues: the same interruptions on each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.report import charts, formatting
from harness.report.records import PATTERNS
from harness.report.tables import Cell, Column, Entry, Part, Row, Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.report.comparisons import Comparison
    from harness.report.records import Outcome, Pattern, Run


def queues(comparison: Comparison) -> Table | None:
    """Return a part for each interruption with runs on several queues: their forms, and each form by queue."""
    found: dict[str, dict[tuple[Pattern, str], dict[str, list[Run]]]] = {}
    for run in sorted(comparison.runs, key=_order):
        if run.interrupted:
            forms = found.setdefault(run.interruption, {})
            form = forms.setdefault((run.pattern, run.durability), {})
            form.setdefault(_where(run), []).append(run)
    longest = max((run.resume_latency_s or 0.0 for run in comparison.runs if run.interrupted), default=0.0)
    parts = [
        Part(
            [
                _row(pattern, durability, where, runs, longest)
                for (pattern, durability), queues in forms.items()
                for where, runs in queues.items()
            ],
            interruption,
        )
        for interruption, forms in found.items()
        if len({run.queue for queues in forms.values() for runs in queues.values() for run in runs}) > 1
    ]
    if not parts:
        return None
    columns = [
        *map(Column, ("form", "queue", "outcome")),
        *(Column(name, number=True) for name in ("runs", "repeated", "stop", "resume")),
        Column("resume, to scale", drawn=True),
    ]
    return Table("Queues side by side", columns, parts, "all")


def _order(run: Run) -> tuple[object, ...]:
    queue = (
        list(formatting.QUEUES).index(run.queue) if run.queue in formatting.QUEUES else len(formatting.QUEUES)
    )
    return run.interruption, PATTERNS.index(run.pattern), run.durability, queue, run.queue, run.broker


def _where(run: Run) -> str:
    return f"{formatting.queue(run.queue)}, {run.broker}"


def _row(pattern: str, durability: str, where: str, runs: Sequence[Run], longest: float) -> Row:
    resume = _largest(run.resume_latency_s for run in runs)
    outcomes = list(dict.fromkeys(run.outcome for run in sorted(runs, key=formatting.harm, reverse=True)))
    repeated = max(run.repeated for run in runs)
    name = f"{pattern} on {where}: time to resume"
    return [
        Cell(pattern, "head", small="" if durability == "none" else durability),
        Cell(where),
        Cell(", ".join(outcomes), entries=tuple(_entry(outcome, runs) for outcome in outcomes)),
        Cell(f"{len(runs):,}", "number"),
        Cell(f"{repeated:,}", "harm" if repeated and pattern == "plain" else "number"),
        Cell(formatting.seconds(_largest(run.stop_s for run in runs)), "number"),
        Cell(formatting.seconds(resume), "number"),
        Cell(formatting.NOTHING if resume is None else "", drawing=_bar(resume, longest, name)),
    ]


def _entry(outcome: Outcome, runs: Sequence[Run]) -> Entry:
    number = sum(run.outcome == outcome for run in runs)
    return Entry(outcome, () if number == len(runs) else (f"{number:,} of {len(runs):,} runs",))


def _bar(resume: float | None, longest: float, name: str) -> object | None:
    return None if resume is None else charts.share(round(resume, 2), round(longest, 2), name)


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
