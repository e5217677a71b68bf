"""Options shared by several commands: Redis, queue, database, scenarios, JSON output."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import redis
import sqlalchemy as sa
from rq import Queue
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from harness import job
from harness.boundary.environment import variables
from harness.boundary.urls import reason, shown
from harness.errors import UsageError
from harness.scenario import Scenario

REDIS_URL = "redis://localhost:6379"
DEMO = ("scenarios.orders", "scenarios.reports", "scenarios.emails")
CONNECT_SECONDS = 5
DATABASE = "HARNESS_DATABASE_URL"
GIVEN = {click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT}
"""Sources that mean the user set the option explicitly."""

redis_option = click.option(
    "--redis", "redis_url", envvar="HARNESS_REDIS_URL", default=REDIS_URL, show_envvar=True, metavar="URL",
    show_default=True, help="Redis of RQ's queues.",
)  # fmt: skip
queue_option = click.option(
    "--queue", "queue_name", default="default", show_default=True, metavar="NAME", help="Which queue."
)
database_option = click.option(
    "--database", "database_url", envvar=DATABASE, show_envvar=True, metavar="URL",
    help="Database of the tables, such as sqlite:///demo.db.",
)  # fmt: skip
scenario_option = click.option(
    "--scenario", "names", multiple=True, callback=lambda _context, _option, names: names or demo_scenarios(),
    metavar="NAME", help="Module with a scenario, whose tables to use; the demo's by default. May be repeated.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@contextmanager
def connected(url: str) -> Iterator[redis.Redis]:
    """Yield a connection to a Redis that answers.

    :raises UsageError: if Redis does not answer; the message is one line without a password.
    """
    try:
        connection = redis.Redis.from_url(url, socket_connect_timeout=CONNECT_SECONDS)
    except ValueError as error:
        raise UsageError(
            f"{shown(url)} is not a Redis URL ({reason(error, url)}); use one such as {REDIS_URL}"
        ) from None
    with connection:
        try:
            connection.ping()
        except redis.RedisError as error:
            raise UsageError(
                f"no Redis answers at {shown(url)} ({type(error).__name__}); start one, or give another URL "
                "with --redis or HARNESS_REDIS_URL"
            ) from None
        yield connection


def queue_at(connection: redis.Redis, name: str) -> Queue:
    """Return a queue with the settings that harness jobs need."""
    return Queue(name, connection=connection, serializer="json")


@contextmanager
def database(url: str | None, *, make: bool = False) -> Iterator[sa.Engine]:
    """Yield the engine of a database that answers; during the block, jobs find its URL in the environment.

    :param make: whether to create a missing SQLite file.
    :raises UsageError: if no database answers; the message is one line without a password.
    """
    if not url:
        raise UsageError(
            f"no database is given; use --database or set {DATABASE}, for example to sqlite:///demo.db"
        )
    engine = engine_of(url, make=make)
    try:
        with engine.connect():
            pass
    except SQLAlchemyError as error:
        raise UsageError(f"the database {shown(url)} cannot be reached: {reason(error, url)}") from None
    try:
        with variables(**{DATABASE: url}):
            yield engine
    finally:
        engine.dispose()


def engine_of(url: str, *, make: bool = False) -> sa.Engine:
    """Return an engine that has not connected yet.

    :param make: whether a missing SQLite file may be created when the engine connects.
    :raises UsageError: if the URL is not that of a usable database.
    """
    try:
        engine = sa.create_engine(url)
    except (ArgumentError, ImportError, TypeError, ValueError) as error:
        raise UsageError(
            f"the database URL {shown(url)} cannot be used: {reason(error, url)}; use one such as sqlite:///demo.db"
        ) from None
    if not make:
        refuse_missing_file(engine.url)
    return engine


def refuse_missing_file(url: sa.URL) -> None:
    """Refuse a missing SQLite file: SQLite would create an empty one, even for a mistyped name.

    :raises UsageError: naming the file.
    """
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name == ":memory:" or name.startswith("file:"):
        return
    if not Path(name).exists():
        raise UsageError(
            f"there is no database file {name}; check --database or {DATABASE}, or create it with `harness init-db`"
        )


def demo_scenarios() -> tuple[str, ...]:
    """Return the names of the demo's scenarios if they can be imported, as in a clone of the source."""
    return DEMO if find_spec("scenarios") else ()


def scenario_named(name: str) -> Scenario:
    """Return a scenario by its dotted name or the name of its module.

    :raises UsageError: if there is none.
    """
    if name in DEMO and not demo_scenarios():
        raise UsageError(
            f"{name} is a scenario of the demo, which is only in the source; run the command in a clone, or "
            "use your own scenario"
        )
    found = job.find(name)
    scenario = getattr(found, "scenario", found)
    if not isinstance(scenario, Scenario):
        raise UsageError(f"{name!r} is not a scenario; use a module with one, such as scenarios.orders")
    return scenario


def job_or_scenario(name: str) -> type[job.Job] | Scenario:
    """Return a job class or a scenario by its dotted name.

    :raises UsageError: if the name is neither of them.
    """
    if name in DEMO:
        return scenario_named(name)
    found = job.find(name)
    if isinstance(found, type) and issubclass(found, job.Job):
        return found
    scenario = getattr(found, "scenario", found)
    if not isinstance(scenario, Scenario):
        raise UsageError(
            f"{name!r} is neither a scenario nor a job; use a module with a scenario, such as scenarios.orders, "
            "or a job class, such as shop.jobs:Import"
        )
    return scenario


def refuse(found: str, kind: str, *names: str) -> None:
    """Refuse options of the command line that the current command would ignore.

    :param found: description of the given name. :param kind: description of what the options are for.
    :param names: names of the options' parameters.
    :raises UsageError: for the first option that was given.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        # A variable may be exported for other commands, so it does not count as an option of this command.
        source = context.get_parameter_source(parameter.name)
        if parameter.name in names and source is click.core.ParameterSource.COMMANDLINE:
            raise UsageError(f"{parameter.opts[0]} is for {kind}, and {found}; leave it out")


def refuse_durability_of_plain(forms: Sequence[str], option: str) -> None:
    """Refuse a durability if only the plain form runs, which has no checkpoints.

    :raises UsageError: if it was given.
    """
    if set(forms) == {"plain"}:
        refuse("the plain form has no checkpoints", "steps and iteration", option)


def refuse_arguments(name: str, arguments: Sequence[str]) -> None:
    """Refuse arguments for a scenario.

    :raises UsageError: if there are any.
    """
    if arguments:
        raise UsageError(
            f"got {' '.join(arguments)} after {name}, which is a scenario and takes no arguments; a form is chosen "
            "with --form"
        )


def arguments_of(texts: Sequence[str]) -> list[Any]:
    """Return typed arguments as JSON values; an argument that is not JSON is a str, so a str needs no quotes."""
    values = []
    for text in texts:
        try:
            values.append(json.loads(text))
        except ValueError:
            values.append(text)
    return values


def first_line(error: BaseException) -> str:
    """Return the message of an error, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
