"""Methodology text of the report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from harness.report import formatting
from harness.report.headline import counted

if TYPE_CHECKING:
    from harness.report.comparisons import Comparison

_SIMULATED = (
    "One process: an RQ worker runs the job in the process of the test. No process is killed. A signal is "
    "real and is sent to that process.\nThe plain form has no checkpoint. When it is asked to stop, the "
    "lab stops it at that item, like SIGKILL at the end of a grace period. RQ's Retry starts it again from "
    "item 1, a few times at most.\nThe lab does not wait for grace periods and retry delays, so stops and "
    "resumes are quicker than in production."
).splitlines()
_SERVICES = {
    "rq": "Real workers: the broker is a Redis server. Workers are processes that fork a work horse for each "
    "job. The lab signals, kills and restarts them. It detects crashes sooner than the default settings do. The plain "
    "form is killed when it is signalled, without a grace period. If only the worker is killed, the item in progress "
    "lasts a second longer, so that its work horse notices before the job is over.",
    "celery": "Celery: its own worker with a pool of one process, which is the horse of a kill. The plain form is a "
    "task with acks_late and reject_on_worker_lost. An item in which a signal comes lasts until the job can know it.",
    "dramatiq": "Dramatiq: its own worker with one process of one thread, which is the horse of a kill. The plain form "
    "is an actor with the default options. Dramatiq looks for signals once a second.",
    "rabbitmq": "rabbitmq: the messages are on a RabbitMQ server, the tickets of jobs on a Redis.",
    "fakeredis": "One process: the broker is fakeredis, which simulates Redis in memory, without a server.",
    "sqlite": "sqlite: the database is a file of SQLite, with one writer at a time and without a server.",
}
_INTERRUPTIONS = {
    "none": "no interruption",
    "count": "stopped once, after this number of items",
    "every": "stopped in every execution, after this number of its items",
    "time": "stopped once, at the first checkpoint after this time",
    "progress": "stopped once, after this percentage of all items",
    "flag": "stopped once, by an external flag at half of the work",
    "step": "stopped once, in this step",
    "after-step": "stopped once, between this step and the next",
    "signal": "a real signal to the worker's process, at the place after @",
    "kill": "SIGKILL to the work horse, its worker or both, in the middle of the item at the place after @",
}


def simulated(comparison: Comparison) -> Iterable[str]:
    """Return the simulated parts and the services used."""
    used = {run.broker for run in comparison.runs} | {run.database for run in comparison.runs}
    used |= {run.queue for run in comparison.runs if run.broker != "fakeredis"}
    told = _SIMULATED if "fakeredis" in used else []
    return [*told, *(each for name, each in _SERVICES.items() if name in used)]


def interruptions(comparison: Comparison) -> Iterable[tuple[str, str]]:
    """Return the kinds of interruption in the runs, each with its meaning."""
    kinds = {group.interruption.partition(":")[0] for group in comparison.groups}
    return [(kind, told) for kind, told in _INTERRUPTIONS.items() if kind in kinds]


def caveats(comparison: Comparison) -> Iterable[str]:
    """Return the limits of the figures."""
    brokers = {run.broker for run in comparison.runs}
    if "fakeredis" in brokers:
        yield (
            "Latencies of trials in one process have no network and no other jobs in them. Those of real workers "
            "were measured on one machine."
        )
    if not any(run.killed for run in comparison.runs):
        yield "No process was killed in these trials, so they do not show the effect of SIGKILL."
    if comparison.benchmarks:
        yield (
            "Costs were measured on one machine, with one database file and with short items. Compare only ratios "
            "of the same measurement."
        )
    if not comparison.explorations:
        yield "Nothing was explored: the interruptions came only at the named points."
    yield "Good runs do not prove that all runs are good. One wrong run proves that the job can fail."


def environment(comparison: Comparison) -> Iterable[tuple[str, str]]:
    """Return machine, packages and settings of the measurements."""
    found = comparison.environment
    yield from (("Python", found.python), ("platform", f"{found.platform}, {counted(found.cpus, 'CPU')}"))
    yield from found.packages.items()
    yield from (
        ("size", found.size),
        ("pace", f"{formatting.seconds(found.pace_s)} added to the work on each item"),
    )
    yield "generated", found.generated
