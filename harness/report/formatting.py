"""Text of figures and verdicts, shared by all outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.report.headline import counted
from harness.report.summaries import noisy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.report.comparisons import Comparison, Group
    from harness.report.records import Benchmark, Environment, Outcome, Run

NOTHING = DASH = "\N{EN DASH}"
"""Placeholder for a missing figure and for a form that was not tried."""
TIMES = "\N{MULTIPLICATION SIGN}"

SIGNS: Mapping[Outcome, str] = {
    "exactly once": "✓",
    "duplicated": f"2{TIMES}",
    "lost": "∅",
    "wrong total": "≠",
    "never finished": "…",
    "failed": "!",
    "not hit": "○",
}
"""Sign for each outcome, so that colour is never the only difference."""
SEVERE = {"lost", "never finished", "failed"}

COLUMNS = {
    "lost": "items whose effect never happened",
    "duplicated": "items whose effect happened more than once",
    "by key": "duplicated items that remain when copies with the same idempotency key are removed",
    "repeated": "items run again, with or without a visible effect",
}
"""Meaning of the counted columns."""
NOT_TRIED = "not tried"
"""Meaning of :data:`NOTHING` as an outcome."""
NOT_HIT = "the interruption did not reach the job, so the run shows nothing"
"""Meaning of the outcome ``not hit``."""

QUEUES = {"rq": "RQ", "celery": "Celery", "dramatiq": "Dramatiq"}
"""Names of queues in sentences."""

BENCHMARK_COLUMNS = ("an item", "spread", "to plain", f"low{DASH}high")


def seconds(value: float | None) -> str:
    """Return a duration in the unit that suits it: ``2.4 ms``, ``1.30 s``."""
    if value is None:
        return NOTHING
    if value < 0.9995:
        return f"{value * 1e3:.{1 if value < 0.0995 else 0}f} ms"
    return f"{value:,.{2 if value < 9.995 else 0}f} s"


def number(value: int | None) -> str:
    """Return a count."""
    return NOTHING if value is None else f"{value:,}"


def times(value: float | None) -> str:
    """Return a ratio, with its sign."""
    return NOTHING if value is None else f"{value:.2f}{TIMES}"


def durability(name: str | None) -> str:
    """Return the name of a durability; a dash for none."""
    return NOTHING if name is None or name == "none" else name


def size(value: int | None) -> str:
    """Return a number of bytes."""
    return NOTHING if value is None else f"{value:,} B"


def harm(run: Run) -> tuple[bool, bool, int, int, int]:
    """Return the severity of a run's end, for comparisons."""
    outcome = run.outcome
    return (
        outcome in SEVERE,
        outcome not in {"exactly once", "not hit"},
        run.lost,
        run.duplicated,
        run.repeated,
    )


def damage(run: Run) -> str:
    """Return the items lost, duplicated or, if neither, repeated; the verdict is not named again."""
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
    """Return the median cost of an item, the spread of its middle half, the ratio to plain, and its range."""
    ratio, low, high = found.ratio_to_plain, found.ratio_low, found.ratio_high
    return (
        f"{found.per_item_us:,.1f} µs",
        f"{found.iqr_s / found.items * 1e6:,.1f} µs",
        times(ratio),
        NOTHING if low is None or high is None else f"{low:.2f}{DASH}{high:.2f}",
    )


def overhead(found: Benchmark) -> tuple[str, str]:
    """Return the nanoseconds an item above a bare loop: the median and its range."""
    bare = found.per_item_us * 1e3 / (found.ratio_to_plain or 1.0)
    low, high = found.ratio_low or 0.0, found.ratio_high or 0.0
    told = f"{max(bare * (low - 1), 0):,.0f}{DASH}{max(bare * (high - 1), 0):,.0f} ns"
    return f"{found.overhead_ns or 0.0:,.0f} ns", told


def noise(comparison: Comparison) -> str:
    """Return the scenarios whose costs are too noisy to compare; an empty text without any."""
    told = "; ".join(
        f"{scenario}, whose plain form ranges from {plain.ratio_low:.2f} to {plain.ratio_high:.2f} times "
        "itself"
        for scenario, plain in noisy(comparison).items()
    )
    return f"Too noisy to compare: {told}. Measure again on a quiet machine." if told else ""


def worker(broker: str) -> str:
    """Return the place where the jobs of a broker run, in words."""
    return "one process" if broker == "fakeredis" else "real workers"


def services(of: Run | Group) -> str:
    """Return the services of a run; the queue is named unless it is RQ."""
    where = worker(of.broker) if of.queue == "rq" else queue(of.queue)
    return f"{where}: {of.broker}, {of.database}"


def queue(name: str) -> str:
    """Return the name of a queue in a sentence."""
    return QUEUES.get(name, name)


def environment(found: Environment) -> str:
    """Return machine, packages and settings of the measurements, in one sentence."""
    packages = "".join(f", {name} {version}" for name, version in found.packages.items())
    return (
        f"Python {found.python} on {found.platform} with {counted(found.cpus, 'CPU')}{packages}; "
        f"size {found.size}, {seconds(found.pace_s)} an item; {found.generated}."
    )


def items(part: Comparison) -> str:
    """Return the number of items of a scenario."""
    return " or ".join(counted(each, "item") for each in sorted({run.items for run in part.runs}))
