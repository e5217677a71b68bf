"""A comparison as the demonstration makes one, without chance or clock: 3 scenarios, 3 forms, 9 stops."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from harness.report import PATTERNS, Comparison, comparison

ITEMS = {"emails": 500, "orders": 61, "reports": 193}
INTERRUPTIONS = (
    "none",
    "count:20",
    "every:7",
    "time:0.5s",
    "progress:40%",
    "flag",
    "after-step:load",
    "signal:TERM@progress:30%",
    "signal:INT@progress:70%",
)
ENVIRONMENT = {
    "python": "3.11.7",
    "platform": "Linux x86_64",
    "cpus": 2,
    "packages": {"rq": "3.0.0", "redis": "8.1.0", "sqlalchemy": "2.1.9", "fakeredis": "2.40.0"},
    "size": "quick",
    "pace_s": 0.003,
    "generated": "2026-08-01T12:00:00+00:00",
}
ITEM_S, PAUSE_S = 0.004, 0.006
RETRIES, POINTS = 3, 40


def sample() -> Comparison:
    """Give the comparison of all runs and benchmarks."""
    return comparison(ENVIRONMENT, runs(), benchmarks())


def showpiece() -> Comparison:
    """Return the sample, killed runs under two durabilities, the cost of those, and an exploration."""
    measured = benchmarks()
    for durability, factor in (("every(items=5)", 1.1), ("with_transaction()", 1.3)):
        entry = benchmark("orders", "steps", ITEMS["orders"] * 3e-4 * factor)
        entry["extra_info"]["durability"] = durability
        measured["benchmarks"].append(entry)
    return comparison(ENVIRONMENT, [*runs(), *killed()], measured, [exploration()])


def killed() -> list[dict[str, Any]]:
    """Give the records of trials with real workers that were killed."""
    name, services = "kill:horse@count:20", {"broker": "redis", "database": "postgresql"}
    doubled = {"verdict": "duplicated", "duplicated": 3, "duplicated_by_key": 0, "repeated": 3}
    return [
        run("emails", "steps", name, durability="every(items=5)", **services, **doubled),
        run("emails", "steps", name, durability="with_transaction()", **services),
        run("orders", "steps", name, durability="every(items=5)", **services),
        run("orders", "plain", name, **services),
    ]


def exploration(**fields: Any) -> dict[str, Any]:
    """Give what the explorer says of a job; *fields* replace what would be in it."""
    found = {
        "scenario": "orders",
        "pattern": "steps",
        "durability": "every(items=5)",
        "verdict": "at least once, repeated ≤ 5",
        "points": 210,
        "states": 64,
        "tried": 48,
        "trials": 120,
        "lines": 9,
        "lines_tried": 8,
        "repeated_most": 5,
        "seconds": 2.5,
    }
    return found | fields


def runs() -> list[dict[str, Any]]:
    """Give the record of every trial, as the lab writes it."""
    return [
        run(scenario, pattern, interruption)
        for scenario in ITEMS
        for pattern in PATTERNS
        for interruption in INTERRUPTIONS
    ]


def run(
    scenario: str = "orders", pattern: str = "plain", interruption: str = "count:20", **fields: Any
) -> dict[str, Any]:
    """Give the record of one trial; *fields* replace what would be in it."""
    items = ITEMS.get(scenario, 61)
    if pattern == "plain":
        lengths, completed = _restarting(items, _stops(interruption, items))
    else:
        lengths, completed = _continuing(items, _stops(interruption, items)), True
    ended = ("cut off" if pattern == "plain" else "interrupted", "completed")
    timeline = _timeline(lengths, completed, ended[0], interruption)
    repeated = sum(lengths) - max(lengths) if pattern == "plain" else 0
    duplicated = (max(lengths[:-1]) if repeated else 0) if completed or not repeated else lengths[0]
    lost = 0 if completed else items - lengths[0]
    broken = "duplicated" if completed else "never finished"
    interrupted = len(lengths) > 1
    record = {
        "scenario": scenario,
        "pattern": pattern,
        "interruption": interruption,
        "durability": "none" if pattern == "plain" else "every(seconds=1)",
        "broker": "fakeredis",
        "database": "sqlite",
        "completed": completed,
        "executions": len(lengths),
        "items": items,
        "lost": lost,
        "duplicated": duplicated,
        "duplicated_by_key": duplicated if scenario == "emails" else None,
        "repeated": repeated,
        "stop_latency_s": 0.0024 if interrupted else None,
        "resume_latency_s": PAUSE_S if interrupted else None,
        "elapsed_s": timeline[-1]["end_s"],
        "progress_bytes": None if pattern == "plain" else 275,
        "verdict": broken if lost or duplicated else "exactly once",
        "checks": {"totals equal the SQL aggregate": not lost and not duplicated},
        "timeline": {"executions": timeline},
    }
    return record | fields


def benchmarks() -> dict[str, Any]:
    """Give what pytest-benchmark writes, with one benchmark that is not of a scenario."""
    costs = {"plain": 1.0, "steps": 1.06, "iteration": 1.04}
    entries = [
        benchmark(scenario, pattern, factor * items * 3e-4)
        for scenario, items in ITEMS.items()
        for pattern, factor in costs.items()
    ]
    return {"benchmarks": [*entries, {"extra_info": {}, "stats": {}}]}


def benchmark(scenario: str, pattern: str, seconds: float) -> dict[str, Any]:
    """Return one benchmark of five rounds around *seconds*."""
    data = [seconds * factor for factor in (0.96, 0.98, 1.0, 1.02, 1.08)]
    return {
        "extra_info": {"scenario": scenario, "pattern": pattern, "items": ITEMS[scenario]},
        "stats": {
            "min": data[0],
            "median": data[2],
            "iqr": data[3] - data[1],
            "rounds": len(data),
            "data": data,
        },
    }


def varying() -> Comparison:
    """Give a comparison whose plain form took from 0.7 to 1.3 of its usual time, and steps twice as long."""
    entries = [
        benchmark("orders", "plain", 0.1),
        benchmark("orders", "steps", 0.2),
        benchmark("orders", "iteration", 0.4),
    ]
    entries[0]["stats"]["data"] = [0.07, 0.07, 0.1, 0.13, 0.13]
    return comparison(ENVIRONMENT, [], {"benchmarks": entries})


def _stops(interruption: str, items: int) -> list[int]:
    """Return the number of items done in all at each request to stop."""
    kind, _, rest = interruption.rpartition("@")[2].partition(":")
    if kind == "every":
        return list(range(int(rest), items, int(rest)))
    share = int(rest.rstrip("%")) if kind == "progress" else 50
    return {"none": [], "count": [20], "time": [25], "after-step": [1]}.get(kind, [items * share // 100])


def _restarting(items: int, stops: list[int]) -> tuple[list[int], bool]:
    if len(stops) <= 1:
        return [*stops, items], True
    return [stops[0]] * (RETRIES + 1), False


def _continuing(items: int, stops: list[int]) -> list[int]:
    return [after - before for before, after in pairwise([0, *stops, items])]


def _timeline(lengths: list[int], completed: bool, ended: str, reason: str) -> list[dict[str, Any]]:
    executions, now = [], 0.0
    for number, length in enumerate(lengths, start=1):
        start, step = now, max(1, -(-length // POINTS))
        now += PAUSE_S + length * ITEM_S
        over = completed and number == len(lengths)
        executions.append(
            {
                "start_s": round(start, 4),
                "end_s": round(now, 4),
                "ended": "completed" if over else ended,
                "reason": None if over else reason,
                "items": [
                    [round(start + PAUSE_S + done * ITEM_S, 4), done + 1] for done in range(0, length, step)
                ],
            }
        )
    return executions
