"""Performance of the demos: acts with real workers or embedded, narrated on the terminal."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from harness import lab, report
from harness.cli.output import echo
from harness.cli.script import COMPARED, FAST_PACE, QUEUED, Act, Demo, compared, queued
from harness.cli.settings import scenario_named
from harness.cli.stopping import HardStop, saying
from harness.cli.trials import line
from harness.durability import parse_durability
from harness.interruptions import Interruption, parse_interruption
from harness.lab import Lab
from harness.lab.trial import Trial
from harness.monitor import LiveLine, TrialBar
from harness.report import comparison
from harness.scenario import Effects

READING_SECONDS = 2.5
BAR_COLUMNS = 60
PACKAGES = ("rq", "redis", "sqlalchemy", "fakeredis")
REAL = "real workers on a private Redis, SQLite; press Ctrl-C to quit"
EMBEDDED = "one process and fakeredis, jobs are stopped, no process is killed; press Ctrl-C to quit"
KEPT = "nothing was kept: the demo used private services"


def show(shown: Demo, real: bool, *, fast: bool, step: bool) -> bool:
    """Perform a demo, and return whether the jobs with checkpoints lost nothing.

    :param real: whether there are real workers. :param step: wait for a key before each act, instead of a short pause.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 80)
    good = True
    console.print(shown.intro)
    console.print(f"[dim]({REAL if real else EMBEDDED})[/dim]\n")
    _wait(console, fast=fast, step=step)
    with _demo_lab(real, FAST_PACE if fast else shown.pace, lambda: None) as laboratory:
        for number, act in enumerate(shown.acts, 1):
            console.print(f"[bold]{number}. {act.form.upper()}[/bold]")
            console.print(act.said(real=real))
            _wait(console, fast=fast, step=step)
            record = _perform(laboratory, shown, act, real, console)
            durability = "" if record["durability"] == "none" else f", {record['durability']}"
            console.print(f"   [dim]{record['interruption']}{durability}[/dim]")
            console.print(f"   {_outcome(record, shown.effect)}\n")
            good = good and (act.form == "plain" or (record["completed"] and not record["lost"]))
    console.print(shown.outro)
    return good


def _wait(console: Console, *, fast: bool, step: bool) -> None:
    """Give the audience time to read: wait for a key, or for a short time."""
    if step:
        console.print("[dim]Press a key to continue.[/dim]", end="")
        try:
            click.getchar()
        except KeyboardInterrupt:
            # The terminal was in raw mode, where Ctrl-C is a character, not a signal.
            signal.raise_signal(signal.SIGINT)
            raise
        finally:
            console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))
    elif not fast and console.is_terminal:
        threading.Event().wait(READING_SECONDS)


def _outcome(record: dict[str, Any], effect: tuple[str, str]) -> str:
    items, done = effect
    parts = []
    if not record["completed"]:
        parts.append("[bold red]never finished[/bold red]")
    if record["lost"]:
        parts.append(f"[bold red]{record['lost']:,} {items} were lost[/bold red]")
    if record["duplicated"]:
        parts.append(f"[bold red]{record['duplicated']:,} {items} were {done} twice[/bold red]")
        if record["duplicated_by_key"] == 0:
            parts.append("a receiver that checks the Message-ID sees no duplicates")
    if record["verdict"] == "exactly once":
        parts.append(f"[bold green]all {record['items']:,} {items} were {done} exactly once[/bold green]")
    return f"{'; '.join(parts)}, in {record['executions']} executions, {record['elapsed_s']:.1f} s"


def _perform(laboratory: Lab, shown: Demo, act: Act, real: bool, console: Console) -> dict[str, Any]:
    scenario = scenario_named(shown.scenario)
    durability = parse_durability(act.durability) if act.durability else None
    interruption = parse_interruption(act.interruption(real=real))
    with laboratory.prepared(scenario, act.form, durability) as trial:

        def status_line() -> str | Text:
            try:
                effects = scenario.judge(laboratory.mailbox)
            except SQLAlchemyError:
                return "   the database is busy"
            text = f"{_progress_text(trial, effects, shown.effect)}{_since_interruption(trial, interruption)}"
            return Text.assemble("   ", *_bar(trial.items, effects), "\n   ", (text, "cyan"))

        with LiveLine(console, status_line):
            return trial.run(interruption)


def _bar(items: int, effects: Effects) -> list[tuple[str, str]]:
    """Return a bar: done twice, done once, to do."""
    twice = BAR_COLUMNS * effects.duplicated // max(1, items)
    done = max(twice, BAR_COLUMNS * (items - effects.lost) // max(1, items))
    return [("▓" * twice, "red"), ("█" * (done - twice), "cyan"), ("░" * (BAR_COLUMNS - done), "dim")]


def _progress_text(trial: Trial, effects: Effects, effect: tuple[str, str]) -> str:
    """Return the progress of the work in the demo's terms."""
    items, done = effect
    twice = f", {effects.duplicated:,} of them twice" if effects.duplicated else ""
    return f"of {trial.items:,} {items}, {trial.items - effects.lost:,} {done}{twice}"


def _since_interruption(trial: Trial, interruption: Interruption) -> str:
    """Return what has happened to the job since the interruption."""
    attempts = trial.so_far()
    if all(each.requested is None for each in attempts):
        return ""
    happened = "KILLED" if interruption.kills else "CUT OFF" if trial.plain else "ASKED TO STOP"
    then = "" if len(attempts) == 1 else ", started again" if trial.plain else ", goes on"
    return f": {happened}{then}"


def compare(real: bool, pace: float, folder: Path, queues: Sequence[str]) -> bool:
    """Run the comparison and write its report, and return whether the jobs with checkpoints lost nothing.

    :param queues: one queue, or several to compare; several run fewer scenarios and more kills.
    """
    several = len(queues) > 1
    names, acts = (QUEUED, queued()) if several else (COMPARED, compared(real=real))
    packages = [*PACKAGES, *(each for each in queues if each not in PACKAGES)]
    records, good = [], True
    bar = TrialBar(len(acts) * len(names) * len(queues), Console(stderr=True), lines=0)
    for queue in queues:
        with ExitStack() as stack:
            stack.callback(bar.stop)
            laboratory = stack.enter_context(_demo_lab(real, pace, bar.stop, queue))
            for scenario in map(scenario_named, names):
                for act in acts:
                    interruption = parse_interruption(act.interruption(real=real))
                    durability = parse_durability(act.durability) if act.durability else None
                    bar.begin(f"{queue} {scenario.name} {act.form} {interruption.name}")
                    record = laboratory.run(scenario, act.form, interruption, durability)
                    records.append(record)
                    good = good and (act.form == "plain" or (record["completed"] and not record["lost"]))
                    bar.tell(line(record))
                    bar.advance()
    made = comparison(lab.environment("quick", pace, packages), records)
    folder.mkdir(parents=True, exist_ok=True)
    report.write(made, folder)
    echo(f"\n{report.text(made)}\n\nWritten: {folder / 'comparison.html'}; open it in a browser.")
    return good


@contextmanager
def _demo_lab(real: bool, pace: float, leave: Any, queue: str = "rq") -> Iterator[Lab]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(saying(KEPT))
        laboratory = stack.enter_context(
            Lab(folder, pace=pace, queue=queue, broker="redis" if real else None)
        )
        if not real:
            stack.enter_context(HardStop(folder, KEPT, leave))
        yield laboratory
