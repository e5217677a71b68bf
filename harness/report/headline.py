"""Finding of a comparison, in sentences built only from its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.report.records import PATTERNS, Exploration, Run
from harness.report.summaries import Totals, add_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harness.report.comparisons import Comparison

_NOTHING_WRONG = "lost nothing and did nothing twice"
_GOOD = ("exactly once", "at least once")


def sentences(comparison: Comparison) -> list[str]:
    """Return the finding: runs asked to stop, the plain loop, killed runs, explorations, runs not hit.

    All mistakes in them are named.
    """
    runs = [run for run in comparison.runs if run.outcome != "not hit"]
    patterns = [run for run in runs if run.pattern != "plain"]
    plain = [run for run in runs if run.pattern == "plain"]
    found = [
        *_asked([run for run in patterns if not run.killed]),
        *_plain(plain),
        *_killed([run for run in patterns if run.killed]),
        *_explored([each for each in comparison.explorations if each.pattern != "plain"]),
        *_missed(len(comparison.runs) - len(runs)),
    ]
    return found or ["There are no runs, so the report is empty."]


def counted(number: int, noun: str) -> str:
    """Return "1 item", "1,034 items"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Iterable[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    *before, last = [*names] or [""]
    return f"{', '.join(before)} and {last}" if before else last


def _asked(runs: Sequence[Run]) -> Iterator[str]:
    totals = [add_up(name, [run for run in runs if run.pattern == name]) for name in PATTERNS]
    told = [(each.pattern, _hits(runs, each.pattern), _told(each)) for each in totals if each.runs]
    if len(told) == 2 and all(what == _NOTHING_WRONG for _, _, what in told):
        number = sum(number for _, number, _ in told)
        yield f"{_times('Asked to stop', number)}, steps and iteration {_NOTHING_WRONG}."
    else:
        for who, number, what in told:
            yield f"{_times('Asked to stop', number)}, {who} {what}."


def _killed(runs: Sequence[Run]) -> Iterator[str]:
    if not runs:
        return
    totals = add_up("steps", runs)
    what = _told(totals)
    if not totals.lost and what != _NOTHING_WRONG:
        rest = _told(totals, repeated=f"repeated at most {counted(totals.repeated_most, 'item')} a run")
        what = f"lost nothing, {rest}" if " and " in rest else f"lost nothing and {rest}"
        committed = [run for run in runs if run.durability.startswith("with_transaction")]
        if totals.duplicated and committed and not any(run.duplicated for run in committed):
            what += f", none of them in runs under {committed[0].durability}"
    yield f"Killed in {counted(len(runs), 'run')}, {_forms(runs)} {what}."


def _explored(found: Sequence[Exploration]) -> Iterator[str]:
    if not found:
        return
    bad = [each for each in found if not each.verdict.startswith(_GOOD)]
    tried = counted(sum(each.tried for each in found), "external state")
    what = (
        f"ended as {listed(dict.fromkeys(each.verdict for each in bad))} in {counted(len(bad), 'exploration')}"
        if bad
        else "lost nothing"
    )
    most = max(found, key=lambda each: each.repeated_most)
    if most.repeated_most:
        what += f" and repeated up to {counted(most.repeated_most, 'item')} ({most.scenario})"
    else:
        what += " and repeated nothing"
    yield f"Crashed by the explorer in {tried}, {_forms(found)} {what}."
    committed = [each for each in found if each.durability.startswith("with_transaction")]
    if committed and most.repeated_most:
        yield _committed(committed)


def _committed(found: Sequence[Exploration]) -> str:
    """Return the durabilities that repeated effects outside their transactions."""
    most: dict[str, int] = {}
    for each in found:
        most[each.scenario] = max(most.get(each.scenario, 0), each.repeated_most)
    clean = [name for name, number in most.items() if not number]
    told = [f"nothing in {listed(clean)}"] if clean else []
    told += [f"up to {counted(number, 'item')} in {name}" for name, number in most.items() if number]
    return f"Under {found[0].durability}, these crashes repeated {listed(told)}."


def _plain(runs: Sequence[Run]) -> Iterator[str]:
    if runs:
        totals = add_up("plain", runs)
        yield f"{_times('Interrupted', _hits(runs, 'plain'))}, the plain loop {_told(totals)}."


def _missed(number: int) -> Iterator[str]:
    if number:
        yield f"In {counted(number, 'run')} the interruption did not reach the job; they are not counted."


def _told(totals: Totals, repeated: str = "") -> str:
    outcomes = totals.outcomes
    told = [
        ("lost {}", totals.lost, "item"),
        (repeated or "repeated {}", totals.repeated, "item"),
        ("did {} twice", totals.duplicated, "effect"),
        ("ended with a wrong total in {}", outcomes["wrong total"], "run"),
        ("did not finish {}", outcomes["never finished"], "run"),
        ("failed {}", outcomes["failed"], "run"),
    ]
    parts = [form.format(counted(number, noun)) for form, number, noun in told if number]
    if not parts:
        return _NOTHING_WRONG
    if totals.exactly_once == totals.runs and not repeated:
        return f"lost nothing and did no effect twice, but {parts[0]}"
    return listed(parts)


def _forms(found: Iterable[Run | Exploration]) -> str:
    names = {each.pattern for each in found}
    return listed(name for name in PATTERNS if name in names)


def _hits(runs: Sequence[Run], pattern: str) -> int:
    """Return the number of interrupted runs of a form, in which all sentences and answers count."""
    return sum(run.pattern == pattern and run.interrupted for run in runs)


def _times(what: str, number: int) -> str:
    return f"{what} in {counted(number, 'run')}" if number else "Never interrupted"
