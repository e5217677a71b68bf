"""A comparison as tables for a terminal; 80 columns suffice as long as scenarios have short names."""

from __future__ import annotations

from itertools import zip_longest
from textwrap import wrap
from typing import TYPE_CHECKING

from harness.boundary.texts import printable
from harness.report import formatting

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.report.changes import Change
    from harness.report.comparisons import Comparison
    from harness.report.records import Benchmark
    from harness.report.totals import Totals

WIDTH = 80

_HEAD = ("scenario", "form", "runs", "interruptions", "lost", "duplicated", "repeated", "verdicts")


def text(comparison: Comparison, changes: Sequence[Change] | None = None) -> str:
    """Put the runs of every scenario and form in a row, then the finding, what the forms cost, and what moved.

    :param changes: what moved since another comparison; None where there is no other.
    """
    parts = [_runs(comparison)] if comparison.runs else []
    parts.append("\n".join(wrap(printable(comparison.finding), WIDTH)))
    if comparison.benchmarks:
        parts.append(_benchmarks(comparison))
        if noise := formatting.noise(comparison):
            parts.append("\n".join(wrap(printable(noise), WIDTH)))
    if changes is not None:
        told = [printable(str(change)) for change in changes] or ["nothing"]
        parts.append("\n".join(["Moved beyond noise:", *told]))
    return "\n\n".join(parts)


def _runs(comparison: Comparison) -> str:
    rows: list[Sequence[str]] = [_HEAD]
    for scenario, part in formatting.scenarios(comparison).items():
        rows.append(())
        for pattern in part.patterns:
            rows.extend(_totals(scenario, part.totals(pattern)))
    return _table(rows, left=(0, 1, 7))


def _totals(scenario: str, totals: Totals) -> Iterator[Sequence[str]]:
    counts = (totals.runs, totals.interruptions, totals.lost, totals.duplicated, totals.repeated)
    cells = [printable(scenario), totals.pattern, *(f"{count:,}" for count in counts)]
    for verdict, number in totals.verdicts.items():
        if number:
            yield [*cells, f"{number:,} {verdict}"]
            cells = [""] * len(cells)


def _benchmarks(comparison: Comparison) -> str:
    rows: list[Sequence[str]] = [("scenario", "form", *formatting.BENCHMARK_COLUMNS)]
    rows += [
        (printable(each.scenario), printable(_form(each)), *formatting.benchmark(each))
        for each in comparison.benchmarks
    ]
    return _table(rows, left=(0, 1))


def _form(found: Benchmark) -> str:
    usual = found.durability in {None, "none", "every(seconds=1)"}
    return found.pattern if usual else f"{found.pattern}, {found.durability}"


def _table(rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    lines = (
        " ".join(
            cell.ljust(width) if index in left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=False))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
