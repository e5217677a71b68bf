"""Shell completion of arguments: scenarios, interruptions, ids of jobs. It never fails and never waits long."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import click
from click.shell_completion import CompletionItem

ANSWER_SECONDS = 1.0
"""Timeout for Redis."""
SCENARIOS = ("scenarios.orders", "scenarios.reports", "scenarios.emails")
INTERRUPTIONS = (
    "none", "count:20", "every:7", "time:0.5s", "progress:40%", "flag", "step:NAME", "after-step:NAME", "signal:TERM",
    "signal:TERM@count:20", "signal:INT", "kill:horse", "kill:horse@count:20", "kill:worker", "kill:both",
)  # fmt: skip
"""Interruptions as examples to change: one of each kind."""
MOST = 200
"""Maximum number of ids to offer."""


def scenarios(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the demo's scenarios that begin with the text, if they can be imported."""
    del ctx, param
    # The command group adds this folder to the path, but shell completion does not run the group.
    there = Path("scenarios", "orders.py").is_file() or find_spec("scenarios") is not None
    return [CompletionItem(name) for name in SCENARIOS if there and name.startswith(incomplete)]


def interruptions(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return interruptions that begin with the text, as examples to change."""
    del ctx, param
    return [CompletionItem(name) for name in INTERRUPTIONS if name.startswith(incomplete)]


def job_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the ids of jobs that the monitor would show; none if Redis does not answer."""
    del param
    from redis import Redis

    from harness.cli.settings import REDIS_URL
    from harness.queues.rq.overview import Watcher

    url = ctx.params.get("redis_url") or os.environ.get("HARNESS_REDIS_URL") or REDIS_URL
    try:
        with Redis.from_url(
            url, socket_connect_timeout=ANSWER_SECONDS, socket_timeout=ANSWER_SECONDS
        ) as connection:
            jobs = Watcher(connection).look().jobs
    except Exception:  # noqa: BLE001 - shell completion must not print an error
        return []
    found = [job for job in jobs if job.id.startswith(incomplete)]
    return [CompletionItem(job.id, help=f"{job.status} {job.description}") for job in found[:MOST]]
