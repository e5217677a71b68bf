"""State the finding of the runs in one sentence made from their figures only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.report.records import PATTERNS, Run
from harness.report.totals import Totals, add_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_NOTHING_WRONG = "lost nothing and did nothing twice"


def sentence(runs: Sequence[Run]) -> str:
    """Put the runs into words: those asked to stop, those killed, and the plain loop, which cannot be asked.

    Whatever went wrong is said.
    """
    if not runs:
        return "There are no runs, so nothing is shown."
    clauses = [
        *_asked([run for run in runs if run.pattern != "plain" and not run.killed]),
        *_killed([run for run in runs if run.pattern != "plain" and run.killed]),
        *_plain([run for run in runs if run.pattern == "plain"]),
    ]
    told, before = [], ""
    for who, how, what in clauses:
        again = "they" if " and " in who else "it"
        told.append(
            f"{how}, {again if who == before else who} {what}"
            if before in {"", who}
            else f"{who}, {how}, {what}"
        )
        before = who
    sentence = "; ".join(told)
    return f"{sentence[0].upper()}{sentence[1:]}."


Clause = tuple[str, str, str]
"""Form, interruption and result, as text."""


def _asked(runs: Sequence[Run]) -> Iterable[Clause]:
    of_patterns = [add_up(name, [run for run in runs if run.pattern == name]) for name in PATTERNS]
    told = [(each.pattern, each.interruptions, _told(each)) for each in of_patterns if each.runs]
    if len(told) == 2 and all(what == _NOTHING_WRONG for _, _, what in told):
        told = [("steps and iteration", sum(times for _, times, _ in told), _NOTHING_WRONG)]  # type: ignore[list-item]
    return [(who, _interrupted(times), what) for who, times, what in told]


def _killed(runs: Sequence[Run]) -> Iterable[Clause]:
    if not runs:
        return []
    names = [name for name in PATTERNS if any(run.pattern == name for run in runs)]
    totals = add_up(names[0], runs)
    what = _told(totals)
    if not totals.lost and what != _NOTHING_WRONG:
        repeated = f"repeated {counted(totals.repeated_most, 'item')} a run at most"
        rest = _told(totals, repeated=repeated)
        what = f"lost nothing, {rest}" if " and " in rest else f"lost nothing and {rest}"
        committed = [run for run in runs if run.durability.startswith("with_transaction")]
        if totals.duplicated and committed and not any(run.duplicated for run in committed):
            what += f", none of them under {committed[0].durability}"
    return [(" and ".join(names), f"killed in {counted(len(runs), 'run')}", what)]


def _plain(runs: Sequence[Run]) -> Iterable[Clause]:
    totals = add_up("plain", runs)
    return [("the plain loop", _interrupted(totals.interruptions), _told(totals))] if runs else []


def _told(totals: Totals, repeated: str = "") -> str:
    verdicts = totals.verdicts
    told = [
        ("lost {}", totals.lost, "item"),
        (repeated or "repeated {}", totals.repeated, "item"),
        ("left {} doubled", totals.duplicated, "effect"),
        ("ended with a wrong total in {}", verdicts["wrong total"], "run"),
        ("did not finish {}", verdicts["never finished"], "run"),
        ("failed {}", verdicts["failed"], "run"),
    ]
    parts = [form.format(counted(number, noun)) for form, number, noun in told if number]
    if not parts:
        return _NOTHING_WRONG
    if totals.exactly_once == totals.runs and not repeated:
        return f"lost nothing and left no effect doubled, but {parts[0]}"
    *before, last = parts
    return f"{', '.join(before)} and {last}" if before else last


def _interrupted(times: int) -> str:
    return f"interrupted {counted(times, 'time')}" if times else "never interrupted"


def counted(number: int, noun: str) -> str:
    """Give "1 item", "1,034 items"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
