"""Celery apps and Dramatiq brokers of the user."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from harness.errors import UsageError
from harness.queues.apps import kind_of

app_option = click.option(
    "--app", "app_name", metavar="MODULE:NAME", help="A Celery app or a Dramatiq broker, instead of RQ."
)


def find_app(name: str) -> tuple[str, Any]:
    """Return the kind of an app, ``celery`` or ``dramatiq``, and the app.

    :raises UsageError: if the name is neither of them.
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
    try:
        return kind_of(found), found
    except UsageError as error:
        raise UsageError(f"--app: {name!r}: {error}") from None


def run_worker(name: str, arguments: Sequence[str]) -> None:
    """Replace this process by the worker of an app; the worker's options follow ``--``."""
    kind, _ = find_app(name)
    command = ["-m", "celery", "-A", name, "worker"] if kind == "celery" else ["-m", "dramatiq", name]
    os.execv(sys.executable, [sys.executable, *command, *arguments])  # noqa: S606 - the worker replaces this process
