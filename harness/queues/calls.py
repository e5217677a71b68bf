"""Arguments of the message that runs a job class: made at the enqueue, and read from Redis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness import cursor as cursors
from harness.boundary.decoding import check, malformed, read
from harness.context import Portion
from harness.errors import CorruptProgress, UsageError
from harness.job import Job


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


def encoded_call(
    job_class: type[Job], args: Sequence[Any], kwargs: dict[str, Any], portion: Portion | None = None
) -> list[Any]:
    """Return the arguments of a message: path, args, kwargs, and further options, as JSON data.

    :raises UsageError: if the job cannot take this, or no worker could find the class.
    :raises CursorError: if an argument would not be equal when read back.
    """
    check_class(job_class)
    job_class.check_arguments(kwargs, portion)
    encoded = [cursors.encode(value, f"argument {index}") for index, value in enumerate(args)]
    named = {name: cursors.encode(value, f"argument {name!r}") for name, value in kwargs.items()}
    job_class.check_call(args, kwargs)
    call: list[Any] = [job_class.path(), encoded, named]
    if portion is not None:
        call.append({"portion": [cursors.encode(portion.after), portion.limit]})
    return call


def check_class(job_class: Any) -> None:
    """Refuse anything but a job class that a worker can import.

    :raises UsageError: for anything else.
    """
    if not (isinstance(job_class, type) and issubclass(job_class, Job)):
        raise UsageError(f"enqueue() takes a ContinuableJob or an IterationJob; got {job_class!r}")
    check_importable(job_class)


def check_importable(target: Any) -> None:
    """Refuse a class or function that no worker can import.

    :raises UsageError: for such a class or function.
    """
    if target.__module__ == "__main__":
        raise UsageError(
            f"{target.__qualname__} is defined in __main__, where no worker finds it; move it into a module that both "
            "can import"
        )
    if "<locals>" in target.__qualname__ or "<lambda>" in target.__qualname__:
        raise UsageError(
            f"{target.__qualname__} is defined in a function, where no worker finds it; define it in the module"
        )
