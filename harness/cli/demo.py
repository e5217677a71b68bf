"""``harness demo``: four shows, automated and narrated, with real workers where a Redis server is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from harness.cli.app import needing
from harness.cli.script import COMPARED, COMPARED_PACE, DEMOS, FAST_PACE, QUEUES
from harness.cli.settings import scenario_named
from harness.errors import UsageError
from harness.lab.servers import find_redis


@click.command()
@click.argument("which", type=click.Choice([*DEMOS, "compare"]), required=False)
@click.option(
    "--web", "on_page", is_flag=True, help="On a web page, where you start and kill jobs with the mouse."
)
@click.option("--pace", type=click.Choice(["talk", "fast"]), default="talk", show_default=True,
              help="Pace for an audience, or as fast as possible.")  # fmt: skip
@click.option("--step", is_flag=True, help="Wait for a key before each act.")
@click.option("--embedded", is_flag=True, help="Without real workers, even if a Redis server is installed.")
@click.option("--queue", type=click.Choice([*QUEUES, "all"]), default="rq", show_default=True,
              help="Queue that runs the jobs of compare, or all for a comparison.")  # fmt: skip
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), default=Path("reports"),
              show_default=True, help="Folder for the report of compare.")  # fmt: skip
def demo(
    which: str | None, pace: str, embedded: bool, queue: str, folder: Path, *, on_page: bool, step: bool
) -> None:
    """Show a demo: orders (35 s), reports (50 s), emails (40 s), compare (150 s).

    With a Redis server on the path, the workers are real processes, and the demo kills them. Without one,
    everything runs in this process, and jobs are stopped without kills. So does compare at the fast pace.
    Exit code 1 if a job with checkpoints lost anything.

    \b
    harness demo orders
    harness demo orders --step
    harness demo --web
    harness demo compare --to reports
    harness demo compare --queue all
    harness demo emails --pace fast --embedded
    """
    if on_page and which is not None:
        raise UsageError(f"got {which} and --web, which shows orders; leave out the name")
    if not on_page and which is None:
        raise UsageError(f"got no name; use one of {', '.join([*DEMOS, 'compare'])}, or give --web")
    if queue != "rq" and (which != "compare" or embedded):
        raise UsageError(f"--queue {queue} is for compare with real workers; leave it or --embedded out")
    if step and (on_page or which == "compare"):
        raise UsageError("--step is for orders, reports and emails")
    if step and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("--step waits for a key, which needs a terminal; leave it out")
    if which is None:
        from harness.cli.web import show_demo

        show_demo()
        return
    for name in COMPARED:
        scenario_named(name)  # raises early if there are none
    with needing("demo"):
        from harness.cli import shows
    real = find_redis() is not None and not embedded
    fast = pace == "fast"
    if which == "compare":
        real = real and (not fast or queue != "rq")
        queues = [each for each in QUEUES if queue in {each, "all"}]
        good = shows.compare(real, FAST_PACE if fast else COMPARED_PACE, folder, queues)
    else:
        good = shows.show(DEMOS[which], real, fast=fast, step=step)
    sys.exit(0 if good else 1)
