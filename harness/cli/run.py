"""Run: enqueue, worker, run. Jobs and scenarios are found by dotted name."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click
import rq as rq_package
from rich.console import Console
from rq.job import Job as RQJob

from harness import interruptions, job, lab
from harness import scenario as scenarios
from harness.cli.settings import (
    DATABASE,
    arguments_of,
    connected,
    database_option,
    first_line,
    json_option,
    queue_at,
    queue_option,
    redis_option,
    refuse,
    refuse_arguments,
    refuse_durability_of_plain,
)
from harness.cli.stopping import HardStop, Stopped, saying
from harness.durability import Durability
from harness.durability import parse as parse_durability
from harness.errors import HarnessError, UsageError
from harness.explore.points import lines_of
from harness.ledger import marking
from harness.monitor import ItemBar, TrialBar
from harness.queues import rq
from harness.queues.inline import InlineRun

KINDS = {"fork": rq.Worker, "spawn": rq.SpawnWorker, "simple": rq.SimpleWorker}
NO_LIMIT = -1


@click.command()
@click.argument("name")
@click.argument("arguments", nargs=-1)
@click.option(
    "--form", default="iteration", show_default=True, help="Of a scenario: plain, steps or iteration."
)
@click.option("--id", "job_id", help="The job's id; a new one by default.")
@click.option(
    "--timeout", type=int, default=NO_LIMIT, help="Seconds an execution may last; no limit by default."
)
@click.option("--retry", type=click.IntRange(1), metavar="N", help="How often RQ retries after an error.")
@redis_option
@queue_option
@json_option
def enqueue(
    *,
    name: str,
    arguments: Sequence[str],
    form: str,
    job_id: str | None,
    timeout: int,
    retry: int | None,
    redis_url: str,
    queue_name: str,
    as_json: bool,
) -> None:
    """Put a job into a queue, and print its id.

    NAME is a job class, such as shop.jobs:Import, or a module with a scenario, such as scenarios.orders. ARGUMENTS are
    JSON values.

    \b
    harness enqueue shop.jobs:Import 17
    harness enqueue scenarios.orders --form steps --id nightly
    """
    found = _job_or_scenario(name)
    options: dict[str, Any] = {"job_id": job_id, "timeout": timeout}
    if retry:
        options["retry"] = rq_package.Retry(max=retry)
    with connected(redis_url) as connection:
        queue = queue_at(connection, queue_name)
        if job_id and RQJob.exists(job_id, connection=connection):
            raise UsageError(
                f"there is a job {job_id!r} already; choose another id, or see `harness explain {job_id}`"
            )
        if isinstance(found, scenarios.Scenario):
            refuse_arguments(name, arguments)
            chosen = _form(found, form)
            if form == "plain":
                enqueued = queue.enqueue_call(chosen, args=(found.arguments(),), **options)
            else:
                enqueued = rq.enqueue(queue, chosen, options=options)
        else:
            refuse(f"{name} is a job class", "a scenario", "form")
            enqueued = rq.enqueue(queue, found, *arguments_of(arguments), options=options)
        described = {"id": enqueued.id, "queue": queue_name, "description": enqueued.description}
        click.echo(json.dumps(described) if as_json else enqueued.id)


@click.command()
@click.argument("queue_names", metavar="[QUEUE]...", nargs=-1)
@click.option(
    "--kind", type=click.Choice(list(KINDS)), default="fork", show_default=True, help="How jobs are run."
)
@click.option("--burst", is_flag=True, help="Leave when the queues are empty.")
@click.option("--name", help="The worker's name; a new one by default.")
@click.option("--log", "level", default="INFO", show_default=True, help="DEBUG, INFO, WARNING or ERROR.")
@click.option(
    "--pace",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Seconds each item lasts that calls mark(); to watch it.",
)
@redis_option
@database_option
def worker(
    *,
    pace: float,
    queue_names: Sequence[str],
    kind: str,
    burst: bool,
    name: str | None,
    level: str,
    redis_url: str,
    database_url: str | None,
) -> None:
    """Work on the jobs of queues, until told to stop.

    It is RQ's worker with jobs that hear of a shutdown: `rq worker -w harness.queues.rq.Worker` does the same.

    \b
    harness worker
    harness worker urgent default --burst
    harness worker --pace 0.05
    """
    if level.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise UsageError(f"--log: found {level!r}, allowed are DEBUG, INFO, WARNING, ERROR")
    asked = {} if database_url is None else {DATABASE: database_url}
    with connected(redis_url) as connection, lab.variables(**asked):
        queues = [queue_at(connection, each) for each in queue_names or ("default",)]
        try:
            working = KINDS[kind](queues, name, connection=connection)
            with marking((lambda _: time.sleep(pace)) if pace else (lambda _: None)):
                working.work(burst=burst, logging_level=level.upper(), with_scheduler=True)
        except ValueError as error:  # RQ's word for a name that is taken
            raise UsageError(str(error)) from None
    click.echo("the worker has left; a job that it was at is back in its queue", err=True)


@click.command()
@click.argument("name")
@click.argument("arguments", nargs=-1)
@click.option(
    "--form", "forms", multiple=True, help="Of a scenario: plain, steps, iteration; all by default."
)
@click.option("--interrupt", "names", multiple=True, default=("none",), help="Interrupt so; may be repeated.")
@click.option("--size", default="quick", show_default=True, help="Of a scenario's data: tiny, quick or full.")
@click.option("--pace", type=float, default=0.0, show_default=True, help="Seconds that each item lasts.")
@click.option("--broker", default="fakeredis", show_default=True,
              help="fakeredis; redis: a private server, real workers; or the URL of an empty Redis.")  # fmt: skip
@click.option(
    "--database",
    help="postgresql for a private server, or the URL of an empty database; SQLite files by default.",
)
@click.option("--durability", "durable", help="In place of the job's own, such as with_transaction().")
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON, one a line.")
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
    """Run a scenario, or a job of your own, to its end, interrupted as told, and say what was lost or done twice.

    NAME is a module with a scenario, such as scenarios.orders, or a job class, such as shop.jobs:Import; the job's
    ARGUMENTS are JSON values. Interruptions: count:20, every:7, time:0.5s, progress:40%, flag, signal:TERM@…,
    and, with --broker redis, kill:horse@…, kill:worker@…, kill:both@….

    \b
    harness run scenarios.orders --interrupt count:20
    harness run scenarios.emails --form steps --interrupt signal:TERM --pace 0.01
    harness run scenarios.orders --broker redis --interrupt kill:both@count:20 --durability 'with_transaction()'
    harness run shop.jobs:Import 17 --interrupt every:100
    """
    chosen = [interruptions.parse(each) for each in names]
    durability = parse_durability(durable) if durable else None
    found = _job_or_scenario(name)
    if isinstance(found, scenarios.Scenario):
        refuse_arguments(name, arguments)
        refuse_durability_of_plain(forms, "durable")
        _run_scenario(found, forms or found.form_names, chosen, durability, as_json=as_json, **options)
    else:
        refuse(f"{name} is a job class", "a scenario", "forms", *options)
        _run_job(found, arguments_of(arguments), chosen, durability, as_json=as_json)


def _job_or_scenario(name: str) -> type[job.Job] | scenarios.Scenario:
    found = job.find(name)
    if isinstance(found, type) and issubclass(found, job.Job):
        return found
    scenario = getattr(found, "scenario", found)
    if not isinstance(scenario, scenarios.Scenario):
        raise UsageError(
            f"{name!r} is neither a scenario nor a job; allowed is a module with a scenario, such as scenarios.orders, "
            "or a job class, such as shop.jobs:Import"
        )
    return scenario


def _form(scenario: scenarios.Scenario, form: str) -> Any:
    scenario.check_form(form)
    return scenario.forms[form]


def _run_scenario(
    scenario: scenarios.Scenario,
    forms: Sequence[str],
    chosen: Sequence[interruptions.Interruption],
    durability: Durability | None,
    *,
    as_json: bool,
    **options: Any,
) -> None:
    good, kept = True, "nothing was kept"
    bar = TrialBar(len(forms) * len(chosen), Console(stderr=True), lines=0)
    with ExitStack() as stack:
        stack.callback(bar.stop)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(saying(lambda: kept))
        laboratory = stack.enter_context(lab.Lab(folder, **options))
        hard = None
        if laboratory.services.broker is None:
            hard = stack.enter_context(HardStop(folder, lambda: kept, bar.stop))
        for form in forms:
            for interruption in chosen:
                if hard is not None:
                    hard.expected = interruption.by == interruptions.SIGNALS["INT"]
                bar.begin(f"{form} {interruption.name}")
                record = laboratory.run(scenario, form, interruption, durability)
                good = good and record["verdict"] == "exactly once"
                bar.tell(json.dumps(record) if as_json else line(record))
                kept = "the records above are complete, nothing else was kept"
                bar.advance()
    sys.exit(0 if good else 1)


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
            raise UsageError(
                f"{interruption.name} needs a worker; a job alone can be stopped by count, every, time, …"
            )
        inline = InlineRun(found, *arguments, durability=durability)
        if interruption.where:
            inline.stops.append(interruption.where(0, time.monotonic))
        try:
            _execute(inline, found, as_json=as_json)
        except (HarnessError, Stopped):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a job may raise
            click.echo(f"harness: {found.__name__} failed: {_told(error)}", err=True)
            sys.exit(1)
        if as_json and inline.progress is not None:
            click.echo(inline.progress.to_json())


def _execute(inline: InlineRun, found: type[job.Job], *, as_json: bool) -> None:
    with saying(partial(_kept, inline, found)), ItemBar(found.__name__, Console(stderr=True)) as bar:
        inline.stops.append(bar)
        for ended in inline.executions():
            if not as_json:
                click.echo(f"{found.__name__} {ended.outcome} {ended.reason or ''}".rstrip())


def _told(error: Exception) -> str:
    """Say what a job raised, and in which line of its own code, if it came so far."""
    lines = lines_of(error)
    return f"{type(error).__name__}: {first_line(error)}" + (f" ({lines[-1]})" if lines else "")


def _kept(inline: InlineRun, job_class: type[job.Job]) -> str:
    progress = inline.progress
    if progress is None:
        return "nothing had begun"
    if job_class.progress_store() is None:
        return f"{progress.done:,} items were done; where, was in memory only, and is gone"
    return f"{progress.done:,} items were done, and job {inline.job_id} knows where it was"


def line(record: dict[str, Any]) -> str:
    """Return a record in one line."""
    return (
        f"{record['scenario']:8} {record['pattern']:10} {record['interruption']:24} {record['verdict']:14} "
        f"executions {record['executions']}, items {record['items']}, lost {record['lost']}, "
        f"duplicated {record['duplicated']}, repeated {record['repeated']}"
    )
