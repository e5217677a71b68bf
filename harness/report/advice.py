"""Advice on the choice of pattern: rules, each with the figures it was applied to."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.report.durabilities import Durable, durables
from harness.report.headline import counted
from harness.report.noise import NOISE, noisy
from harness.report.totals import add_up

if TYPE_CHECKING:
    from harness.report.comparisons import Comparison
    from harness.report.records import Benchmark

GRACE_S = 30
"""Default grace period of a Kubernetes pod, in seconds."""


@dataclass(frozen=True)
class Advice:
    """One rule, applied.

    :ivar question: what it answers. :ivar rule: how. :ivar figures: what it was applied to. :ivar answer: what follows.
    """

    question: str
    rule: str
    figures: str
    answer: str


def advice(comparison: Comparison) -> list[Advice]:
    """Apply all rules for which there are figures."""
    rules = (_plain, _pattern, _durability, _keys, _grace)
    return [given for rule in rules for given in rule(comparison)]


def _plain(comparison: Comparison) -> Iterator[Advice]:
    runs = [run for run in comparison.runs if run.pattern == "plain" and run.interruption != "none"]
    if not runs:
        return
    harmed = sum(run.verdict != "exactly once" for run in runs)
    yield Advice(
        "Is the plain loop enough?",
        "No, if any interrupted run lost or repeated work.",
        f"{harmed} of {counted(len(runs), 'interrupted run')} ended otherwise than exactly once",
        "No, unless doing every item again does no harm, or the job never outlasts the grace period of a deploy."
        if harmed
        else "These runs show no harm.",
    )


def _pattern(comparison: Comparison) -> Iterator[Advice]:
    pairs = []
    for scenario in dict.fromkeys(each.scenario for each in comparison.benchmarks):
        steps, iteration = (_own_cost(comparison, scenario, pattern) for pattern in ("steps", "iteration"))
        if steps and iteration:
            pairs.append((steps, iteration))
    if not pairs:
        return
    too_noisy = noisy(comparison)
    cheaper = {
        steps.scenario: min(steps, iteration, key=lambda each: each.per_item_us).pattern
        for steps, iteration in pairs
        if steps.scenario not in too_noisy and _apart(steps, iteration)
    }
    left = [steps.scenario for steps, _ in pairs if steps.scenario in too_noisy]
    told = "; ".join(
        f"{steps.scenario}: steps {_range(steps)}, iteration {_range(iteration)}"
        + (f", plain {_range(too_noisy[steps.scenario])}" if steps.scenario in left else "")
        for steps, iteration in pairs
    )
    costs = [
        "Cheaper: " + "; ".join(f"{pattern} for {scenario}" for scenario, pattern in cheaper.items())
        if cheaper
        else "",
        "Too noisy to compare: " + ", ".join(left) if left else "",
    ]
    undecided = "" if cheaper or len(left) == len(pairs) else "; the cost does not decide"
    yield Advice(
        "Steps or iteration?",
        "The cheaper one where the ranges of their cost against plain do not overlap; else the one that reads better. "
        f"Where plain ranges more than {NOISE:.0%} about itself, costs are too noisy to compare.",
        told,
        f"Iteration for one thing done to many items, steps for several things done in order{undecided}."
        + "".join(f" {each}." for each in costs if each),
    )


def _durability(comparison: Comparison) -> Iterator[Advice]:
    found = [each for each in durables(comparison) if each.killed and each.pattern != "plain"]
    if not found:
        return
    least = min(each.repeated_most for each in found)
    names = dict.fromkeys(each.durability for each in found if each.repeated_most == least)
    too_noisy = noisy(comparison)
    yield Advice(
        "Which durability?",
        "The cheapest under which a SIGKILL repeats no more than the work can bear.",
        "; ".join(_repeats(each, too_noisy) for each in found)
        + (
            "; costs are too noisy to compare"
            if any(each.cost and each.cost.scenario in too_noisy for each in found)
            else ""
        ),
        f"{' or '.join(names)} repeats least. A graceful stop always saves, whatever the durability.",
    )


def _keys(comparison: Comparison) -> Iterator[Advice]:
    runs = [
        run
        for run in comparison.runs
        if run.pattern != "plain" and run.duplicated and run.duplicated_by_key is not None
    ]
    if not runs:
        return
    duplicated = sum(run.duplicated for run in runs)
    left = sum(run.duplicated_by_key or 0 for run in runs)
    yield Advice(
        "Is an idempotency key needed?",
        "Where an effect that no transaction covers was done twice, and its copies share a key.",
        f"{counted(duplicated, 'effect')} done twice in {counted(len(runs), 'run')}, "
        f"{left:,} when copies are removed by key",
        "Yes, for mails, payments and other effects outside of the database."
        if left < duplicated
        else "The key did not help.",
    )


def _grace(comparison: Comparison) -> Iterator[Advice]:
    runs = [run for run in comparison.runs if run.pattern != "plain" and not run.killed]
    slowest = add_up("steps", runs).stop_latency_s
    if slowest is None:
        return
    yield Advice(
        "How long a grace period?",
        f"Longer than the slowest stop; Kubernetes leaves {GRACE_S} s by default.",
        f"the slowest of {counted(len(runs), 'run')} stopped in {slowest:.3g} s",
        "The default is enough: a stop takes at most the time between two checkpoints."
        if slowest < GRACE_S
        else "A longer one, or checkpoints that lie closer together.",
    )


def _own_cost(comparison: Comparison, scenario: str, pattern: str) -> Benchmark | None:
    """Return the cost under the job's own durability, which is measured first."""
    found = [each for each in comparison.benchmarks if (each.scenario, each.pattern) == (scenario, pattern)]
    own = [each for each in found if each.durability in {None, "every(seconds=1)"}] or found
    return next((each for each in own if each.ratio_to_plain is not None), None)


def _apart(one: Benchmark, other: Benchmark) -> bool:
    ends = one.ratio_low, one.ratio_high, other.ratio_low, other.ratio_high
    low, high, other_low, other_high = (end or 0.0 for end in ends)
    return high < other_low or other_high < low


def _range(found: Benchmark) -> str:
    return f"{found.ratio_low:.2f} to {found.ratio_high:.2f}"


def _repeats(found: Durable, too_noisy: Container[str]) -> str:
    told = f"{found.pattern} under {found.durability} repeated {found.repeated_most:,} at most"
    if found.cost is None or found.cost.scenario in too_noisy:
        return told
    return f"{told}, costs {found.cost.ratio_to_plain:.2f} times plain"
