"""Enqueue a job from the form of the page."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from rq import Queue
from rq.serializers import JSONSerializer

from harness.boundary.texts import printable
from harness.errors import HarnessError
from harness.queues import apps, rq
from harness.queues.history import note_action
from harness.queues.ticket_jobs import KINDS
from harness.web.forms import ID, BadForm, arguments_of

if TYPE_CHECKING:
    from redis import Redis

    from harness.job import Job

NO_LIMIT = -1
"""RQ's value for an execution without a time limit: the job stops at checkpoints."""

log = logging.getLogger("harness.web")


def enqueue(connection: Redis, job_class: type[Job], form: dict[str, str], by: str, app: Any = None) -> str:
    """Enqueue a job with the arguments in a form, and return what happened, in words.

    The history is written after it, because only the enqueue gives the job its id. Crash between the two: the
    job is enqueued, and the log of this process has the user. Lost answer: the job exists; if it has a given
    id, a second enqueue joins it.

    :param by: user. :param app: Celery app or Dramatiq broker; RQ if None.
    :raises BadForm: if an argument is missing, or of another type.
    """
    job_id, queue_name = form.get("id", "").strip(), form.get("queue", "").strip()
    if not ID.fullmatch(job_id):
        raise BadForm(f"got the id {job_id!r}; use letters, digits, dashes and underscores")
    args, kwargs = arguments_of(job_class, form)
    try:
        job_class.check_call(args, kwargs)
        if app is None:
            queue_name = queue_name or "default"
            queue = Queue(queue_name, connection=connection, serializer=JSONSerializer)
            enqueued = _on_rq(queue, job_class, args, kwargs, job_id)
        else:
            enqueued = apps.enqueue(
                app, job_class, args, kwargs, job_id=job_id or None, queue=queue_name or None
            )
    except (HarnessError, ValueError) as error:
        raise BadForm(str(error)) from error
    log.info("enqueue of job %s by %s", printable(enqueued), printable(by))
    note_action(connection, enqueued, "enqueue", by)
    where = f"queue {queue_name}" if queue_name else f"the default queue of {KINDS[apps.kind_of(app)]}"
    return f"job {enqueued} is in {where}"


def _on_rq(queue: Queue, job_class: type[Job], args: list[Any], kwargs: dict[str, Any], job_id: str) -> str:
    """Enqueue it on RQ, and return its id."""
    options = {"job_id": job_id or None, "timeout": NO_LIMIT}
    return str(rq.enqueue(queue, job_class, *args, options=options, **kwargs).id)
