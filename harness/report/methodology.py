"""Methodology text of the report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from harness.report import formatting
from harness.report.headline import counted

if TYPE_CHECKING:
    from harness.report.comparisons import Comparison

_SIMULATED = (
    "One process: an RQ worker runs the job in the process of the test. No process is killed and no machine "
    "goes away; where a signal is named, a real one is sent to that process.\n"
    "The plain form has no checkpoint. Where a polite stop is asked of it there, the lab cuts it off at that item, as "
    "the end of a grace period would, and RQ's Retry starts it again from item 1, a few times at most.\n"
    "Grace periods and delays before a retry are not waited for, so stops and resumes are quicker there than in "
    "production."
).splitlines()
_SERVICES = {
    "redis": "Real workers: the broker is a Redis server; workers are processes that fork a work horse for each job, "
    "are signalled and killed, and started again. The dead are noticed after 0.6 s here, after 15 s by default. The "
    "plain form is killed where it is signalled, at the end of no grace period.",
    "fakeredis": "One process: the broker is fakeredis, Redis simulated in the memory of that process, "
    "without a server.",
    "sqlite": "sqlite: the database is a file of SQLite, one writer at a time, without a server.",
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


def simulated(comparison: Comparison) -> Iterable[str]:
    """Say what was simulated, and which services were used."""
    used = {run.broker for run in comparison.runs} | {run.database for run in comparison.runs}
    told = _SIMULATED if "fakeredis" in used else []
    return [*told, *(each for name, each in _SERVICES.items() if name in used)]


def interruptions(comparison: Comparison) -> Iterable[tuple[str, str]]:
    """Explain the kinds of interruption that occur."""
    kinds = {group.interruption.partition(":")[0] for group in comparison.groups}
    return [(kind, told) for kind, told in _INTERRUPTIONS.items() if kind in kinds]


def caveats(comparison: Comparison) -> Iterable[str]:
    """Say what the figures do not show."""
    brokers = {run.broker for run in comparison.runs}
    if "fakeredis" in brokers:
        yield (
            "Latencies of trials in one process are those of a queue without a network and without other jobs; "
            "the ones of real workers are of one machine."
        )
    if not any(run.killed for run in comparison.runs):
        yield "No process was killed in these trials: what SIGKILL does is not shown."
    if comparison.benchmarks:
        yield (
            "Costs are of one machine, one database file and items as short as these; only ratios that were taken "
            "in one go can be compared."
        )
    if not comparison.explorations:
        yield "Interruptions came at the places that are named, and not everywhere: nothing was explored."
    yield "A few runs that went well do not prove that all will; one that went wrong proves that it can."


def environment(comparison: Comparison) -> Iterable[tuple[str, str]]:
    """Say where the figures were taken."""
    found = comparison.environment
    yield from (("Python", found.python), ("platform", f"{found.platform}, {counted(found.cpus, 'CPU')}"))
    yield from found.packages.items()
    yield from (
        ("size", found.size),
        ("pace", f"{formatting.seconds(found.pace_s)} an item, added to the work on it"),
    )
    yield "generated", found.generated
