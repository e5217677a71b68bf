"""The commands: ``harness run``, ``harness report``. Jobs and scenarios are found by dotted name.

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

from harness import compare, interruptions, job, lab, render
from harness import scenario as scenarios
from harness.errors import HarnessError, UsageError
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
@click.argument("records", type=click.Path(path_type=Path))
@click.option("--benchmarks", type=click.Path(path_type=Path), help="What pytest --benchmark-json wrote.")
@click.option("--to", "folder", type=click.Path(path_type=Path), default=Path("reports"), show_default=True)
@click.option("--against", type=click.Path(path_type=Path), help="An older comparison.json: tell what moved.")
@click.option("--fail-if", "conditions", multiple=True, help="Exit with 1 if it is met; may be repeated.")
def report(
    records: Path, benchmarks: Path | None, folder: Path, against: Path | None, conditions: Sequence[str]
) -> None:
    """Make comparison.json, .md, .html and pictures of RECORDS, which pytest --records wrote, and print the table.

    \b
    harness report reports/records.json --benchmarks reports/benchmarks.json
    harness report reports/records.json --against main/comparison.json --fail-if 'steps.ratio > 1.2'
    """
    gates = [compare.parse_gate(each) for each in conditions]
    made = compare.made_from(records, benchmarks)
    moved = compare.changes(compare.Comparison.load(against), made) if against else None
    met = [each for each in (gate.met_by(made) for gate in gates) if each]
    folder.mkdir(parents=True, exist_ok=True)
    render.write(made, folder, moved)
    click.echo(render.text(made, moved))
    click.echo(
        f"\nWritten: {folder / 'comparison.html'}; comparison.md, comparison.json and pictures beside it."
    )
    for each in met:
        click.echo(f"harness: {each}", err=True)
    sys.exit(BAD_VERDICT if met else 0)


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
