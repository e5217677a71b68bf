"""``harness explore``: crash a job at every point, and report the lines that lose or duplicate work."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console

from harness import explore as exploring
from harness import job
from harness import scenario as scenarios
from harness.cli import completion
from harness.cli.settings import arguments_of, refuse, refuse_arguments, refuse_durability_of_plain
from harness.cli.stopping import saying
from harness.durability import parse_durability
from harness.explore.explorer import LIMIT_SECONDS
from harness.explore.queued import QUEUES
from harness.explore.scenarios import PRIVATE, prepared
from harness.explore.versions import new_version
from harness.monitor import TrialBar


@click.command()
@click.argument("name", shell_complete=completion.scenarios)
@click.argument("arguments", nargs=-1)
@click.option(
    "--trial", "trials", multiple=True, help="Run only this trial, such as crash:commit#12; may be repeated."
)
@click.option(
    "--sample", type=click.IntRange(1), help="Maximum number of trials of each kind; all by default."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the samples.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdicts as JSON, one per line.")
@click.option("--first", is_flag=True, help="Stop at the first finding.")
@click.option(
    "--form", "forms", multiple=True, help="Form of a scenario: plain, steps or iteration; all by default."
)
@click.option("--size", default="tiny", show_default=True, help="Size of a scenario's data.")
@click.option(
    "--durability",
    help="Durability instead of the job's own, such as 'every(items=5)' or 'with_transaction()'.",
)
@click.option(
    "--deploy",
    metavar="OTHER",
    help="Resume with another version of the code: a module, or module:Name.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Exit with 1, not 3, if something was not seen; with --deploy also if the new version refuses to continue.",
)
@click.option(
    "--accept",
    multiple=True,
    metavar="NAME",
    help="Accept that this kind is not seen, such as process or socket; may be repeated.",
)
@click.option(
    "--limit",
    type=click.FloatRange(min=0, min_open=True),
    default=LIMIT_SECONDS,
    show_default=True,
    help="Time limit of an execution, in seconds.",
)
@click.option(
    "--time",
    type=click.FloatRange(min=0, min_open=True),
    help="Start no trials after this many seconds; no limit by default.",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    help="Number of processes that run trials; by default one on each core.",
)
@click.option(
    "--database",
    metavar="URL",
    help="PostgreSQL database for tests that the job uses; for a scenario an empty one, or 'postgresql' for a private "
    "server.",
)
@click.option(
    "--queue",
    type=click.Choice(QUEUES),
    default="inline",
    show_default=True,
    help="Queue that runs the job, in this process and with fakeredis: rq is RQ's worker, celery Celery's task on a "
    "broker in memory, dramatiq Dramatiq's actor on its StubBroker.",
)
@click.option(
    "--redis", metavar="URL", help="With such a queue, an empty Redis to use in place of fakeredis."
)
@click.option(
    "--whole", is_flag=True, help="Run every trial to its end, even if its result is already known."
)
def explore(
    name: str,
    arguments: Sequence[str],
    trials: Sequence[str],
    *,
    database: str | None,
    whole: bool,
    deploy: str | None,
    forms: Sequence[str],
    size: str,
    durability: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Crash a job at every point, and report the lines that lose or duplicate work.

    NAME is a job class or any function that changes a database, Redis, files, or sends mails or requests, such as
    shop.jobs:charge; ARGUMENTS are JSON values. NAME can also be a module with a scenario.

    \b
    harness explore shop.jobs:charge 17
    harness explore shop.jobs:charge 17 --trial crash:commit#12
    harness explore scenarios.reports --form steps --sample 20
    harness explore shop.jobs:Import --deploy shop_v2.jobs

    With --deploy, the job is interrupted in one version of the code and resumed in another, under the name of the
    first, as after a deploy. The other version may refuse by name to go on: that loses nothing if the old version,
    restored, can do the rest.

    The exit code is 0 for exactly once (or refused with nothing lost), 1 for any finding, 2 if the job cannot be
    explored, and 3 if nothing wrong was found but the job has effects that no probe sees.
    """
    found = job.find(name)
    asked = parse_durability(durability) if durability else None
    scenario = getattr(found, "scenario", found)
    _refuse_what_does_not_apply(name, found, scenario, forms, arguments)
    if deploy is not None:
        options["deploy"] = new_version(found, deploy)
    options["shortcuts"] = not whole
    if database == PRIVATE and not isinstance(scenario, scenarios.Scenario):
        raise click.UsageError(
            "--database postgresql starts a server for a scenario; give the URL that the job uses"
        )
    codes = []
    with saying("nothing was kept: it used private data"), _Bar() as options["progress"]:
        if isinstance(scenario, scenarios.Scenario):
            for form in forms or scenario.form_names:
                with prepared(scenario, form, size, asked, name=name, database=database) as (what, more):
                    codes.append(_explored(what, trials, {**options, **more}, as_json=as_json))
        else:
            what = [found, *arguments_of(arguments)]
            codes.append(
                _explored(
                    what, trials, {**options, "durability": asked, "database": database}, as_json=as_json
                )
            )
    sys.exit(min(filter(None, codes), default=0))


def _refuse_what_does_not_apply(
    name: str, found: Any, scenario: Any, forms: Sequence[str], arguments: Sequence[str]
) -> None:
    if isinstance(scenario, scenarios.Scenario):
        refuse(f"{name} is a scenario", "a job class or a function", "deploy", "queue", "redis")
        refuse_arguments(name, arguments)
        refuse_durability_of_plain(forms, "durability")
    elif isinstance(found, type) and issubclass(found, job.Job):
        refuse(f"{name} is a job class", "a scenario", "forms", "size")
    else:
        refuse(f"{name} is a plain function", "a scenario", "forms", "size")
        refuse(f"{name} is a plain function, which has no checkpoints", "a job class", "durability")


class _Bar:
    """Progress bar, created when its length is known."""

    def __init__(self) -> None:
        self._bar: TrialBar | None = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def __call__(self, done: int, planned: int, trial: str) -> None:
        """Show the number of trials that are done."""
        del trial  # that one is over
        if self._bar is None:
            self._bar = TrialBar(planned, Console(stderr=True), thread=False)
        self._bar.reach(done, planned)

    def end(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


NOT_SEEN = 3
"""Exit code if the explorer found nothing wrong, but the job has effects that no probe sees."""
LONG = 30.0
"""Seconds above which an estimate is shown."""


def _announce(trials: int, seconds: float) -> None:
    if seconds >= LONG:
        click.echo(
            f"{trials} trials or more, about {seconds:.0f} s; --sample and --time bound them", err=True
        )


def _explored(what: Sequence[Any], trials: Sequence[str], options: dict[str, Any], *, as_json: bool) -> int:
    options = {**options, "announce": _announce}
    with exploring.Explorer(*what, **options) as explorer:
        verdict = explorer.run([exploring.parse_trial(each) for each in trials] or None)
    options["progress"].end()
    click.echo(json.dumps(verdict.record) if as_json else verdict.text())
    if verdict.findings or (options["strict"] and verdict.not_seen):
        return 1
    return NOT_SEEN if verdict.not_seen else 0
