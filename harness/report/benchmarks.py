"""Read the measurements of pytest-benchmark from the file that ``--benchmark-json`` writes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.boundary.decoding import malformed, read
from harness.report.records import Benchmark, Pattern


@dataclass(frozen=True)
class _ExtraInfo:
    scenario: str
    pattern: Pattern
    items: int
    durability: str | None = None
    kind: Literal["work", "pattern"] = "work"


@dataclass(frozen=True)
class _Stats:
    min: float
    median: float
    iqr: float
    rounds: int
    data: tuple[float, ...]

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.data) == 1:
            return self.data[0], self.data[0]
        low, _, high = statistics.quantiles(self.data, n=4, method="inclusive")
        return low, high


@dataclass(frozen=True)
class _Entry:
    extra_info: Mapping[str, Any]
    stats: Mapping[str, Any]


@dataclass(frozen=True)
class _File:
    benchmarks: tuple[_Entry, ...]


def benchmarks_from(found: object) -> list[Benchmark]:
    """Read the benchmarks of jobs: those whose ``extra_info`` names a scenario.

    :raises UsageError: naming the field, its value and the allowed values.
    """
    measured: dict[tuple[str, Pattern, str | None], tuple[_ExtraInfo, _Stats]] = {}
    for index, entry in enumerate(read(_File, found, "").benchmarks):
        if "scenario" in entry.extra_info:
            about, stats = _read_entry(entry, f"benchmarks[{index}]")
            key = about.scenario, about.pattern, about.durability
            if key in measured:
                again = f"{about.scenario} as {about.pattern} again"
                malformed(
                    f"benchmarks[{index}].extra_info",
                    again,
                    "one benchmark of each scenario, pattern and durability",
                )
            measured[key] = about, stats
    plain = {about.scenario: stats for about, stats in measured.values() if about.pattern == "plain"}
    return [_benchmark(about, stats, plain.get(about.scenario)) for about, stats in measured.values()]


def _read_entry(entry: _Entry, where: str) -> tuple[_ExtraInfo, _Stats]:
    about: _ExtraInfo = read(_ExtraInfo, entry.extra_info, f"{where}.extra_info")
    stats: _Stats = read(_Stats, entry.stats, f"{where}.stats")
    if not about.items:
        malformed(f"{where}.extra_info.items", about.items, "1 or more")
    if not stats.data or 0 in {stats.median, *stats.data}:
        malformed(f"{where}.stats", entry.stats, "one or more timings, all above 0")
    return about, stats


def _benchmark(about: _ExtraInfo, stats: _Stats, plain: _Stats | None) -> Benchmark:
    low, high = stats.quartiles
    ratios: dict[str, float | None] = dict.fromkeys(("ratio_to_plain", "ratio_low", "ratio_high"))
    if plain is not None:
        plain_low, plain_high = plain.quartiles
        ratios = {
            "ratio_to_plain": stats.median / plain.median,
            "ratio_low": low / plain_high,
            "ratio_high": high / plain_low,
        }
    return Benchmark(
        scenario=about.scenario,
        pattern=about.pattern,
        items=about.items,
        rounds=stats.rounds,
        median_s=stats.median,
        iqr_s=stats.iqr,
        min_s=stats.min,
        per_item_us=stats.median / about.items * 1e6,
        **ratios,
        durability=about.durability,
        kind=about.kind,
    )
