"""``harness demo``: four shows, automated and narrated, with real workers where a Redis server is installed."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from harness import lab, report
from harness.cli.output import echo
from harness.cli.script import COMPARED, COMPARED_PACE, DEMOS, FAST_PACE, Act, Demo, compared
from harness.cli.settings import scenario_named
from harness.cli.stopping import HardStop, saying
from harness.cli.trials import line
from harness.durability import parse as parse_durability
from harness.errors import UsageError
from harness.interruptions import Interruption, parse
from harness.lab import Lab
from harness.lab.servers import find_redis
from harness.lab.trial import Trial
from harness.monitor import LiveLine, TrialBar
from harness.report import comparison
from harness.scenario import Effects

READING_SECONDS = 2.5
PACKAGES = ("rq", "redis", "sqlalchemy", "fakeredis")
REAL = "real workers on a private Redis, SQLite; Ctrl-C ends it all"
EMBEDDED = "one process and fakeredis, where a job is stopped and no process ends; Ctrl-C ends it all"
KEPT = "nothing was kept, all of it was the demo's own"


@click.command()
@click.argument("which", type=click.Choice([*DEMOS, "compare"]), required=False)
@click.option("--web", "on_page", is_flag=True, help="On a web page, where you start and kill jobs by mouse.")
@click.option("--pace", type=click.Choice(["talk", "fast"]), default="talk", show_default=True,
              help="For an audience, or in seconds.")  # fmt: skip
@click.option(
    "--embedded", is_flag=True, help="Without real workers, also where a Redis server is installed."
)
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), default=Path("reports"),
              show_default=True, help="Where compare writes its report.")  # fmt: skip
def demo(which: str | None, pace: str, embedded: bool, folder: Path, *, on_page: bool) -> None:
    """Show a demo: orders (35 s), reports (50 s), emails (40 s), compare (150 s).

    With a Redis server on the path, the workers are real processes, and the demo kills them. Without one, everything
    runs in this process and is stopped politely, and so is compare at the fast pace. Exit code 1 if a job with
    checkpoints lost anything.

    \b
    harness demo orders
    harness demo --web
    harness demo compare --to reports
    harness demo emails --pace fast --embedded
    """
    if on_page and which is not None:
        raise UsageError(f"got {which} and --web, which shows orders; leave out the name")
    if not on_page and which is None:
        raise UsageError(f"got no name; use one of {', '.join([*DEMOS, 'compare'])}, or give --web")
    for name in COMPARED:
        scenario_named(name)  # raises early if there are none
    if which is None:
        from harness.cli.web import show_demo

        show_demo()
        return
    real = find_redis() is not None and not embedded
    fast = pace == "fast"
    if which == "compare":
        good = _compare(real and not fast, FAST_PACE if fast else COMPARED_PACE, folder)
    else:
        good = _show(DEMOS[which], real, fast=fast)
    sys.exit(0 if good else 1)


def _show(shown: Demo, real: bool, *, fast: bool) -> bool:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 80)
    good = True
    _say(console, shown.intro, fast=fast)
    console.print(f"[dim]({REAL if real else EMBEDDED})[/dim]\n")
    with _laboratory(real, FAST_PACE if fast else shown.pace, lambda: None) as laboratory:
        for number, act in enumerate(shown.acts, 1):
            console.print(f"[bold]{number}. {act.form.upper()}[/bold]")
            _say(console, act.said(real=real), fast=fast)
            record = _perform(laboratory, shown, act, real, console)
            durability = "" if record["durability"] == "none" else f", {record['durability']}"
            console.print(f"   [dim]{record['interruption']}{durability}[/dim]")
            console.print(f"   {_outcome(record, shown.effect)}\n")
            good = good and (act.form == "plain" or (record["completed"] and not record["lost"]))
    console.print(shown.outro)
    return good


def _say(console: Console, words: str, *, fast: bool) -> None:
    console.print(words)
    if not fast and console.is_terminal:
        threading.Event().wait(READING_SECONDS)


def _outcome(record: dict[str, Any], effect: tuple[str, str]) -> str:
    items, done = effect
    told = []
    if not record["completed"]:
        told.append("[bold red]never finished[/bold red]")
    if record["lost"]:
        told.append(f"[bold red]{record['lost']:,} {items} were lost[/bold red]")
    if record["duplicated"]:
        told.append(f"[bold red]{record['duplicated']:,} {items} were {done} twice[/bold red]")
        if record["duplicated_by_key"] == 0:
            told.append("a receiver who knows the Message-ID sees none of it")
    if record["verdict"] == "exactly once":
        told.append(f"[bold green]all {record['items']:,} {items} were {done} exactly once[/bold green]")
    return f"{'; '.join(told)}, in {record['executions']} executions, {record['elapsed_s']:.1f} s"


def _perform(laboratory: Lab, shown: Demo, act: Act, real: bool, console: Console) -> dict[str, Any]:
    scenario = scenario_named(shown.scenario)
    durability = parse_durability(act.durability) if act.durability else None
    interruption = parse(act.interruption(real=real))
    with laboratory.prepared(scenario, act.form, durability) as trial:

        def standing() -> str:
            try:
                effects = scenario.judge(laboratory.mailbox)
            except SQLAlchemyError:
                return "   the database is busy"
            return f"   {_counted(trial, effects, shown.effect)}{_moment(trial, interruption)}"

        with LiveLine(console, standing):
            return trial.run(interruption)


def _counted(trial: Trial, effects: Effects, effect: tuple[str, str]) -> str:
    """Say how far the work is: what the story is about, not all that is in the tables."""
    items, done = effect
    twice = f", {effects.duplicated:,} of them twice" if effects.duplicated else ""
    return f"of {trial.items:,} {items}, {trial.items - effects.lost:,} {done}{twice}"


def _moment(trial: Trial, interruption: Interruption) -> str:
    """Say what has happened to the job, from the interruption on."""
    attempts = trial.so_far()
    if all(each.requested is None for each in attempts):
        return ""
    happened = "KILLED" if interruption.kills else "CUT OFF" if trial.plain else "ASKED TO STOP"
    then = "" if len(attempts) == 1 else ", begun anew" if trial.plain else ", goes on"
    return f": {happened}{then}"


def _compare(real: bool, pace: float, folder: Path) -> bool:
    acts, records, good = compared(real=real), [], True
    bar = TrialBar(len(acts) * len(COMPARED), Console(stderr=True), lines=0)
    with ExitStack() as stack:
        stack.callback(bar.stop)
        laboratory = stack.enter_context(_laboratory(real, pace, bar.stop))
        for scenario in map(scenario_named, COMPARED):
            for act in acts:
                interruption = parse(act.interruption(real=real))
                durability = parse_durability(act.durability) if act.durability else None
                bar.begin(f"{scenario.name} {act.form} {interruption.name}")
                record = laboratory.run(scenario, act.form, interruption, durability)
                records.append(record)
                good = good and (act.form == "plain" or (record["completed"] and not record["lost"]))
                bar.tell(line(record))
                bar.advance()
    made = comparison(lab.environment("quick", pace, PACKAGES), records)
    folder.mkdir(parents=True, exist_ok=True)
    report.write(made, folder)
    echo(f"\n{report.text(made)}\n\nWritten: {folder / 'comparison.html'}; open it in a browser.")
    return good


@contextmanager
def _laboratory(real: bool, pace: float, leave: Any) -> Iterator[Lab]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(saying(KEPT))
        laboratory = stack.enter_context(Lab(folder, pace=pace, broker="redis" if real else "fakeredis"))
        if not real:
            stack.enter_context(HardStop(folder, KEPT, leave))
        yield laboratory
