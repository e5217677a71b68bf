"""Actions of a user on a job. Each is written to the history of the job, with the user, before it is carried out.

Crash between the two: the history has an action that did not happen. Lost answer: the page shows an error,
and the user repeats the action; all actions are repeatable.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.boundary.texts import printable
from harness.errors import UsageError
from harness.queues import rq
from harness.queues.acting import acting
from harness.queues.rewinding import place_of
from harness.queues.rq import steering
from harness.queues.rq.places import queue_of
from harness.queues.ticket_jobs import TicketJob, ticket_of

if TYPE_CHECKING:
    from redis import Redis
    from rq.job import Job as RQJob

    from harness.monitor.snapshot import JobRow

log = logging.getLogger("harness.web")


@dataclass(frozen=True)
class Action:
    """Action of a user.

    :ivar label: text of its button. :ivar hint: longer text. :ivar sure: question for a confirmation; empty
        for none. :ivar carry_out: function that does it and returns a message.
    """

    label: str
    hint: str
    carry_out: Callable[[Redis, RQJob, str], str]
    sure: str = ""


def _interrupt(connection: Redis, job: RQJob, value: str) -> str:
    if job.get_status(refresh=False) != "started":
        raise UsageError(f"job {job.id} is not running; use pause to stop a waiting job")
    rq.request_stop(connection, job.id, value or "requested on the web page")
    return f"asked job {job.id} to stop at its next checkpoint; it is then requeued"


def _pause(connection: Redis, job: RQJob, value: str) -> str:
    del value
    steering.not_over(job)
    rq.pause(connection, job.id)
    return f"job {job.id} will pause at its next checkpoint, or before it starts"


def _resume(connection: Redis, job: RQJob, value: str) -> str:
    del connection, value
    if rq.resume(queue_of(job), job.id):
        return f"job {job.id} is back in queue {job.origin}"
    return f"job {job.id} was not paused; a pending pause request was cancelled"


def _cancel(connection: Redis, job: RQJob, value: str) -> str:
    del value
    steering.not_over(job)
    rq.cancel(connection, job.id)
    return f"job {job.id} will be cancelled at its next checkpoint, or before it starts"


def _requeue(connection: Redis, job: RQJob, value: str) -> str:
    del value
    back = rq.requeue(connection, job.id)
    return f"job {back.id} is back in queue {back.origin}, and resumes at its cursor"


def _scale(connection: Redis, job: RQJob, value: str) -> str:
    number = _number(value)
    rq.scale(connection, job.id, number)
    return f"job {job.id} goes on with {number} instances"


def _number(value: str) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) < 4):
        raise UsageError(f"got {value!r} instances; use a whole number, such as 4")
    return int(value)


def _rewind(connection: Redis, job: RQJob, value: str) -> str:
    step, cursor = place_of(_place(value))
    back = rq.rewind(connection, job.id, step=step, cursor=cursor)
    return f"job {back.id} is back in queue {back.origin}, rewound to {value}"


def _place(value: str) -> str:
    if not value:
        raise UsageError(
            "got no position; use STEP, STEP:CURSOR, :CURSOR for iteration, or : for its beginning"
        )
    return value


ACTIONS: Mapping[str, Action] = {
    "interrupt": Action(
        "Interrupt", "Ask it to stop at its next checkpoint; then it is requeued", _interrupt
    ),
    "pause": Action("Pause", "Stop it at its next checkpoint until it is resumed", _pause),
    "resume": Action("Resume", "Resume it where it stopped", _resume),
    "requeue": Action("Requeue", "Put it back into its queue; it resumes at its cursor", _requeue),
    "cancel": Action(
        "Cancel", "End it permanently at its next checkpoint; its progress is kept", _cancel,
        "End this job permanently? Its progress is kept, and Requeue resumes it.",
    ),
    "rewind": Action(
        "Rewind", "Repeat a part of it: STEP, STEP:CURSOR, or :CURSOR for iteration", _rewind,
        "Repeat this part? Its effects happen a second time.",
    ),
    "scale": Action("Scale", "Give a parallel job more or fewer instances", _scale),
}  # fmt: skip
"""Actions by name."""

WAITING = ("pause", "cancel")
OVER = frozenset({"finished", "failed", "stopped", "canceled", "cancelled"})
"""States of a job that can be rewound."""

OFFERED: Mapping[str, tuple[str, ...]] = {
    "running": ("interrupt", "pause", "cancel"),
    "interrupted": WAITING, "delayed": WAITING, "queued": WAITING, "scheduled": WAITING, "deferred": WAITING,
    "paused": ("resume", "cancel"),
    "failed": ("requeue",), "stopped": ("requeue",), "canceled": ("requeue",), "cancelled": ("requeue",),
}  # fmt: skip
"""Actions that the page offers, by the state of the job."""


def offered(row: JobRow) -> tuple[str, ...]:
    """Return the actions that the page offers for a job, without a requested one; a requested pause can be undone."""
    found = OFFERED.get(row.state, ())
    names = ("resume" if name == row.asked == "pause" else name for name in found)
    return tuple(name for name in names if name != row.asked)


def act(connection: Redis, name: str, job_id: str, by: str, value: str = "") -> str:
    """Carry out an action on a job, and return a message.

    :param by: user. :param value: its parameter: the reason of an interruption, the number of instances.
        :raises UsageError: if it cannot be done; the history of an existing job records that.
    """
    action = ACTIONS.get(name)
    if action is None:
        raise UsageError(f"there is no action {name!r}; use one of {', '.join(ACTIONS)}")
    job = steering.fetched(connection, job_id)
    if job is None:
        if (ticket := ticket_of(connection, job_id)) is not None:
            log.info("%s of job %s by %s", name, printable(job_id), printable(by))
            with acting(connection, job_id, name, by, value or None):
                return _on_ticket(ticket, name, value)
        raise UsageError(f"there is no job {job_id!r}; RQ may have deleted it")
    steering.ours(job)
    log.info("%s of job %s by %s", name, printable(job.id), printable(by))
    with acting(connection, job.id, name, by, value or None):
        return action.carry_out(connection, job, value)


def _on_ticket(ticket: TicketJob, name: str, value: str) -> str:
    """Carry out an action on a job of Celery or Dramatiq."""
    match name:
        case "interrupt":
            return ticket.interrupt(value or "requested on the web page")
        case "requeue":
            return f"{ticket.requeue()}, and resumes at its cursor"
        case "rewind":
            return ticket.rewind(_place(value))
        case "scale":
            return ticket.scale(_number(value))
        case _:
            return ticket.ask(name)
