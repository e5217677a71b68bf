"""State of a read for Prometheus.

Labels are names of queues and job classes, never ids, so the number of series is limited.

No label is ``job`` or ``instance``: Prometheus keeps these for the target that it scrapes, and renames
the labels of the page.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from harness.boundary.texts import printable

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from harness.monitor.snapshot import JobRow
    from harness.web.feed import Look

CONTENT_TYPE = CONTENT_TYPE_LATEST
NAMED = 100
"""Maximum number of exported pairs of job class and queue; the rest are summed as ``other``."""

PER_JOB = {
    "harness_jobs_running": "Running jobs, by class and queue.",
    "harness_items_per_second": "Items done per second by the running jobs.",
    "harness_items_at_risk": "Items that a kill of all running jobs would repeat now.",
    "harness_unsaved_seconds": "Longest time since a running job saved its progress.",
    "harness_jobs_silent": "Running jobs without a sign of life for more than 4 seconds.",
    "harness_jobs_crashes": "Crashed executions of the jobs on the page.",
}
"""Metrics of jobs, and their help."""


class _Look(Collector):
    """Metrics of one read."""

    def __init__(self, look: Look, viewers: int) -> None:
        self._look, self._viewers = look, viewers

    def collect(self) -> Iterable[Metric]:
        """Yield them."""
        look, snapshot = self._look, self._look.snapshot
        yield _gauge(
            "harness_redis_up", "1 if Redis answered the latest read, else 0.", 0.0 if look.error else 1.0
        )
        yield _gauge("harness_look_seconds", "Duration of the latest read of Redis.", look.took_s)
        yield _gauge("harness_web_viewers", "Open pages.", self._viewers)
        if snapshot is None or look.error:
            return  # an earlier snapshot is not a current measurement
        jobs = GaugeMetricFamily("harness_queue_jobs", "Jobs of a queue by place.", labels=("queue", "place"))
        for queue, counts in snapshot.queues.items():
            for place, number in counts.items():
                jobs.add_metric((printable(queue), place), number)
        yield jobs
        workers = GaugeMetricFamily("harness_workers", "Workers by state.", labels=("state",))
        states: dict[str, int] = defaultdict(int, busy=0, idle=0)
        for worker in snapshot.workers:
            states[worker.state] += 1
        for state, number in states.items():
            workers.add_metric((printable(state),), number)
        yield workers
        yield _gauge("harness_workers_silent", "Busy workers without a sign of life.", len(snapshot.silent))
        yield _gauge("harness_left_out", "Records that cannot be read.", len(snapshot.left_out))
        yield from _of_jobs(snapshot.jobs)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _of_jobs(rows: Iterable[JobRow]) -> Iterable[Metric]:
    values: dict[str, dict[tuple[str, str], float]] = {name: defaultdict(float) for name in PER_JOB}
    known: dict[tuple[str, str], None] = {}
    for row in rows:
        labels = printable(row.name.partition("(")[0])[:100] or "unknown", printable(row.queue)
        if labels not in known and len(known) >= NAMED:
            labels = "other", "other"
        known[labels] = None
        values["harness_jobs_crashes"][labels] += row.crashes
        if row.state != "running":
            continue
        values["harness_jobs_running"][labels] += 1
        values["harness_items_per_second"][labels] += row.rate or 0.0
        values["harness_items_at_risk"][labels] += row.at_risk or 0
        unsaved = values["harness_unsaved_seconds"]
        unsaved[labels] = max(unsaved[labels], row.at_risk_s or 0.0)
        values["harness_jobs_silent"][labels] += row.silent_s is not None
    for name, text in PER_JOB.items():
        family = GaugeMetricFamily(name, text, labels=("job_class", "queue"))
        for labels, value in values[name].items():
            family.add_metric(labels, value)
        yield family


class Metrics:
    """Metrics of the page: reads, and the actions since the start of the process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._actions = Counter(
            "harness_web_actions", "Actions on the page.", ("action", "result"), registry=self._registry
        )

    def count(self, action: str, *, refused: bool) -> None:
        """Count an action."""
        self._actions.labels(action, "refused" if refused else "done").inc()

    def text(self, look: Look, viewers: int) -> bytes:
        """Return the text for Prometheus."""
        registry = CollectorRegistry()
        registry.register(_Look(look, viewers))
        return bytes(generate_latest(registry) + generate_latest(self._registry))
