"""Celery apps and Dramatiq brokers of the user, and jobs that their tickets describe."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from harness.errors import UsageError
from harness.queues import keys, requests
from harness.queues.tickets import Tickets

if TYPE_CHECKING:
    from redis import Redis

    from harness.job import Job

app_option = click.option(
    "--app", "app_name", metavar="MODULE:NAME", help="A Celery app or a Dramatiq broker, in place of RQ."
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


class TicketJob:
    """A job of Celery or Dramatiq, found by its ticket.

    :ivar state: of the ticket. :ivar description: class and arguments.
    """

    def __init__(self, connection: Redis, job_id: str, fields: dict[str, str]) -> None:
        self.id, self.state = job_id, fields.get("state", "")
        self.outcome, self.kind = fields.get("outcome", ""), fields.get("kind", "")
        self.tickets = Tickets(connection, self.kind)
        try:
            stored = json.loads(fields.get("message", ""))
            path, args, kwargs = (stored["body"][0] if "body" in stored else stored["args"])[:3]
            texts = [json.dumps(each) for each in args]
            texts += [f"{name}={json.dumps(each)}" for name, each in kwargs.items()]
            self.description = f"{str(path).partition(':')[2]}({', '.join(texts)})"
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            self.description = ""

    def ask(self, request: str) -> str:
        """Ask the job to ``pause``, ``resume`` or ``cancel``, and return what will happen.

        :raises UsageError: if the job is over.
        """
        if request != "resume" and self.state == "over":
            raise UsageError(f"job {self.id} is over: {self.outcome}")
        connection = self.tickets.connection
        if request == "resume":
            if self.tickets.resume(self.id, at_once=True) is None:
                return f"job {self.id} was not paused; a pending pause request was cancelled"
            return f"job {self.id} goes on as soon as a worker of {self.kind} has seen it"
        if request == "pause":
            requests.pause(connection, self.id)
            return f"job {self.id} will pause at its next checkpoint, or before it starts"
        requests.cancel(connection, self.id)
        return f"job {self.id} will be cancelled at its next checkpoint, or before it starts"


def ticket_of(connection: Redis, job_id: str) -> TicketJob | None:
    """Return a job that has a ticket, or None."""
    if not connection.exists(keys.ticket(job_id)):
        return None
    return TicketJob(connection, job_id, Tickets(connection, "").read(job_id))
