"""Enqueue jobs on a Celery app or a Dramatiq broker, for the commands and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.job import Job

_BASES = {"celery": "Celery", "dramatiq": "Broker"}


def kind_of(app: Any) -> str:
    """Return ``celery`` or ``dramatiq``; neither has to be installed for that.

    :raises UsageError: for another object.
    """
    for kind, base in _BASES.items():
        if any(each.__name__ == base and each.__module__.startswith(kind) for each in type(app).__mro__):
            return kind
    raise UsageError(f"{app!r} is no app; use a Celery app or a Dramatiq broker, such as shop.celery:app")


def enqueue(
    app: Any,
    job_class: type[Job],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    job_id: str | None = None,
    queue: str | None = None,
    retries: int | None = None,
) -> str:
    """Enqueue a job on an app, and return its id.

    :param queue: name of the queue; None for the app's default. :param retries: most retries after an error.
    :raises UsageError: as the enqueue of the app's kind.
    """
    options: dict[str, Any] = {} if retries is None else {"max_retries": retries}
    if kind_of(app) == "celery":
        from harness.queues import celery  # noqa: PLC0415 - an extra

        options |= {
            name: value for name, value in (("task_id", job_id), ("queue", queue)) if value is not None
        }
        return str(celery.enqueue(app, job_class, *args, options=options, **kwargs).id)
    from harness.queues import dramatiq  # noqa: PLC0415 - an extra

    options |= {
        name: value for name, value in (("message_id", job_id), ("queue_name", queue)) if value is not None
    }
    return str(dramatiq.enqueue(app, job_class, *args, options=options, **kwargs).message_id)
