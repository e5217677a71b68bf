"""Advice on the choice of pattern: rules, each with the figures it was applied to."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.report.formatting import NOTHING as DASH
from harness.report.headline import counted, listed
from harness.report.records import PATTERNS
from harness.report.summaries import NOISE, Tried, add_up, durables, most_repeated, noisy, safest

if TYPE_CHECKING:
    from harness.report.comparisons import Comparison
    from harness.report.records import Benchmark

GRACE_S = 30
"""Default grace period of a Kubernetes pod, in seconds."""


@dataclass(frozen=True)
class Advice:
    """Result of one rule.

    :ivar short: short answer. :ivar answer: answer in sentences. :ivar figures: data of the answer.
    """

    question: str
    short: str
    answer: str
    figures: str
    rule: str


def advice(comparison: Comparison) -> list[Advice]:
    """Return the answers of all rules with figures."""
    rules = (_plain, _pattern, _durability, _grace, _keys)
    return [given for rule in rules for given in rule(comparison)]


def _plain(comparison: Comparison) -> Iterator[Advice]:
    runs = [run for run in comparison.runs if run.pattern == "plain" and run.interrupted]
    runs = [run for run in runs if run.outcome != "not hit"]
    explored = [each for each in comparison.explorations if each.pattern == "plain"]
    if not runs and not explored:
        return
    harmed = sum(run.outcome != "exactly once" for run in runs)
    broken = sum(each.verdict != "exactly once" for each in explored)
    figures = [f"{harmed} of {counted(len(runs), 'interrupted run')} lost or repeated work"] if runs else []
    if explored:
        figures.append(f"the explorer broke {broken} of {counted(len(explored), 'plain job')}")
    yield Advice(
        "Is a plain loop enough?",
        "No" if harmed or broken else "These runs show no harm",
        "Only if repeating every item does no harm, or if the job always ends within the grace period of a "
        "deploy."
        if harmed or broken
        else "More interruptions may still find some.",
        "; ".join(figures),
        "No, if any interrupted run or crash lost or repeated work.",
    )


def _pattern(comparison: Comparison) -> Iterator[Advice]:
    patterns = [name for name in PATTERNS if name != "plain"]
    pairs = []
    for scenario in dict.fromkeys(each.scenario for each in comparison.on_work):
        steps, iteration = (_own_cost(comparison, scenario, pattern) for pattern in patterns)
        if steps and iteration:
            pairs.append((steps, iteration))
    tried = {run.pattern for run in comparison.runs if run.outcome != "not hit"}
    if not pairs and not tried.issuperset(patterns):
        return
    bad = _broken(comparison)
    too_noisy = noisy(comparison)
    cheaper = {
        steps.scenario: min(steps, iteration, key=lambda each: each.per_item_us).pattern
        for steps, iteration in pairs
        if steps.scenario not in too_noisy and _apart(steps, iteration)
    }
    left = [steps.scenario for steps, _ in pairs if steps.scenario in too_noisy]
    answer = ["Use iteration for one action on many items, and steps for several actions in order."]
    answer += [f"Not {name}: it lost or did not finish work." for name in bad]
    if cheaper:
        named = "; ".join(f"{pattern} for {scenario}" for scenario, pattern in cheaper.items())
        answer.append(f"Cheaper: {named}.")
    elif not pairs:
        answer.append("The cost was not measured.")
    elif len(left) < len(pairs):
        answer.append("The cost does not decide.")
    if left:
        answer.append(f"Too noisy to compare: {', '.join(left)}.")
    good = [name for name in patterns if name not in bad]
    yield Advice(
        "Which pattern?",
        {2: "Choose by the work", 1: good[0].capitalize() if good else "", 0: "Neither"}[len(good)],
        " ".join(answer),
        _costs_of_patterns(comparison, pairs, [too_noisy[name] for name in left])
        or _good_runs(comparison, patterns),
        "A pattern that lost work is excluded. The cheaper one wins if the ranges of the costs do not overlap, "
        "and neither is below that of plain, which does less. Costs are too noisy to compare where plain "
        f"varies by more than {NOISE:.0%}.",
    )


def _costs_of_patterns(
    comparison: Comparison, pairs: Sequence[tuple[Benchmark, Benchmark]], noise: Sequence[Benchmark]
) -> str:
    """Return the costs of the patterns themselves and on real work, each over all scenarios."""
    own = [
        f"{each.pattern} {each.overhead_ns:,.0f} ns"
        for each in comparison.of_patterns
        if each.overhead_ns is not None and each.pattern != "plain"
    ]
    parts = [f"Cost of the pattern itself, an item: {', '.join(own)}"] if own else []
    if pairs:
        each_of = zip(*pairs, strict=True)
        ratios = [f"{found[0].pattern} {_over_all(found)}" for found in each_of]
        parts.append(f"cost of whole runs, times plain: {', '.join(ratios)}")
    parts += [f"Noise of {each.scenario}: plain {_range(each)}" for each in noise]
    return "; ".join(parts)


def _over_all(found: Sequence[Benchmark]) -> str:
    ratios = [each.ratio_to_plain or 0.0 for each in found]
    ends = dict.fromkeys(f"{end:.2f}" for end in (min(ratios), max(ratios)))
    return " to ".join(ends)


def _good_runs(comparison: Comparison, patterns: Sequence[str]) -> str:
    """Return the number of interrupted runs of each pattern that ended exactly once."""
    parts = []
    for pattern in patterns:
        runs = [run for run in comparison.runs if run.pattern == pattern and run.interrupted]
        runs = [run for run in runs if run.outcome != "not hit"]
        good = sum(run.outcome == "exactly once" for run in runs)
        parts.append(f"{pattern} in {good:,} of {counted(len(runs), 'interrupted run')}")
    return f"Exactly once: {'; '.join(parts)}"


def _durability(comparison: Comparison) -> Iterator[Advice]:
    found = most_repeated(comparison)
    if not found:
        return
    best = safest(found)
    least = _scenarios([found[name] for name in best])
    explored = {name for name in found if any(kind == "explored" for kind, _ in found[name])}
    alike = len(best) == len(found) > 1 and all(_scenarios([tried]) == least for tried in found.values())
    what = "After a crash, all repeated the same:" if alike else "After a crash, it repeats the least:"
    if len(found) == 1:
        what = "No other one was tried. After a crash, it repeated"
    elif len(best) > 1 and not alike:
        what = "After a crash, they repeat the least:"
    answer = [f"{what} {_by_scenario(least)}."]
    if any(least.values()) and any(name.startswith("with_transaction") for name in best):
        answer.append("A transaction does not cover mails and requests; give them an idempotency key.")
    answer.append("A requested stop repeats nothing under any durability.")
    yield Advice(
        "Which durability?",
        "No difference here" if alike else " or ".join(best),
        " ".join(answer if _stops_are_clean(comparison) else answer[:-1]),
        _repeated(found, best, explored) + _costs(comparison, best),
        "The durability that repeats least: no other one repeats less in scenarios where both were killed "
        "or explored.",
    )


def _grace(comparison: Comparison) -> Iterator[Advice]:
    runs = [run for run in comparison.runs if run.pattern != "plain" and run.stop_s is not None and run.hit]
    slowest = add_up("steps", runs).stop_latency_s
    if slowest is None:
        return
    enough = slowest < GRACE_S
    yield Advice(
        "How long a grace period?",
        f"{GRACE_S} s is enough" if enough else f"Longer than {slowest:.0f} s",
        "The job stops at its next checkpoint, so the longest item decides."
        if enough
        else "Or place the checkpoints closer together.",
        f"The slowest of {counted(len(runs), 'run')} stopped in {slowest:.3g} s",
        f"Longer than the slowest stop; Kubernetes waits {GRACE_S} s by default.",
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
        "Yes" if left < duplicated else "It did not help",
        "Use one for mails, payments and other effects outside of the database."
        if left < duplicated
        else "The copies had different keys.",
        f"{counted(duplicated, 'effect')} done twice in {counted(len(runs), 'run')}, "
        f"{left:,} after copies with the same key are removed",
        "Needed if an effect outside a transaction was done twice and its copies share a key.",
    )


def _broken(comparison: Comparison) -> list[str]:
    """Return the patterns that lost or did not finish work."""
    bad = {run.pattern for run in comparison.runs if run.outcome in {"lost", "never finished", "failed"}}
    bad |= {each.pattern for each in comparison.explorations if each.verdict.startswith(("lost", "never"))}
    return [name for name in PATTERNS if name in bad - {"plain"}]


def _stops_are_clean(comparison: Comparison) -> bool:
    return not any(run.repeated for run in comparison.runs if run.pattern != "plain" and not run.killed)


def _scenarios(tried: Sequence[Mapping[Tried, int]]) -> dict[str, int]:
    """Return the most items repeated in each scenario, in order of their names."""
    most: dict[str, int] = {}
    for each in tried:
        for (_, scenario), number in each.items():
            most[scenario] = max(most.get(scenario, 0), number)
    return dict(sorted(most.items()))


def _by_scenario(most: Mapping[str, int]) -> str:
    clean = [name for name, number in most.items() if not number]
    parts = [f"nothing in {listed(clean)}"] if clean else []
    parts += [f"up to {counted(number, 'item')} in {name}" for name, number in most.items() if number]
    return ", ".join(parts)


def _repeated(
    found: Mapping[str, Mapping[Tried, int]], best: Collection[str], explored: Collection[str]
) -> str:
    """Return the most items that one kill or crash repeated, by durability and scenario; the best come first."""
    scenarios = [*_scenarios([*found.values()])]
    parts = []
    for name in sorted(found, key=lambda name: name not in best):
        most = _scenarios([found[name]])
        figures = "/".join(f"{most[each]:,}" if each in most else DASH for each in scenarios)
        parts.append(f"{name} {figures}{' (kills only)' if explored and name not in explored else ''}")
    return f"Most items repeated by one kill or crash, in {'/'.join(scenarios)}: {'; '.join(parts)}"


def _costs(comparison: Comparison, names: list[str]) -> str:
    """Return the cost of these durabilities on real work."""
    found = [each for each in durables(comparison) if each.durability in names and each.cost]
    if not found:
        return ""
    if any(each.cost and each.cost.scenario in noisy(comparison) for each in found):
        return "; costs are too noisy to compare"
    named = len(names) > 1
    parts = [
        f"{each.pattern}{f' under {each.durability}' if named else ''} {each.cost.ratio_to_plain:.2f}"
        for each in found
        if each.cost
    ]
    where = next(each.cost.scenario for each in found if each.cost)
    return f"; cost of whole runs of {where}, times plain: {', '.join(parts)}"


def _own_cost(comparison: Comparison, scenario: str, pattern: str) -> Benchmark | None:
    """Return the cost under the job's own durability, which is measured first."""
    found = [each for each in comparison.on_work if (each.scenario, each.pattern) == (scenario, pattern)]
    own = [each for each in found if each.durability in {None, "every(seconds=1)"}] or found
    return next((each for each in own if each.ratio_to_plain is not None), None)


def _apart(one: Benchmark, other: Benchmark) -> bool:
    ends = one.ratio_low, one.ratio_high, other.ratio_low, other.ratio_high
    low, high, other_low, other_high = (end or 0.0 for end in ends)
    # A form that seems cheaper than the plain loop, which does less, was measured with noise.
    return min(high, other_high) >= 1 and (high < other_low or other_high < low)


def _range(found: Benchmark) -> str:
    return f"{found.ratio_low:.2f} to {found.ratio_high:.2f}"
