"""Rounds of a job: decide to which round an execution belongs, if a job id is used more than once.

A queue gives each enqueue an identity, which stays the same through retries and interruptions. Progress that
is over belongs to the enqueues that it records; any other enqueue under the id starts a new round. The epoch
continues, so that no late execution of the previous round can save. Progress that is not over is joined by an
enqueue of the same class, arguments and portion, and refused to any other.

Progress of older releases knows neither arguments nor enqueues: it is joined if the class is the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import CorruptProgress, JobNotAllowed, UnsupportedProgress, UsageError
from harness.job import find_stored
from harness.progress import Progress

if TYPE_CHECKING:
    from harness.job import Job

OVER = {"completed", "cancelled"}
"""States of progress from which a job does not continue."""


@dataclass(frozen=True)
class Call:
    """Facts about an enqueue from the queue.

    :ivar digest: digest of the job's arguments and portion; empty if unknown. :ivar enqueued: identity of the
        enqueue; empty if the queue gives none. :ivar first: whether this is the first execution since that
        enqueue; used if the progress records no enqueue.
    """

    digest: str = ""
    enqueued: str = ""
    first: bool = False


UNKNOWN = Call()


def digest_of(
    args: Sequence[Any], kwargs: dict[str, Any], after: Any = None, limit: int | None = None
) -> str:
    """Return a hash of a job's arguments in their stored form.

    :param after: and *limit*: from the portion.
    """
    text = json.dumps([args, kwargs, after, limit], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def differs(progress: Progress, job_class: type[Job], digest: str) -> str | None:
    """Return a description of the difference between a job and the stored progress; None if it is the same job.

    :raises UnsupportedProgress: if this code does not have the class of the progress.
    """
    if not is_named(job_class, progress.job):
        return f"belongs to {progress.job}, not to {job_class.path()}"
    if progress.digest and digest and progress.digest != digest:
        return f"belongs to {progress.job} with other arguments"
    return None


def is_named(job_class: type[Job], path: str) -> bool:
    """Return whether a job class has or had this name, or can be imported by it.

    :raises UnsupportedProgress: if no class can be imported by it.
    """
    if path == job_class.path() or path in job_class.former_paths:
        return True
    try:
        return find_stored(path) is job_class
    except (JobNotAllowed, UsageError) as error:
        raise UnsupportedProgress(
            f"the stored progress belongs to {path}, which this code does not have or may not import; run "
            f"the release that has it, or name it in {job_class.__name__}.former_paths; the progress was "
            "not changed"
        ) from error


def join(progress: Progress, job_class: type[Job], call: Call) -> Progress:
    """Return the progress of an execution: the claimed one, or that of a new round.

    :raises CorruptProgress: if the progress belongs to another, unfinished job. :raises UnsupportedProgress:
        if it belongs to an unfinished job whose class this code does not have.
    """
    if progress.job and progress.state in OVER and _begins(progress, job_class, call):
        epoch = progress.epoch
        progress = Progress(progress.job_id, epoch=epoch, ended=epoch - 1, claimed=progress.claimed)
    elif progress.job and progress.state not in OVER:
        found = differs(progress, job_class, call.digest)
        if found:
            raise CorruptProgress(
                f"the progress of job {progress.job_id} {found}; it is unfinished and was not changed: requeue the "
                "job that owns it, use another id, or delete the progress"
            )
    if not progress.job:
        progress.round_id = call.enqueued
    progress.job, progress.digest = job_class.path(), call.digest or progress.digest
    progress.enqueued = call.enqueued or progress.enqueued
    return progress


def _begins(progress: Progress, job_class: type[Job], call: Call) -> bool:
    """Return whether finished progress belongs to an earlier round than this enqueue."""
    if call.enqueued and progress.enqueued:
        return call.enqueued != progress.enqueued
    if call.enqueued and call.first:
        return True
    try:
        return differs(progress, job_class, call.digest) is not None
    except UnsupportedProgress:
        return True
