"""Enqueue a job from the form of the page."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rq import Queue
from rq.serializers import JSONSerializer

from harness.boundary.texts import printable
from harness.errors import HarnessError
from harness.queues import rq
from harness.queues.history import note_action
from harness.web.forms import ID, BadForm, arguments_of

if TYPE_CHECKING:
    from redis import Redis

    from harness.job import Job

NO_LIMIT = -1
"""RQ's value for an execution without a time limit: the job stops at checkpoints."""

log = logging.getLogger("harness.web")


def enqueue(connection: Redis, job_class: type[Job], form: dict[str, str], by: str) -> str:
    """Enqueue a job with the arguments in a form, and return a message.

    The history is written after it, because only the enqueue gives the job its id. Crash between the two: the
    job is enqueued, and the log of this process has the user. Lost answer: the job exists; if it has a given
    id, a second enqueue joins it.

    :param by: user.
    :raises BadForm: if an argument is missing, or of another type.
    """
    job_id, queue_name = form.get("id", "").strip(), form.get("queue", "").strip() or "default"
    if not ID.fullmatch(job_id):
        raise BadForm(f"got the id {job_id!r}; use letters, digits, dashes and underscores")
    args, kwargs = arguments_of(job_class, form)
    options = {"job_id": job_id or None, "timeout": NO_LIMIT}
    try:
        job_class.check_call(args, kwargs)
        queue = Queue(queue_name, connection=connection, serializer=JSONSerializer)
        job = rq.enqueue(queue, job_class, *args, options=options, **kwargs)
    except (HarnessError, ValueError) as error:
        raise BadForm(str(error)) from error
    log.info("enqueue of job %s by %s", printable(job.id), printable(by))
    note_action(connection, job.id, "enqueue", by)
    return f"job {job.id} is in queue {queue.name}"
