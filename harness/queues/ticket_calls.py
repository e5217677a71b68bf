"""Arguments of messages of queues with tickets: made at the enqueue, and read by the delivery."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness import cursor as cursors
from harness.context import Portion
from harness.errors import CorruptProgress, UsageError
from harness.job import Job
from harness.queues.calls import check_call, more_of
from harness.queues.delivery import Order

if TYPE_CHECKING:
    from harness.queues.tickets import Opened


def encoded_call(
    job_class: type[Job], args: Sequence[Any], kwargs: dict[str, Any], portion: Portion | None = None
) -> list[Any]:
    """Return the arguments of a message: path, args, kwargs, and what else there is, as JSON data.

    :raises UsageError: if the job cannot take this, or no worker could find the class.
    :raises CursorError: if an argument would not come back equal.
    """
    if not (isinstance(job_class, type) and issubclass(job_class, Job)):
        raise UsageError(f"enqueue() takes a ContinuableJob or an IterationJob; got {job_class!r}")
    if job_class.__module__ == "__main__" or "<locals>" in job_class.__qualname__:
        raise UsageError(
            f"{job_class.__qualname__} is defined in __main__ or in a function, where no worker finds it; "
            "move it into a module that both can import"
        )
    job_class.check_arguments(kwargs, portion)
    encoded = [cursors.encode(value, f"argument {index}") for index, value in enumerate(args)]
    named = {name: cursors.encode(value, f"argument {name!r}") for name, value in kwargs.items()}
    job_class.check_call(args, kwargs)
    call: list[Any] = [job_class.path(), encoded, named]
    if portion is not None:
        call.append({"portion": [cursors.encode(portion.after), portion.limit]})
    return call


def digest_of_call(call: Sequence[Any]) -> str:
    """Return a hash of the arguments of a message."""
    text = json.dumps(call, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def refusal(job_id: str, opened: Opened, digest: str) -> UsageError | None:
    """Return the error for an enqueue under the id of a job that is not over; None if it is the same job."""
    if opened.digest == digest:
        return None
    return UsageError(
        f"job {job_id!r} has another class or other arguments, and is {opened.state}; wait until it is over, or choose "
        "another id"
    )


def order_of(call: Sequence[Any]) -> Order:
    """Return the order in the arguments of a message.

    :raises CorruptProgress: if they are not what this package writes.
    """
    arguments = list(call)
    check_call(*arguments)
    more = more_of(arguments)
    portion = None
    if "portion" in more:
        after, limit = more["portion"]
        portion = Portion(cursors.decode(after), limit)
    path, args, kwargs = arguments[:3]
    return Order(path, args, kwargs, portion=portion, instance=more.get("instance"))


def run_id_of(call: list[Any]) -> str | None:
    """Return the id of the job that started the parallel run which a call is an instance of; None for other calls."""
    try:
        instance = more_of(call).get("instance")
    except CorruptProgress:
        return None  # the delivery raises it
    return None if instance is None else str(instance[0])


def claimed_number(stamp: Any) -> int:
    """Return the number with which a message claims its job.

    :param stamp: what the sender wrote into the message. 0 without one: the sender does not know this package. -1 if
        the message joins a job that was not over: it never starts that one, which may wait for its time or its turn.
    """
    if not isinstance(stamp, dict):
        return 0
    n = stamp.get("n")
    return n if type(n) is int and n > 0 else -1
