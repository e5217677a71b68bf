"""Text of figures and verdicts, shared by all outputs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from harness.boundary.texts import escaped
from harness.report.headline import counted
from harness.report.noise import noisy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.report.comparisons import Comparison
    from harness.report.records import Benchmark, Environment, Run, Verdict

NOTHING = DASH = "\N{EN DASH}"
"""Stands where there is no figure, and where a form was not tried."""
TIMES = "\N{MULTIPLICATION SIGN}"

SIGNS: Mapping[Verdict, str] = {
    "exactly once": "✓",
    "duplicated": f"2{TIMES}",
    "lost": "∅",
    "wrong total": "≠",
    "never finished": "…",
    "failed": "!",
}
"""Sign for each verdict, so that colour is never the only difference."""

COLUMNS = {
    "lost": "items whose effect never happened",
    "duplicated": "items whose effect happened more than once",
    "by key": "duplicated items that are left when copies are removed by idempotency key, for effects that carry one",
    "repeated": "items run again, whether or not that showed",
}
"""Meaning of the counted columns."""
NOT_TRIED = "not tried"
"""Meaning of :data:`NOTHING` in the place of a verdict."""

BENCHMARK_COLUMNS = ("an item", "spread", "to plain", f"low{DASH}high")


def seconds(value: float | None) -> str:
    """Put a duration in the unit that suits it: ``2.4 ms``, ``1.30 s``."""
    if value is None:
        return NOTHING
    if value < 0.9995:
        return f"{value * 1e3:.{1 if value < 0.0995 else 0}f} ms"
    return f"{value:,.{2 if value < 9.995 else 0}f} s"


def number(value: int | None) -> str:
    """Put a count."""
    return NOTHING if value is None else f"{value:,}"


def durability(name: str | None) -> str:
    """Put a durability into HTML; none is a dash."""
    return NOTHING if name in {None, "none"} else escaped(str(name))


def size(value: int | None) -> str:
    """Put a number of bytes."""
    return NOTHING if value is None else f"{value:,} B"


def damage(run: Run) -> str:
    """Say how many items were lost, duplicated or, if neither, repeated; the verdict itself is not said again."""
    counts = {"lost": run.lost, "duplicated": run.duplicated}
    found = {what: count for what, count in counts.items() if count} or {"repeated": run.repeated}
    by_key = (
        "" if not run.duplicated or run.duplicated_by_key is None else f", {run.duplicated_by_key:,} by key"
    )
    if list(found) == [run.verdict]:
        return f"{found[run.verdict]:,} of {run.items:,}{by_key}"
    return ", ".join(f"{count:,} {what}" for what, count in found.items() if count) + by_key


def form(run: Run, beside: tuple[Run, ...]) -> str:
    """Return the name of a run's form, with its durability if another run of that form is shown."""
    several = sum(other.pattern == run.pattern for other in beside) > 1
    return f"{run.pattern}, {run.durability}" if several else run.pattern


def benchmark(found: Benchmark) -> tuple[str, str, str, str]:
    """Put the median cost of an item, the spread of its middle half, the ratio to plain, and its range."""
    ratio, low, high = found.ratio_to_plain, found.ratio_low, found.ratio_high
    return (
        f"{found.per_item_us:,.1f} µs",
        f"{found.iqr_s / found.items * 1e6:,.1f} µs",
        NOTHING if ratio is None else f"{ratio:.2f}{TIMES}",
        NOTHING if low is None or high is None else f"{low:.2f}{DASH}{high:.2f}",
    )


def noise(comparison: Comparison) -> str:
    """Say of which scenarios the costs say nothing; an empty text where there is none."""
    told = "; ".join(
        f"{scenario}, whose plain form ranges from {plain.ratio_low:.2f} to {plain.ratio_high:.2f} times itself"
        for scenario, plain in noisy(comparison).items()
    )
    return f"Too noisy to compare: {told}. Measure again on a quiet machine." if told else ""


def worker(broker: str) -> str:
    """Say where the jobs of a broker run."""
    return "one process" if broker == "fakeredis" else "real workers"


def services(broker: str, database: str) -> str:
    """Name what a run worked with."""
    return f"{worker(broker)}: {broker}, {database}"


def environment(found: Environment) -> str:
    """Put in one sentence where the figures were taken."""
    packages = "".join(f", {name} {version}" for name, version in found.packages.items())
    return (
        f"Python {found.python} on {found.platform} with {counted(found.cpus, 'CPU')}{packages}; "
        f"size {found.size}, {seconds(found.pace_s)} an item; {found.generated}."
    )


def scenarios(comparison: Comparison) -> dict[str, Comparison]:
    """Part a comparison by its scenarios, in order: the runs of each are a comparison of their own."""
    names = dict.fromkeys(run.scenario for run in comparison.runs)
    return {
        name: dataclasses.replace(
            comparison, runs=tuple(run for run in comparison.runs if run.scenario == name), benchmarks=()
        )
        for name in names
    }
