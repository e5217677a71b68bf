"""The commands: ``harness run``, ``harness explore``, ``harness report``. Jobs and scenarios are found by dotted name.

Exit codes: 0 good, 1 the verdict is bad, 2 the command cannot be carried out as given.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from harness import durability as durabilities
from harness import explore as exploring
from harness import interruptions, job, lab, render
from harness import scenario as scenarios
from harness.compare import Comparison, comparison
from harness.errors import HarnessError, UsageError
from harness.explore.scenarios import prepared
from harness.queues.inline import InlineRun

BAD_VERDICT, BAD_USAGE = 1, 2


class _Group(click.Group):
    """Turns our errors into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HarnessError as error:
            click.echo(f"harness: {error}", err=True)
            ctx.exit(BAD_USAGE)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Interrupt long jobs, resume them, and say whether anything was lost or done twice."""
    if "" not in sys.path:  # a user's jobs are found from where the command is given, as with python -m
        sys.path.insert(0, "")


@main.command()
@click.argument("name")
@click.argument("arguments", nargs=-1)
@click.option(
    "--form", "forms", multiple=True, help="Of a scenario: plain, steps or iteration; all by default."
)
@click.option("--interrupt", "names", multiple=True, default=("none",), help="Interrupt so; may be repeated.")
@click.option("--size", default="quick", show_default=True, help="Of a scenario's data: quick or full.")
@click.option("--pace", type=float, default=0.0, show_default=True, help="Seconds that each item lasts.")
@click.option("--database", help="URL of an empty database to use in place of a SQLite file.")
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON, one a line.")
def run(
    name: str,
    arguments: Sequence[str],
    forms: Sequence[str],
    names: Sequence[str],
    as_json: bool,
    **options: Any,
) -> None:
    """Run a scenario, or a job of your own, to its end, interrupted as told.

    NAME is a module with a scenario, such as scenarios.orders, or a job class, such as shop.jobs:Import; the job's
    ARGUMENTS are JSON values.

    \b
    harness run scenarios.orders --interrupt count:20
    harness run scenarios.emails --form steps --interrupt signal:TERM --pace 0.01
    harness run shop.jobs:Import 17 --interrupt every:100
    """
    chosen = [interruptions.parse(each) for each in names]
    found = job.find(name)
    if isinstance(found, type) and issubclass(found, job.Job):
        _run_job(found, [_argument(each) for each in arguments], chosen, as_json=as_json)
        return
    scenario = getattr(found, "scenario", found)
    if not isinstance(scenario, scenarios.Scenario):
        raise UsageError(
            f"{name!r} is neither a scenario nor a job; allowed is a module with a scenario, such as scenarios.orders, "
            "or a job class, such as shop.jobs:Import"
        )
    _run_scenario(scenario, forms or scenarios.FORMS, chosen, as_json=as_json, **options)


@main.command()
@click.argument("name")
@click.argument("arguments", nargs=-1)
@click.option(
    "--trial", "trials", multiple=True, help="Run just this one, such as crash:commit#12; may be repeated."
)
@click.option("--sample", type=click.IntRange(1), help="Try at most so many of each sort; all by default.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the samples.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdicts as JSON, one a line.")
@click.option("--first", is_flag=True, help="Stop at the first finding.")
@click.option(
    "--form", "forms", multiple=True, help="Of a scenario: plain, steps or iteration; all by default."
)
@click.option("--size", default="tiny", show_default=True, help="Of a scenario's data.")
@click.option(
    "--durability", help="In place of the job's own, such as 'every(items=5)' or 'with_transaction()'."
)
def explore(
    name: str,
    arguments: Sequence[str],
    trials: Sequence[str],
    *,
    forms: Sequence[str],
    size: str,
    durability: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Crash a job everywhere, and say which line loses or doubles what.

    NAME is a job class or any function that uses SQLAlchemy, Redis or SMTP, such as shop.jobs:charge; ARGUMENTS are
    JSON values. Or it is a module with a scenario.

    \b
    harness explore shop.jobs:charge 17
    harness explore shop.jobs:charge 17 --trial crash:commit#12
    harness explore scenarios.reports --form steps --sample 20
    """
    found = job.find(name)
    chosen_durability = durabilities.parse(durability) if durability else None
    scenario = getattr(found, "scenario", found)
    good = True
    with _Bar() as options["progress"]:
        if isinstance(scenario, scenarios.Scenario):
            for form in forms or scenarios.FORMS:
                with prepared(scenario, form, size, chosen_durability) as (what, more):
                    good = _explored(what, trials, {**options, **more}, as_json=as_json) and good
        else:
            what = [found, *(_argument(each) for each in arguments)]
            good = _explored(what, trials, {**options, "durability": chosen_durability}, as_json=as_json)
    sys.exit(0 if good else BAD_VERDICT)


@main.command()
@click.argument("records", type=click.Path(path_type=Path))
@click.option("--benchmarks", type=click.Path(path_type=Path), help="What pytest --benchmark-json wrote.")
@click.option("--to", "folder", type=click.Path(path_type=Path), default=Path("reports"), show_default=True)
def report(records: Path, benchmarks: Path | None, folder: Path) -> None:
    """Make comparison.json, .md and .html of RECORDS, which pytest --records wrote, and print the table.

    \b
    harness report reports/records.json --benchmarks reports/benchmarks.json
    """
    data = _read_json(records)
    if not isinstance(data, dict) or not {"environment", "runs"} <= set(data):
        raise UsageError(f"{records} holds no records; allowed is what pytest --records wrote")
    measured = _read_json(benchmarks) if benchmarks else None
    made: Comparison = comparison(data["environment"], data["runs"], measured)
    folder.mkdir(parents=True, exist_ok=True)
    render.write(made, folder)
    click.echo(render.text(made))
    click.echo(f"\nWritten: {folder / 'comparison.html'}, comparison.md and comparison.json beside it.")


class _Bar:
    """A progress bar with the time left, on a terminal; made when it is known how long."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def __call__(self, done: int, planned: int, trial: str) -> None:
        """Show how far it is."""
        if self._bar is None:
            self._bar = click.progressbar(length=planned, label="trials", file=sys.stderr)
            self._bar.__enter__()
        self._bar.length, self._bar.label = planned, trial
        self._bar.update(done - self._bar.pos)

    def end(self) -> None:
        """Leave the line."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


def _explored(what: Sequence[Any], trials: Sequence[str], options: dict[str, Any], *, as_json: bool) -> bool:
    with exploring.Explorer(*what, **options) as explorer:
        verdict = explorer.run([exploring.parse(each) for each in trials] or None)
    options["progress"].end()
    click.echo(json.dumps(verdict.record) if as_json else verdict.text())
    return verdict.good


def _run_scenario(
    scenario: scenarios.Scenario,
    forms: Sequence[str],
    chosen: Sequence[interruptions.Interruption],
    *,
    as_json: bool,
    **options: Any,
) -> None:
    good = True
    with tempfile.TemporaryDirectory() as folder, lab.Lab(Path(folder), **options) as laboratory:
        for form in forms:
            for interruption in chosen:
                record = laboratory.run(scenario, form, interruption)
                good = good and record["verdict"] == "exactly once"
                click.echo(json.dumps(record) if as_json else _line(record))
    sys.exit(0 if good else BAD_VERDICT)


def _run_job(
    found: type[job.Job],
    arguments: Sequence[Any],
    chosen: Sequence[interruptions.Interruption],
    *,
    as_json: bool,
) -> None:
    for interruption in chosen:
        if interruption.by != "stop":
            raise UsageError(
                f"{interruption.name} needs a worker; a job alone can be stopped by count, every, time, …"
            )
        inline = InlineRun(found, *arguments)
        if interruption.where:
            inline.stops.append(interruption.where(0, time.monotonic))
        for ended in inline.executions():
            if not as_json:
                click.echo(f"{found.__name__} {ended.outcome} {ended.reason or ''}".rstrip())
        if as_json and inline.progress is not None:
            click.echo(inline.progress.to_json())


def _line(record: dict[str, Any]) -> str:
    return (
        f"{record['scenario']:8} {record['pattern']:10} {record['interruption']:24} {record['verdict']:14} "
        f"executions {record['executions']}, items {record['items']}, lost {record['lost']}, "
        f"duplicated {record['duplicated']}, repeated {record['repeated']}"
    )


def _argument(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # so that a str needs no quotes


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"{path}: no such file; run pytest with --records or --benchmark-json first"
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
