"""Changes to the progress of a job that is over, before it is requeued: the same for all queues."""

from __future__ import annotations

import json
from contextlib import suppress
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
