"""Arguments of the RQ job that runs a job class, read from Redis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.boundary.decoding import check, malformed, read
from harness.errors import CorruptProgress


@dataclass(frozen=True)
class _More:
    """Fourth argument.

    :ivar instance: id of the job that started a parallel run, and number of this instance. :ivar round: its enqueue.
    :ivar portion: cursor after which the portion begins, and number of its items.
    """

    instance: tuple[str, int] | None = None
    round: str | None = None
    portion: tuple[Any, int | None] | None = None


def check_call(path: Any, args: Any, kwargs: Any, more: Any = None) -> None:
    """Refuse arguments that this package does not enqueue.

    :raises CorruptProgress: naming the argument.
    """
    where = "the arguments of the job"
    if not isinstance(path, str):
        malformed(f"{where}: its class", path, "a name such as shop.jobs:Import", error=CorruptProgress)
    if not isinstance(args, list):
        malformed(f"{where}: args", args, "a list", error=CorruptProgress)
    if not isinstance(kwargs, dict):
        malformed(f"{where}: kwargs", kwargs, "an object", error=CorruptProgress)
    check([args, kwargs, more], where)
    more_of([path, args, kwargs, more])


def more_of(arguments: Any) -> dict[str, Any]:
    """Return the fourth argument; an empty dict if there is none.

    :raises CorruptProgress: if it is malformed.
    """
    more = arguments[3] if isinstance(arguments, list | tuple) and len(arguments) > 3 else None
    if more is None:
        return {}
    read(_More, more, "the arguments of the job", error=CorruptProgress)
    # A null counts as a missing value; fields of a newer release are kept.
    return {name: value for name, value in more.items() if value is not None}
