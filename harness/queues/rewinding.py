"""Changes to the progress of a job that is over, before it is requeued: the same for all queues."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness import cursor as cursors
from harness.boundary.texts import bounded
from harness.errors import Superseded, UsageError

if TYPE_CHECKING:
    from harness.progress import Progress, Store

ITERATION = "each_iteration"
"""Name of the step that an iteration job's progress is stored under."""


def place_of(text: str) -> tuple[str | None, Any]:
    """Return the step and the cursor in ``STEP``, ``STEP:CURSOR`` or ``:CURSOR``, where the cursor is JSON.

    :raises UsageError: if it is not.
    """
    step, _, cursor = text.partition(":")
    try:
        return step or None, json.loads(cursor) if cursor else None
    except (ValueError, RecursionError):
        raise UsageError(
            f"the cursor {cursor!r} is not JSON; use a value such as 1200 or '\"2024-05\"'"
        ) from None


def revive(store: Store, progress: Progress | None) -> None:
    """Save cancelled progress as interrupted, else the next execution would end at once.

    Crash before it: nothing has changed. Crash after it, or a lost answer: the job is still over in its queue, and a
    second call does the rest.
    """
    if progress is not None and progress.state == "cancelled":
        progress.state, progress.reason = "interrupted", "requeued"
        with suppress(
            Superseded
        ):  # another call was first, and the job has begun; the check that follows says so
            store.save(progress)


def move_back(progress: Progress, step: str | None, cursor: Any) -> None:
    """Change progress so that the job goes on after *cursor* of *step*; it is not saved here.

    :param step: None for an iteration. :param cursor: None is the beginning.
    :raises UsageError: if the job has not reached the step. :raises CursorError: for a cursor that is no JSON value.
    """
    cursors.encode(cursor)
    reached = [*progress.completed, *([progress.step] if progress.step is not None else [])]
    name = ITERATION if step is None else step
    reason = bounded(f"rewound to {name}")
    if name not in reached and (progress.state, progress.reason) != ("interrupted", reason):
        names = ", ".join(each for each in reached if each != ITERATION) or "none"
        found = f"step {step!r}" if step is not None else "a cursor without a step"
        raise UsageError(
            f"job {progress.job_id} cannot be rewound to {found}; steps that it has reached: {names}"
        )
    if name in progress.completed:
        del progress.completed[progress.completed.index(name) :]
    # Without a cursor the step counts as not begun, so that it gets its own start.
    progress.step, progress.cursor, progress.proof = None if cursor is None else name, cursor, None
    progress.failures, progress.failure, progress.all_done, progress.beyond = 0, None, False, []
    # A second call knows by the reason that the step was reached.
    progress.state, progress.reason = "interrupted", reason


def copied(progress: Progress, job_id: str, round_id: str) -> Progress:
    """Return the progress for a new job, which no execution has claimed yet.

    :param round_id: identity of the enqueue of the new job.
    """
    return replace(
        progress, job_id=job_id, epoch=0, ended=0, claimed="", round_id=round_id, enqueued=round_id, stored=None,
        head=None, resumptions=0, interruptions=0, errors=0, crashes=0, crashes_in_a_row=0, longest_gap_s=0.0,
        runtime_s=0.0, reason=f"forked from {progress.job_id}",
    )  # fmt: skip


def store_first(store: Store, progress: Progress) -> None:
    """Store the first record of a job.

    :raises UsageError: if an execution has claimed the existing record.
    """
    try:
        store.renew(progress)
    except Superseded:
        raise taken(progress.job_id, "progress") from None


def take_back(store: Store, job_id: str) -> None:
    """Delete the record again, unless an execution has claimed it.

    Crash before it: another job has the id, and joins the record if it is of the same class with the same arguments.
    """
    found = store.load(job_id)
    if found is not None and found.epoch == 0:
        store.delete(job_id)


def taken(new_id: str, what: str) -> UsageError:
    """Return the error for an id that is in use."""
    return UsageError(f"there is {what} under the id {new_id!r}; choose another id")
