"""Durability of progress: when it is saved.

Rails and job-iteration save only on a stop, so a SIGKILL repeats the whole execution. The default here also
saves during the execution, so a SIGKILL repeats at most a second of work.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from harness.errors import JobDefinitionError, UsageError
from harness.runtime.durations import in_seconds


@dataclass(frozen=True)
class Durability:
    """Interval of saves during an execution; its end is always saved.

    :ivar items: save after this many items; None for no limit.
    :ivar seconds: save at the first checkpoint after this many seconds; infinity for no limit.
    :ivar transactional: each save is part of the transaction of the work.
    """

    items: int | None = None
    seconds: float = math.inf
    transactional: bool = False

    def with_items(self, items: int) -> Durability:
        """Return the same durability with another number of items."""
        return replace(self, items=items)

    def __str__(self) -> str:
        limits = []
        if self.transactional:
            return "with_transaction()" if self.items == 1 else f"with_transaction(items={self.items})"
        if self.items is not None:
            limits.append(f"items={self.items}")
        if self.seconds != math.inf:
            limits.append(f"seconds={self.seconds:g}")
        return f"every({', '.join(limits)})" if limits else "on_stop()"


def on_stop() -> Durability:
    """Save only when the execution ends, as Rails and job-iteration do: a SIGKILL repeats all of it."""
    return Durability()


def every(*, items: int | None = None, seconds: float | timedelta | None = None) -> Durability:
    """Save after a number of items or seconds, whichever comes first: a SIGKILL repeats no more than that.

    ``seconds=0`` saves at every checkpoint; a ``timedelta`` is accepted too.

    :raises JobDefinitionError: without a limit, or for an invalid limit.
    """
    if items is None and seconds is None:
        raise JobDefinitionError("every() takes items=, seconds= or both; for neither use on_stop()")
    if items is not None and (type(items) is not int or items < 1):
        raise JobDefinitionError(f"every(items=…) takes an int of 1 or more; got {items!r}")
    if seconds is None:
        return Durability(items)
    limit = in_seconds(seconds)
    if limit is None or not 0 <= limit < math.inf:
        raise JobDefinitionError(
            f"every(seconds=…) takes a number of 0 or more; got {seconds!r}; a timedelta is accepted too"
        )
    return Durability(items, limit)


def parse_durability(name: str) -> Durability:
    """Return the durability with the given text form, such as ``every(seconds=1)``.

    :raises UsageError: for another name.
    """
    makers: dict[str, Callable[..., Durability]] = {
        "on_stop": on_stop, "every": every, "with_transaction": with_transaction,
    }  # fmt: skip
    match = re.fullmatch(r"(\w+)(?:\(((?:\w+=[\d.]+(?:, )?)*)\))?", name)
    kind, arguments = (match[1], match[2] or "") if match else ("", "")
    try:
        pairs = [each.split("=") for each in arguments.split(", ") if each]
        return makers[kind](**{key: float(text) if key == "seconds" else int(text) for key, text in pairs})
    except (KeyError, TypeError, ValueError, JobDefinitionError) as error:
        raise UsageError(
            f"got the durability {name!r}; use on_stop(), every(items=N, seconds=N) with one or both, and "
            "with_transaction() or with_transaction(items=N)"
        ) from error


def with_transaction(*, items: int = 1) -> Durability:
    """Commit the work and the cursor together: SIGKILL loses nothing and repeats nothing in the database.

    The job does its work on ``self.session``, a SQLAlchemy session, and does not commit it. In an iteration
    job, each item, or each group of *items* items, is committed with its cursor. In steps, use ``with
    step.transaction() as session:``. The progress must be in the same database: ``progress_store`` returns a
    store there.

    :raises JobDefinitionError: for an invalid number of items.
    """
    if type(items) is not int or items < 1:
        raise JobDefinitionError(f"with_transaction(items=…) takes an int of 1 or more; got {items!r}")
    return Durability(items, math.inf, transactional=True)
