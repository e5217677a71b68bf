"""Requeue, rewind, fork and scale jobs with tickets, with the same rules and messages as on RQ.

A caller that has the broker sends the messages itself. A command does not have it: its tickets are due at once, and the
next sweep of a worker sends them.

Progress is saved first, then one script changes the ticket. Crash between the two: the job is over, and a second call
does the rest. Crash after the script: the sweep sends the message. Lost answer: a second call says that it is not over.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.job import find_stored
from harness.queues.calls import more_of
from harness.queues.rewinding import copied, move_back, revive, store_first, take_back, taken
from harness.queues.ticket_calls import digest_of_call
from harness.queues.tickets import Sending
from harness.sources.parallel import SliceTable, check_instances

if TYPE_CHECKING:
    from harness.progress import Progress, Store
    from harness.queues.tickets import Tickets

INSTANCES = 16
"""Number of instances that a requeue looks for."""

RETRIED = ("retries", "traceback", "requeue_timestamp")
"""Options with which Dramatiq's retries mark a message."""

PLACES = {
    "running": "started", "waiting": "queued", "sending": "queued", "reserved": "queued", "parked": "paused",
}  # fmt: skip
"""RQ's words for the states of tickets."""


def requeue(tickets: Tickets, job_id: str, store: Store, *, at_once: bool = False) -> Sending:
    """Requeue a job that failed or was cancelled; it resumes at its cursor.

    It is the same enqueue, so the same round of the job. A pending request to cancel, pause or stop it is forgotten.

    :param store: of jobs without one of their own. :param at_once: leave the sending to the sweep of a worker.
    :raises UsageError: if there is no such job, it is not over, it has finished, or another round of it is at work.
    """
    fields = _checked(tickets, job_id, completed=False)
    if fields["outcome"] == "cancelled":
        own, progress = _kept(fields, job_id, store)
        revive(own, progress)
    return _reopened(tickets, job_id, fields, completed=False, at_once=at_once)


def rewind(
    tickets: Tickets,
    job_id: str,
    store: Store,
    *,
    step: str | None = None,
    cursor: Any = None,
    at_once: bool = False,
) -> Sending:
    """Requeue a job that is over, a finished one too, to be done again from an earlier place.

    Attributes and counts are kept, and so is what was quarantined. Hooks of the end run once more. The caller
    must accept effects that happen a second time.

    :param step: name of a completed step, or of the one in progress; None for an iteration job.
    :param cursor: cursor in that step, or of the iteration: the work goes on after it. None is the beginning.
    :raises UsageError: as :func:`requeue`, if it has no progress or is parallel, and if it has not reached that step.
    :raises CursorError: for a cursor that is no JSON value.
    """
    fields, own, progress = _moved_back(tickets, job_id, store, step, cursor)
    own.save(progress)
    return _reopened(tickets, job_id, fields, completed=True, at_once=at_once)


def fork(
    tickets: Tickets,
    job_id: str,
    store: Store,
    *,
    step: str | None = None,
    cursor: Any = None,
    new_id: str | None = None,
    at_once: bool = False,
) -> Sending:
    """Enqueue a new job like one that is over, with its progress as it was at an earlier place.

    The new job has the class, the arguments, the queue and the options of the old one. It is in no chain, pipeline or
    group. The rest is as for :func:`harness.queues.rq.fork`.

    The progress is saved first. A crash after that: the record belongs to no job, and a second call with the same id
    uses it. Then one script makes the ticket. A crash before it: there is no new job. A lost answer: it is there, a
    sweep sends it, and a second call with the same id says so.

    :param step: and *cursor*: the place, as for :func:`rewind`.
    :param new_id: id of the new job; by default a random one.
    :raises UsageError: as :func:`rewind`, and if there is a job or progress under the new id.
    :raises CursorError: for a cursor that is no JSON value.
    """
    fields, own, progress = _moved_back(tickets, job_id, store, step, cursor)
    new_id, round_id, call = new_id or str(uuid.uuid4()), uuid.uuid4().hex, call_in(fields)
    if tickets.read(new_id):
        raise taken(new_id, "a job")
    store_first(own, copied(progress, new_id, round_id))
    message = _message(fields, new_id, call)
    opened = tickets.open(new_id, round_id, digest_of_call(call), message, at_once=at_once, unused=True)
    if not opened.n:  # another enqueued a job under the id just now
        take_back(own, new_id)
        raise taken(new_id, "a job")
    return Sending(new_id, opened.n, message)


def scale(tickets: Tickets, job_id: str, instances: int, store: Store) -> None:
    """Change the number of instances of a parallel run; the sweep of a worker sends the new ones.

    Surplus instances end after their current slice. Crash between the numbers and the tickets: the numbers are assigned
    and unused. Their slices are free for all others, and the next call starts further instances.

    :param job_id: of the job that was enqueued.
    :raises UsageError: if it is no parallel run.
    """
    check_instances(instances)
    fields = tickets.read(job_id) or tickets.read(f"{job_id}-0")
    if not fields:
        raise UsageError(f"job {job_id} has no ticket, nor its first instance to make others like")
    path, args, kwargs, *_ = call = call_in(fields)
    own = find_stored(path).progress_store() or store
    progress = own.load(job_id)
    known = str(more_of(call).get("round", fields.get("round", "")))
    round_id = known if progress is None or "instance" in more_of(call) else progress.round_id
    new = SliceTable.change(own, job_id, lambda table: table.resize(instances), round_id=round_id)
    for number in new:
        more = {"instance": [job_id, number], **({"round": round_id} if round_id else {})}
        instance, its_call = f"{job_id}-{number}", [path, args, kwargs, more]
        opened = tickets.open(
            instance,
            uuid.uuid4().hex,
            digest_of_call(its_call),
            _message(fields, instance, its_call),
            at_once=True,
        )
        if not opened.n and opened.digest != digest_of_call(its_call):
            raise UsageError(
                f"job {instance} of an earlier round of {job_id} is {PLACES.get(opened.state, opened.state)}; wait "
                "until it has ended, or enqueue the job under another id"
            )


def call_in(fields: dict[str, str]) -> list[Any]:
    """Return the arguments in the message of a ticket.

    :raises UsageError: if they cannot be read.
    """
    try:
        stored: Any = json.loads(fields["message"])
        call = list(stored["body"][0] if "body" in stored else stored["args"])
        call[2].keys()
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UsageError(f"the message in the ticket of the job cannot be read ({error!r})") from error
    return call


def _message(fields: dict[str, str], job_id: str, call: list[Any]) -> str:
    """Return the message of a ticket for another job of the same queue, which is in no chain, pipeline or group."""
    stored: Any = json.loads(fields["message"])
    if "body" in stored:
        stored["headers"] |= {
            "id": job_id,
            "root_id": job_id,
            "argsrepr": "",
            "kwargsrepr": "",
            "group": None,
        }
        stored["properties"] |= {"correlation_id": job_id}
        stored["body"] = [call, {}, dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))]
    else:
        options = stored.get("options", {})
        kept = {name: value for name, value in options.items() if not name.startswith(("pipe_", "group_"))}
        stored |= {"message_id": job_id, "args": call, "options": kept}
    _without_retries(stored)
    return json.dumps(stored)


def _without_retries(stored: dict[str, Any]) -> bool:
    """Remove what Dramatiq's retries have left in a message; return whether there was anything."""
    options = stored.get("options") or {}
    return bool([options.pop(name) for name in RETRIED if name in options])


def _checked(tickets: Tickets, job_id: str, *, completed: bool) -> dict[str, str]:
    """Return the fields of a ticket that may be opened again.

    :raises UsageError: saying why it may not, and what to do.
    """
    fields = tickets.read(job_id)
    if not fields:
        raise UsageError(f"there is no job {job_id!r}; Redis may have deleted it: enqueue it again")
    if fields["state"] != "over":
        where = PLACES.get(fields["state"], fields["state"])
        raise UsageError(f"job {job_id} is not over: {where}; only a failed or cancelled job can be requeued")
    if fields.get("outcome") == "completed" and not completed:
        raise UsageError(
            f"job {job_id} is finished; enqueue it again under its id for a new round, or repeat a part of "
            "it with `harness rewind`"
        )
    more = more_of(call_in(fields))
    if "instance" in more:
        first = tickets.read(more["instance"][0])
        if first and more.get("round") and first.get("round") != more["round"]:
            raise UsageError(
                f"job {job_id} is an instance of an earlier round of {more['instance'][0]}, which was enqueued again; "
                f"requeue {more['instance'][0]}"
            )
        return fields
    at_work = [
        name
        for name in (f"{job_id}-{number}" for number in range(INSTANCES))
        if _is_open(tickets, name, job_id)
    ]
    if at_work:
        raise UsageError(
            f"job {job_id} has instances that are not over ({', '.join(at_work)}); wait, or cancel it first"
        )
    return fields


def _is_open(tickets: Tickets, name: str, run_id: str) -> bool:
    """Return whether a job is an instance of the run that is not over."""
    fields = tickets.read(name)
    if fields.get("state", "over") == "over":
        return False
    return bool(more_of(call_in(fields)).get("instance", [None])[0] == run_id)


def _moved_back(
    tickets: Tickets, job_id: str, store: Store, step: str | None, cursor: Any
) -> tuple[dict[str, str], Store, Progress]:
    """Return the ticket of a job that is over, its store, and its progress at an earlier place, which is not saved.

    :raises UsageError: as :func:`rewind`.
    """
    fields = _checked(tickets, job_id, completed=True)
    own, progress = _kept(fields, job_id, store)
    if progress is None:
        raise UsageError(f"job {job_id} has no progress to rewind; use `harness requeue {job_id}`")
    if "instance" in more_of(call_in(fields)) or SliceTable.read(own, job_id, progress.round_id) is not None:
        raise UsageError(
            f"job {job_id} belongs to a parallel run, which is rewound as a whole; enqueue it again"
        )
    move_back(progress, step, cursor)
    return fields, own, progress


def _kept(fields: dict[str, str], job_id: str, store: Store) -> tuple[Store, Progress | None]:
    """Return the store of a job's progress, and the progress.

    :raises UsageError: if it is in a store that the caller does not know.
    """
    progress = store.load(job_id)
    if progress is None and (own := find_stored(call_in(fields)[0]).progress_store()) is not None:
        return own, own.load(job_id)
    if progress is None and fields.get("executions", "0") != "0":
        raise UsageError(
            f"job {job_id} has progress, but not in {type(store).__name__}; call requeue() or rewind() of the object "
            "that install() returned, which knows its store"
        )
    return store, progress


def _reopened(
    tickets: Tickets, job_id: str, fields: dict[str, str], *, completed: bool, at_once: bool
) -> Sending:
    # Celery counts retries in the ticket, Dramatiq in the message. One script resets both, or neither.
    stored: Any = json.loads(fields["message"])
    message = json.dumps(stored) if _without_retries(stored) else ""
    sending = tickets.reopen(
        job_id, completed=completed, at_once=at_once, message=message, n=fields["n"] if message else ""
    )
    if sending is None:  # another call was first
        _checked(tickets, job_id, completed=completed)
        raise UsageError(f"job {job_id} is not over: queued; only a failed or cancelled job can be requeued")
    return sending
