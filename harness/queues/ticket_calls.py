"""Arguments of messages of queues with tickets: made at the enqueue, and read by the delivery."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness import cursor as cursors
from harness.context import Portion
from harness.errors import CorruptProgress, UsageError
from harness.queues.calls import check_call, more_of
from harness.queues.delivery import Order

if TYPE_CHECKING:
    from harness.queues.tickets import Opened


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
    """Return the id of the parallel run that a call belongs to; None for other calls."""
    try:
        instance = more_of(call).get("instance")
    except CorruptProgress:
        return None  # the delivery raises it
    return None if instance is None else str(instance[0])


def claimed_number(stamp: Any) -> int:
    """Return the number with which a message claims its job.

    It is 0 without a stamp, or without a number in it: the sender does not know this package, or could not reach Redis.
    It is -1 if the message joins a job that was not over. Such a message never starts the job, which may wait for its
    time or its turn.

    :param stamp: mark that the sender wrote into the message.
    """
    if not isinstance(stamp, dict) or "n" not in stamp:
        return 0
    n = stamp.get("n")
    return n if type(n) is int and n > 0 else -1
