"""Check and prepare: verify, init-db, seed, reset."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

import click
from click.core import ParameterSource
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from harness.boundary.texts import printable
from harness.boundary.urls import shown
from harness.cli.checks import checks
from harness.cli.output import echo
from harness.cli.settings import (
    DEMO,
    connected,
    database,
    database_option,
    json_option,
    queue_at,
    queue_option,
    redis_option,
    scenario_named,
    scenario_option,
)
from harness.cli.stopping import Stopped, saying
from harness.errors import UsageError
from harness.scenario import Scenario
from harness.stores.sql import SqlStore

SIGNS = {"ok": "ok  ", "note": "note", "bad": "BAD "}


@click.command()
@redis_option
@database_option
@json_option
@click.pass_context
def verify(context: click.Context, redis_url: str, database_url: str | None, as_json: bool) -> None:
    """Check the installation and the services, and say how to fix them.

    A note is about something optional. Exit code 1 if something must be fixed.

    \b
    harness verify
    harness verify --redis redis://cache:6379 --json
    """
    named = context.get_parameter_source("redis_url") is not ParameterSource.DEFAULT
    found = list(checks(redis_url, named, database_url))
    if as_json:
        click.echo(json.dumps([asdict(check) for check in found]))
    else:
        for check in found:
            echo(f"{SIGNS[check.state]} {check.name}: {check.found}")
            if check.mend:
                echo(f"     -> {check.mend}")
    sys.exit(any(check.state == "bad" for check in found))


@click.command("init-db")
@database_option
@click.option("--demo", is_flag=True, help="Also the tables of the scenarios.")
@scenario_option
def init_db(database_url: str | None, demo: bool, names: Sequence[str]) -> None:
    """Create the tables for the progress of jobs, if missing.

    \b
    harness init-db --database sqlite:///demo.db --demo
    harness init-db --database postgresql+psycopg://me@localhost/shop
    """
    with database(database_url, make=True) as engine:
        SqlStore(engine).create()
        echo("created: the tables for the progress of jobs")
        if demo:
            for scenario in _distinct(names or DEMO):
                if scenario.create is not None:
                    _closing(scenario, scenario.create)
                echo(f"created: the tables of {scenario.name}")


@click.command()
@click.argument("size", default="quick")
@click.option(
    "--orders", type=click.IntRange(0), metavar="N", help="Number of pending orders, instead of SIZE."
)
@click.option(
    "--customers", type=click.IntRange(1), metavar="N", help="Number of customers with orders to report on."
)
@click.option("--mails", type=click.IntRange(0), metavar="N", help="Number of mails to send.")
@database_option
@scenario_option
@json_option
def seed(
    size: str, database_url: str | None, names: Sequence[str], as_json: bool, **numbers: int | None
) -> None:
    """Fill the empty tables.

    SIZE is tiny, quick or full; options set other numbers. The rows are always the same. The demo's scenarios
    share their tables, so the first given scenario fills them.

    \b
    harness seed quick --database sqlite:///demo.db
    harness seed --orders 2000 --customers 50 --mails 500
    """
    given = {name: number for name, number in numbers.items() if number is not None}
    if given:
        size = ",".join(f"{name}={number}" for name, number in given.items())
    scenario = scenario_named((names or DEMO)[0])
    with (
        saying("nothing was kept: the transaction was rolled back"),
        database(database_url, make=True) as engine,
    ):
        try:
            _closing(scenario, lambda: scenario.fill(size))
        except IntegrityError:
            raise UsageError("the tables already have rows; run `harness reset` first") from None
        counts = _row_counts(engine, names)
        if as_json:
            click.echo(json.dumps(counts))
        else:
            for what, statuses in counts.items():
                echo(f"{what}: " + ", ".join(f"{number:,} {status}" for status, number in statuses.items()))


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--jobs", is_flag=True, help="Also remove the waiting jobs of the queue.")
@database_option
@redis_option
@queue_option
@scenario_option
def reset(
    *, yes: bool, jobs: bool, database_url: str | None, redis_url: str, queue_name: str, names: Sequence[str]
) -> None:
    """Drop the tables that init-db created, with all rows.

    \b
    harness reset --database sqlite:///demo.db
    harness reset --yes --jobs
    """
    with database(database_url) as engine:
        where = shown(engine.url.render_as_string(hide_password=False))
        question = f"Drop the demo's tables and the progress of all jobs in {where}?"
        if not (yes or click.confirm(printable(question), err=True)):
            raise Stopped("nothing was dropped")
        for scenario in _distinct(names):
            _closing(scenario, scenario.clear)
        SqlStore(engine).drop()
        echo(f"dropped: the tables of the scenarios and of progress in {where}")
    if jobs:
        with connected(redis_url) as connection:
            echo(f"removed: {queue_at(connection, queue_name).empty()} jobs of queue {queue_name}")


def _distinct(names: Sequence[str]) -> list[Scenario]:
    return [scenario_named(name) for name in dict.fromkeys(names)]


def _closing(scenario: Scenario, action: Callable[[], object]) -> None:
    try:
        action()
    finally:
        scenario.close()


def _row_counts(engine: Engine, names: Sequence[str]) -> dict[str, dict[str, int]]:
    from harness.monitor.tables import (
        StatusTables,
    )  # its package loads rich, which the other commands here do not need

    selects = [each.statuses() for each in _distinct(names) if each.statuses is not None]
    return StatusTables(engine, selects).count()[0]
