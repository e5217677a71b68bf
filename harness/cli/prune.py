"""Prune: remove old records of finished jobs."""

from __future__ import annotations

import json
import re

import click

from harness.cli.output import echo
from harness.cli.settings import connected, database, database_option, json_option, redis_option
from harness.queues.rq.pruning import Pruned, prune_redis, prune_sql
from harness.stores.sql import SqlStore

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
"""Units of an age, in seconds."""


def _seconds(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """Return an age in seconds."""
    found = re.fullmatch(r"([0-9]{1,9})([smhdw])", value)
    if found is None:
        raise click.BadParameter(
            f"got {value!r}; use a number and a unit, such as 30d, 12h or 90m", context, parameter
        )
    return float(int(found[1]) * UNITS[found[2]])


@click.command()
@click.option(
    "--older-than",
    "seconds",
    callback=_seconds,
    required=True,
    metavar="AGE",
    help="Minimum age, such as 30d, 12h or 90m.",
)
@click.option("--dry-run", is_flag=True, help="Count only; remove nothing.")
@click.option(
    "--unfinished", is_flag=True, help="Also records of jobs that the queue still has; they start over."
)
@redis_option
@database_option
@json_option
def prune(
    *,
    seconds: float,
    dry_run: bool,
    unfinished: bool,
    redis_url: str,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Remove progress and history older than AGE, in batches.

    Redis is always searched, a database only if you name one. Records of unfinished jobs that a queue still
    has are kept. Give the Redis of the queues: a job that only another Redis has counts as gone.

    \b
    harness prune --older-than 30d --dry-run
    harness prune --older-than 30d --database postgresql+psycopg://me@localhost/shop
    """
    found: dict[str, Pruned] = {}
    with connected(redis_url) as connection:
        if database_url:
            with database(database_url) as engine:
                found["database"] = prune_sql(
                    SqlStore(engine), connection, seconds, dry_run=dry_run, unfinished=unfinished
                )
        found["redis"] = prune_redis(connection, seconds, dry_run=dry_run, unfinished=unfinished)
    if as_json:
        data = {name: {"removed": each.removed, "kept": each.kept} for name, each in found.items()}
        click.echo(json.dumps({"dry_run": dry_run, **data}))
        return
    for name, each in found.items():
        parts = [f"{number:,} {kind}" for kind, number in each.removed.items()] or ["nothing"]
        kept = f"; {each.kept:,} kept, because the queue still has their jobs" if each.kept else ""
        echo(f"{'would remove' if dry_run else 'removed'} from {name}: {', '.join(parts)}{kept}")
