"""``harness web``: the page that shows jobs live and steers them, and its demo."""

from __future__ import annotations

import os
import socket
import tempfile
import webbrowser
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from harness.boundary.urls import shown
from harness.cli.app import needing
from harness.cli.apps import find_app
from harness.cli.output import echo
from harness.cli.settings import (
    connected,
    database_option,
    engine_of,
    redis_option,
    scenario_named,
    scenario_option,
)
from harness.cli.stopping import saying
from harness.errors import UsageError
from harness.job import Job, find

TOKEN = "HARNESS_WEB_TOKEN"  # noqa: S105 - the name of a variable
PORT = 8077
DEMO_KEPT = "nothing was kept: the demo used private services"


@click.command()
@click.option(
    "--demo", "as_demo", is_flag=True, help="A private Redis, workers and jobs to kill with the mouse."
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="Port to listen on; 0 for a free one.",
)
@click.option("--token-file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help=f"Ask users for the token in FILE; or set {TOKEN}.")  # fmt: skip
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Allowed host name in the address; may be repeated.",
)
@click.option(
    "--job", "job_names", multiple=True, metavar="CLASS", help="Class that may be enqueued; may be repeated."
)
@click.option(
    "--app",
    "app_name",
    metavar="MODULE:NAME",
    help="Enqueue on a Celery app or a Dramatiq broker, not on RQ.",
)
@click.option("--open", "browse", is_flag=True, help="Open a browser.")
@redis_option
@database_option
@click.option("--queue", "queues", multiple=True, metavar="NAME", help="Queue to show; all by default.")
@scenario_option
def web(
    *,
    as_demo: bool,
    host: str,
    port: int,
    token_file: Path | None,
    hosts: Sequence[str],
    job_names: Sequence[str],
    app_name: str | None,
    browse: bool,
    redis_url: str,
    database_url: str | None,
    queues: Sequence[str],
    names: Sequence[str],
) -> None:
    """Show jobs on a web page, live, and steer them from it.

    Without a token it listens on this machine only. With one, each visitor enters it as the password, with a
    user name for the history of the jobs. A form enqueues jobs of the classes given by --job.

    \b
    harness web --demo
    harness web --job shop.jobs:Import
    harness web --job shop.jobs:Import --app shop.celery:app
    harness web --host 0.0.0.0 --allow-host jobs.example.com --token-file /run/secrets/web
    """
    with needing():
        from harness.web import serving
    token = _token(token_file)
    listening = serving.listen(host, port, protected=bool(token))
    settings: dict[str, Any] = {"token": token, "hosts": hosts, "listening": listening, "browse": browse}
    with ExitStack() as stack:
        stack.enter_context(listening)
        if as_demo:
            show_demo(**settings)
            return
        stack.enter_context(saying("the jobs continue"))
        connection = stack.enter_context(connected(redis_url))
        app = None if app_name is None else find_app(app_name)[1]
        jobs = [_job_class(name) for name in job_names]
        tables = None
        if database_url:
            from harness.monitor import StatusTables

            selects = [each.statuses() for each in map(scenario_named, names) if each.statuses is not None]
            tables = StatusTables(engine_of(database_url), selects)
            stack.callback(tables.close)
        _serve(
            connection, jobs=jobs, queues=queues, tables=tables, enqueue_on=app, where=shown(redis_url), **settings
        )  # fmt: skip


def show_demo(
    *,
    token: str | None = None,
    hosts: Sequence[str] = (),
    listening: socket.socket | None = None,
    browse: bool = False,
) -> None:
    """Serve the demo until Ctrl-C."""
    with needing():
        from harness.web import serving
        from harness.web.orders import scenario
        from harness.web.stage import Stage
    from harness.lab.servers import redis_server

    with ExitStack() as stack:
        stack.enter_context(saying(DEMO_KEPT))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harness-demo-")))
        broker = stack.enter_context(redis_server()).url
        stage = stack.enter_context(Stage(scenario, broker, folder))
        connection = stack.enter_context(connected(broker))
        if listening is None:
            listening = serving.listen("127.0.0.1", PORT, protected=bool(token))
        shown_as: dict[str, Any] = {"where": "demo: a private Redis", "stage": stage}
        _serve(connection, token=token, hosts=hosts, listening=listening, browse=browse, **shown_as)


def _serve(
    connection: Any,
    *,
    token: str | None,
    hosts: Sequence[str],
    listening: socket.socket,
    browse: bool,
    **settings: Any,
) -> None:
    from harness.web import create_app, loopback_only, serving, token_access
    from harness.web.access import LOOPBACK_HOSTS

    address, port = listening.getsockname()[:2]
    allowed = {*LOOPBACK_HOSTS, address, *hosts}
    access = token_access(token) if token else loopback_only
    app = create_app(connection, access=access, hosts=allowed, **settings)
    name = hosts[0] if hosts else f"[{address}]" if ":" in address else address
    url = f"http://{name}:{port}/"
    echo(f"harness web: {url}  (Ctrl-C to quit)", err=True)
    if browse:
        webbrowser.open(url)
    serving.serve(app, listening)


def _token(file: Path | None) -> str | None:
    """Return the token; it is not an option, because all users can see the command line."""
    if file is None:
        return os.environ.get(TOKEN) or None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {getattr(error, 'strerror', 'it is not UTF-8')}") from None
    if not token:
        raise UsageError(f"{file} is empty; write a token into it, for example from `openssl rand -hex 16`")
    return token


def _job_class(name: str) -> type[Job]:
    found = find(name)
    if not (isinstance(found, type) and issubclass(found, Job)):
        raise UsageError(f"{name!r} is not a job class; use one such as shop.jobs:Import")
    return found
