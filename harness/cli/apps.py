"""Celery apps and Dramatiq brokers of the user."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.job import Job

app_option = click.option(
    "--app", "app_name", metavar="MODULE:NAME", help="A Celery app or a Dramatiq broker, instead of RQ."
)


def find_app(name: str) -> tuple[str, Any]:
    """Return the kind of an app, ``celery`` or ``dramatiq``, and the app.

    :raises UsageError: if the name means neither.
    """
    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as celery and dramatiq do
    try:
        found: Any = import_module(module_name)
        for part in filter(None, attribute.split(".")):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"--app: {name!r} cannot be loaded ({error}); use one such as shop.celery:app"
        ) from error
    finally:
        sys.path.pop(0)
    for kind, base in (("celery", "Celery"), ("dramatiq", "Broker")):
        if any(each.__name__ == base and each.__module__.startswith(kind) for each in type(found).__mro__):
            return kind, found
    raise UsageError(
        f"--app: {name!r} is {found!r}; use a Celery app or a Dramatiq broker, such as shop.celery:app"
    )


def enqueue(
    name: str, job_class: type[Job], arguments: Sequence[Any], job_id: str | None, retries: int | None
) -> str:
    """Enqueue a job on an app, and return its id."""
    kind, app = find_app(name)
    options: dict[str, Any] = {} if retries is None else {"max_retries": retries}
    if kind == "celery":
        from harness.queues import celery

        if job_id is not None:
            options["task_id"] = job_id
        return str(celery.enqueue(app, job_class, *arguments, options=options).id)
    from harness.queues import dramatiq

    if job_id is not None:
        options["message_id"] = job_id
    return str(dramatiq.enqueue(app, job_class, *arguments, options=options).message_id)


def run_worker(name: str, arguments: Sequence[str]) -> None:
    """Become the worker of an app; its own options follow ``--``."""
    kind, _ = find_app(name)
    command = ["-m", "celery", "-A", name, "worker"] if kind == "celery" else ["-m", "dramatiq", name]
    os.execv(sys.executable, [sys.executable, *command, *arguments])  # noqa: S606 - the worker takes the process over
