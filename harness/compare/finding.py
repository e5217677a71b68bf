"""What the runs have shown, in one sentence made from nothing but their figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.compare.comparisons import Totals

_NOTHING_WRONG = "lost nothing and did nothing twice"


def sentence(totals: Sequence[Totals]) -> str:
    """Put the totals of all patterns, plain first, into words; whatever went wrong is said."""
    if not totals:
        return "There are no runs, so nothing is shown."
    told = [(_name(each), each.interruptions, _told(each)) for each in totals if each.pattern != "plain"]
    if len(told) == 2 and all(what == _NOTHING_WRONG for _, _, what in told):
        told = [("steps and iteration", sum(times for _, times, _ in told), _NOTHING_WRONG)]
    told += [(_name(each), each.interruptions, _told(each)) for each in totals if each.pattern == "plain"]
    (who, times, what), *others = told
    first = f"{_interrupted(times).capitalize()}, {who} {what}"
    return "; ".join([first, *(f"{who}, {_interrupted(times)}, {what}" for who, times, what in others)]) + "."


def _name(totals: Totals) -> str:
    return "the plain loop" if totals.pattern == "plain" else totals.pattern


def _told(totals: Totals) -> str:
    verdicts = totals.verdicts
    told = [
        ("lost {}", totals.lost, "item"),
        ("repeated {}", totals.repeated, "item"),
        ("left {} doubled", totals.duplicated, "effect"),
        ("ended with a wrong total in {}", verdicts["wrong total"], "run"),
        ("did not finish {}", verdicts["never finished"], "run"),
        ("failed {}", verdicts["failed"], "run"),
    ]
    parts = [form.format(counted(number, noun)) for form, number, noun in told if number]
    if not parts:
        return _NOTHING_WRONG
    if totals.exactly_once == totals.runs:
        return f"lost nothing and left no effect doubled, but {parts[0]}"
    *before, last = parts
    return f"{', '.join(before)} and {last}" if before else last


def _interrupted(times: int) -> str:
    return f"interrupted {counted(times, 'time')}" if times else "never interrupted"


def counted(number: int, noun: str) -> str:
    """Give "1 item", "1,034 items"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
