"""Work: enqueue, worker. Jobs and scenarios are found by dotted name."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from typing import Any

import click
import rq as rq_package
from rq.job import Job as RQJob

from harness.boundary.environment import variables
from harness.cli import apps
from harness.cli.completion import scenarios
from harness.cli.output import echo
from harness.cli.settings import (
    DATABASE,
    GIVEN,
    arguments_of,
    connected,
    database_option,
    engine_of,
    job_or_scenario,
    json_option,
    queue_at,
    queue_option,
    redis_option,
    refuse,
    refuse_arguments,
)
from harness.errors import UsageError
from harness.ledger import marking
from harness.queues import rq
from harness.queues.apps import enqueue as enqueue_on
from harness.scenario import Scenario

KINDS = {"fork": rq.Worker, "spawn": rq.SpawnWorker, "simple": rq.SimpleWorker}
NO_LIMIT = -1


@click.command()
@click.argument("name", shell_complete=scenarios)
@click.argument("arguments", nargs=-1)
@click.option(
    "--form", default="iteration", show_default=True, help="Form of a scenario: plain, steps or iteration."
)
@click.option("--id", "job_id", help="Id of the job; a new one by default.")
@click.option(
    "--timeout", type=int, default=NO_LIMIT, help="Time limit of an execution, in seconds; none by default."
)
@click.option("--retry", type=click.IntRange(1), metavar="N", help="Number of retries after an error.")
@apps.app_option
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
    app_name: str | None,
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
    harness enqueue --app shop.celery:app shop.jobs:Import 17
    harness enqueue --app shop.celery:app --queue slow --retry 3 shop.jobs:Import 17
    """
    if job_id is not None and not re.fullmatch("[A-Za-z0-9_-]+", job_id):
        raise UsageError(f"got the id {job_id!r}; use letters, digits, dashes and underscores, as RQ does")
    found = job_or_scenario(name)
    if app_name is not None:
        _enqueue_on(app_name, name, found, arguments=arguments, job_id=job_id, retry=retry, as_json=as_json)
        return
    options: dict[str, Any] = {"job_id": job_id, "timeout": timeout}
    if retry:
        options["retry"] = rq_package.Retry(max=retry)
    with connected(redis_url) as connection:
        queue = queue_at(connection, queue_name)
        if job_id and RQJob.exists(job_id, connection=connection):
            raise UsageError(
                f"a job {job_id!r} already exists; choose another id, or see `harness explain {job_id}`"
            )
        if isinstance(found, Scenario):
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
    "--kind", type=click.Choice(list(KINDS)), default="fork", show_default=True, help="Kind of worker."
)
@click.option("--burst", is_flag=True, help="Exit when the queues are empty.")
@click.option("--name", help="The worker's name; a new one by default.")
@click.option("--log", "level", default="INFO", show_default=True, help="DEBUG, INFO, WARNING or ERROR.")
@click.option(
    "--pace",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Duration of each item that calls mark(), in seconds; to watch it.",
)
@apps.app_option
@redis_option
@database_option
def worker(
    *,
    app_name: str | None,
    pace: float,
    queue_names: Sequence[str],
    kind: str,
    burst: bool,
    name: str | None,
    level: str,
    redis_url: str,
    database_url: str | None,
) -> None:
    """Run the jobs of queues until asked to stop.

    This is RQ's worker, but jobs stop at a shutdown: `rq worker -w harness.queues.rq.Worker` does the same.

    \b
    harness worker
    harness worker urgent default --burst
    harness worker --pace 0.05
    harness worker --app shop.celery:app -- --concurrency 4

    With --app this is Celery's or Dramatiq's own worker; options after -- are passed to it.
    """
    if app_name is not None:
        refuse(
            "--app names another queue",
            "RQ",
            "kind",
            "burst",
            "name",
            "level",
            "pace",
            "redis_url",
            "database_url",
        )
        apps.run_worker(app_name, queue_names)
        return
    if level.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise UsageError(f"--log: got {level!r}; use DEBUG, INFO, WARNING or ERROR")
    asked = {} if database_url is None else {DATABASE: database_url}
    if database_url is not None:
        engine_of(database_url).dispose()
    with connected(redis_url) as connection, variables(**asked):
        queues = [queue_at(connection, each) for each in queue_names or ("default",)]
        try:
            working = KINDS[kind](queues, name, connection=connection)
            with marking((lambda _: time.sleep(pace)) if pace else (lambda _: None)):
                working.work(burst=burst, logging_level=level.upper(), with_scheduler=True)
        except ValueError as error:  # RQ raises it for a name that is already in use
            raise UsageError(str(error)) from None
    echo("the worker has exited; an unfinished job is back in its queue", err=True)


def _enqueue_on(
    app_name: str,
    name: str,
    found: Any,
    *,
    arguments: Sequence[str],
    job_id: str | None,
    retry: int | None,
    as_json: bool,
) -> None:
    refuse("--app names the broker", "RQ", "redis_url", "timeout", "form")
    if isinstance(found, Scenario):
        raise UsageError(f"{name} is a scenario, which runs on RQ; leave --app out, or name a job class")
    context = click.get_current_context()
    queue = context.params["queue_name"] if context.get_parameter_source("queue_name") in GIVEN else None
    app, values = apps.find_app(app_name)[1], arguments_of(arguments)
    enqueued = enqueue_on(app, found, values, {}, job_id=job_id, queue=queue, retries=retry)
    click.echo(json.dumps({"id": enqueued, "app": app_name}) if as_json else enqueued)


def _form(scenario: Scenario, form: str) -> Any:
    scenario.check_form(form)
    return scenario.forms[form]
