"""Run a scenario or a job in this process, with an interruption."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from textwrap import fill
from typing import Any

import click
from rich.console import Console

from harness import interruptions, job
from harness.boundary.texts import printable
from harness.cli import completion
from harness.cli.output import echo
from harness.cli.settings import (
    arguments_of,
    first_line,
    job_or_scenario,
    refuse,
    refuse_arguments,
    refuse_durability_of_plain,
)
from harness.cli.stopping import Stopped, saying
from harness.durability import Durability, parse_durability
from harness.errors import HarnessError, UsageError
from harness.monitor import ItemBar
from harness.queues.inline import InlineRun
from harness.scenario import Scenario

WIDTH = 80
"""Columns of a line."""


@click.command()
@click.argument("name", shell_complete=completion.scenarios)
@click.argument("arguments", nargs=-1)
@click.option(
    "--form", "forms", multiple=True, help="Form of a scenario: plain, steps or iteration; all by default."
)
@click.option(
    "--interrupt",
    "names",
    multiple=True,
    default=("none",),
    shell_complete=completion.interruptions,
    help="Interruption to use; may be repeated.",
)
@click.option(
    "--size", default="quick", show_default=True, help="Size of a scenario's data: tiny, quick or full."
)
@click.option("--pace", type=float, default=0.0, show_default=True, help="Duration of each item, in seconds.")
@click.option("--queue", type=click.Choice(["rq", "celery", "dramatiq"]), default="rq", show_default=True,
              help="Queue that runs a scenario.")  # fmt: skip
@click.option("--broker",
              help="fakeredis, the default of rq; redis, of the others: a private server, real workers; rabbitmq, for "
              "celery and dramatiq; or the URL of an empty Redis.")  # fmt: skip
@click.option(
    "--database",
    help="postgresql for a private server, or the URL of an empty database; SQLite files by default.",
)
@click.option(
    "--durability", "durable", help="Durability instead of the job's own, such as with_transaction()."
)
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON, one per line.")
def run(
    *,
    name: str,
    arguments: Sequence[str],
    forms: Sequence[str],
    names: Sequence[str],
    as_json: bool,
    durable: str | None,
    **options: Any,
) -> None:
    """Run a scenario or one of your jobs with the given interruptions, and report what was lost or duplicated.

    NAME is a module with a scenario, such as scenarios.orders, or a job class, such as shop.jobs:Import; the job's
    ARGUMENTS are JSON values. Interruptions: count:20, every:7, time:0.5s, progress:40%, flag, signal:TERM@…,
    and, with --broker redis, kill:horse@…, kill:worker@…, kill:both@….

    \b
    harness run scenarios.orders --interrupt count:20
    harness run scenarios.emails --form steps --interrupt signal:TERM --pace 0.01
    harness run scenarios.orders --broker redis --interrupt kill:both@count:20 --durability 'with_transaction()'
    harness run scenarios.orders --queue celery --broker rabbitmq --interrupt kill:horse@count:20
    harness run shop.jobs:Import 17 --interrupt every:100
    """
    chosen = [interruptions.parse_interruption(each) for each in names]
    durability = parse_durability(durable) if durable else None
    found = job_or_scenario(name)
    if isinstance(found, Scenario):
        refuse_arguments(name, arguments)
        refuse_durability_of_plain(forms, "durable")
        from harness.cli.trials import run_scenario  # trials need the test extra, a user's job does not

        run_scenario(found, forms or found.form_names, chosen, durability, as_json=as_json, **options)
    else:
        refuse(f"{name} is a job class", "a scenario", "forms", *options)
        _run_job(found, arguments_of(arguments), chosen, durability, as_json=as_json)


def _run_job(
    found: type[job.Job],
    arguments: Sequence[Any],
    chosen: Sequence[interruptions.Interruption],
    durability: Durability | None,
    *,
    as_json: bool,
) -> None:
    for interruption in chosen:
        if interruption.by != "stop":
            raise UsageError(f"{interruption.name} needs a worker; without one use count, every, time, …")
        inline = InlineRun(found, *arguments, durability=durability)
        if interruption.where:
            inline.stops.append(interruption.where(0, time.monotonic))
        try:
            _execute(inline, found, as_json=as_json)
        except (HarnessError, Stopped):
            raise
        except Exception as error:  # noqa: BLE001 - a job may raise any exception
            echo(f"harness: {found.__name__} failed: {_told(error)}", err=True)
            sys.exit(1)
        if as_json and inline.progress is not None:
            echo(inline.progress.to_json())


def _execute(inline: InlineRun, found: type[job.Job], *, as_json: bool) -> None:
    with saying(partial(_kept, inline, found)), ItemBar(found.__name__, Console(stderr=True)) as bar:
        inline.stops.append(bar)
        for ended in inline.executions():
            if not as_json:
                line = f"{found.__name__} {ended.outcome} {printable(ended.reason or '')}".rstrip()
                echo(fill(line, WIDTH, subsequent_indent="  ") if len(line) > WIDTH else line)


def _told(error: Exception) -> str:
    """Return the error of a job, with the line of the job's code that raised it, if there is one."""
    from harness.explore.points import lines_of  # loads the explorer, which only a failure needs

    lines = lines_of(error)

    return f"{type(error).__name__}: {first_line(error)}" + (f" ({lines[-1]})" if lines else "")


def _kept(inline: InlineRun, job_class: type[job.Job]) -> str:
    progress = inline.progress
    if progress is None:
        return "nothing had started"
    if job_class.progress_store() is None:
        return f"{progress.done:,} items were done; the cursor was only in memory and is lost"
    return f"{progress.done:,} items were done; job {inline.job_id} can be resumed"
