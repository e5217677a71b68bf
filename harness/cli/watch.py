"""Watch: status, monitor, explain."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
from redis import Redis, RedisError
from rich.console import Console
from rq.job import Job as RQJob

from harness.boundary.urls import shown
from harness.cli.completion import job_ids
from harness.cli.output import echo
from harness.cli.settings import (
    connected,
    database_option,
    engine_of,
    json_option,
    redis_option,
    scenario_named,
    scenario_option,
)
from harness.cli.steer import the_job
from harness.cli.stopping import saying
from harness.errors import ProgressError, UsageError
from harness.monitor import (
    WIDTH,
    LiveScreen,
    Monitor,
    Snapshot,
    StatusTables,
    draw,
    story_picture,
    story_text,
    summary,
)
from harness.monitor.story import story
from harness.progress import Progress
from harness.queues.history import history
from harness.queues.rq.steering import failure_of
from harness.queues.ticket_jobs import ticket_of
from harness.queues.watching import Watcher
from harness.stores.redis import RedisStore
from harness.stores.rq_meta import RQMetaStore

FASTEST = 0.25
"""Minimum seconds between two refreshes."""
LINE_SECONDS = 10.0

queues_option = click.option(
    "--queue", "queues", multiple=True, metavar="NAME", help="Queue to show; all by default."
)
watching = (redis_option, database_option, queues_option, scenario_option, json_option)


def watched(command: Any) -> Any:
    """Add the options that select what to watch."""
    for option in reversed(watching):
        command = option(command)
    return command


@click.command()
@watched
def status(
    redis_url: str, database_url: str | None, queues: Sequence[str], names: Sequence[str], as_json: bool
) -> None:
    """Print the current state once: jobs, rows of the database by status, queues, workers.

    \b
    harness status
    harness status --json | jq '.jobs[] | {id, done, total}'
    """
    with connected(redis_url) as connection, _monitor(connection, database_url, queues, names) as watching:
        _print(watching.refresh(), shown(redis_url), as_json=as_json)


@click.command()
@watched
@click.option("--once", is_flag=True, help="Print one screen and exit.")
@click.option("--every", type=click.FloatRange(min=FASTEST), default=0.5, show_default=True, metavar="SECONDS",
              help="Seconds between two reads.")  # fmt: skip
def monitor(
    *,
    redis_url: str,
    database_url: str | None,
    queues: Sequence[str],
    names: Sequence[str],
    as_json: bool,
    once: bool,
    every: float,
) -> None:
    """Watch running jobs on all machines: progress, speed, and the cost of a kill now.

    "Killed now, it would repeat 212 items, 0.8 s, and the item in progress": the items done in the 0.8 s since
    progress was last saved. A thread of the job reports it once a second, so the numbers are up to a second old.
    Without a terminal it prints a line every 10 s.

    \b
    harness monitor
    harness monitor --queue urgent --every 0.25
    harness monitor --once --json
    """
    where = shown(redis_url)
    with connected(redis_url) as connection, _monitor(connection, database_url, queues, names) as watching:
        if once:
            _print(watching.refresh(), where, as_json=as_json)
            return
        console = Console()
        with saying("the jobs continue"):
            if as_json:
                for snapshot in _snapshots(watching, every):
                    click.echo(json.dumps(snapshot.to_data()))
            elif console.is_terminal:
                _live(watching, where, every, console)
            else:
                for snapshot in _snapshots(watching, max(every, LINE_SECONDS)):
                    echo(summary(snapshot))


@click.command()
@click.argument("job_id", metavar="JOB", shell_complete=job_ids)
@click.option(
    "--svg",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also write it to FILE as SVG.",
)
@redis_option
@database_option
@json_option
def explain(job_id: str, svg: Path | None, redis_url: str, database_url: str | None, as_json: bool) -> None:
    """Show the history of a job: its executions, why each ended, what was repeated, where the time went.

    JOB is an id, or the beginning of one. The history keeps the last 100 executions, for 30 days. If the job
    keeps its progress in a database, name the database too, so that its progress is shown.

    \b
    harness explain 2f4e19
    harness explain 2f4e19 --svg story.svg
    harness explain 2f4e19 --database sqlite:///demo.db
    """
    with connected(redis_url) as connection:
        ticket = ticket_of(connection, job_id)
        job = the_job(connection, job_id) if ticket is None else ticket
        bad: list[str] = []
        entries, heartbeat = history(connection, job.id, bad)
        if bad:
            echo(f"left out: {len(bad)} entries of the history of job {job.id}: {bad[0]}", err=True)
        failure = failure_of(job) if isinstance(job, RQJob) else None
        if not any(each.what == "start" for each in entries):
            status = job.get_status(refresh=False).value if isinstance(job, RQJob) else job.state
            status += f" ({failure})" if failure else ""
            if ticket is not None and ticket.unknown:
                status += (
                    f" ({ticket.unknown} workers in a row could not import its class; their logs say why)"
                )
            raise UsageError(
                f"job {job.id} has no history: it is {status} and has not started, or is not a job of this package"
            )
        progress = _progress(connection, database_url, job.id)
        seconds, micros = connection.time()
    timeline = story(
        job.id, job.description or "", entries, heartbeat,
        now=seconds + micros / 1e6, progress=progress, failure=failure,
    )  # fmt: skip
    click.echo(json.dumps(timeline.to_data()) if as_json else story_text.text(timeline))
    if svg is not None:
        try:
            svg.write_text(story_picture.svg(timeline), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{svg} cannot be written: {error.strerror}") from None
        echo(f"written: {svg}", err=True)


def _progress(connection: Redis, database_url: str | None, job_id: str) -> Progress | None:
    """Return the progress of a job from its store; query the database only if Redis has none."""
    kept = None
    for store in (RedisStore(connection), RQMetaStore(connection)):
        try:
            kept = kept or store.load(job_id)
        except ProgressError as error:
            echo(f"left out: {error}", err=True)
    if kept is not None or not database_url:
        return kept
    tables = StatusTables(engine_of(database_url), [])
    try:
        kept = tables.count([job_id])[1].get(job_id)
    finally:
        tables.close()
    if kept is None:
        echo("the given database has no progress of this job; only its history is shown", err=True)
    return kept


@contextmanager
def _monitor(
    connection: Redis, database_url: str | None, queues: Sequence[str], names: Sequence[str]
) -> Iterator[Monitor]:
    with ExitStack() as stack:
        tables = None
        if database_url:
            selects = [each.statuses() for each in map(scenario_named, names) if each.statuses is not None]
            tables = StatusTables(engine_of(database_url), selects)
            stack.callback(tables.close)
        yield Monitor(Watcher(connection, queues), tables)


def _snapshots(watching: Monitor, every: float) -> Iterator[Snapshot]:
    pause = threading.Event()
    while True:
        yield watching.refresh()
        pause.wait(every)


def _live(watching: Monitor, where: str, every: float, console: Console) -> None:
    pause, snapshot = threading.Event(), watching.refresh()
    with LiveScreen(console) as screen:
        while True:
            screen.show(snapshot, where, "Ctrl-C to quit")
            pause.wait(every)
            try:
                snapshot = watching.refresh()
            except RedisError as error:
                screen.show(snapshot, where, f"no answer from Redis ({type(error).__name__}), trying again")
                pause.wait(every)


def _print(snapshot: Snapshot, where: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(snapshot.to_data()))
    else:
        console = Console(highlight=False)
        width = console.width if console.is_terminal else WIDTH
        Console(width=width, highlight=False).print(draw(snapshot, where, width=width))
