"""Runs, added up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from harness.report.records import Pattern, Run, Verdict


@dataclass(frozen=True)
class Totals:
    """Some runs of one pattern, added up; the latencies and bytes are the largest seen.

    :ivar repeated_most: the most items that one run repeated. :ivar interrupted: runs that were interrupted at all.
    """

    pattern: Pattern
    runs: int
    interrupted: int
    exactly_once: int
    interruptions: int
    lost: int
    duplicated: int
    duplicated_by_key: int | None
    repeated: int
    repeated_most: int
    verdicts: Mapping[Verdict, int]
    stop_latency_s: float | None
    resume_latency_s: float | None
    progress_bytes: int | None


def add_up(pattern: Pattern, runs: Sequence[Run]) -> Totals:
    """Add up runs of one pattern."""
    verdicts = {verdict: sum(run.verdict == verdict for run in runs) for verdict in get_args(Verdict)}
    return Totals(
        pattern=pattern,
        runs=len(runs),
        interrupted=sum(run.interruption != "none" for run in runs),
        exactly_once=verdicts["exactly once"],
        interruptions=sum(run.interruptions for run in runs),
        lost=sum(run.lost for run in runs),
        duplicated=sum(run.duplicated for run in runs),
        duplicated_by_key=_sum(run.duplicated_by_key for run in runs),
        repeated=sum(run.repeated for run in runs),
        repeated_most=max((run.repeated for run in runs), default=0),
        verdicts=verdicts,
        stop_latency_s=_largest(run.stop_latency_s for run in runs),
        resume_latency_s=_largest(run.resume_latency_s for run in runs),
        progress_bytes=_largest(run.progress_bytes for run in runs),
    )


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _largest(values: Iterable[Any]) -> Any:
    return max((value for value in values if value is not None), default=None)
