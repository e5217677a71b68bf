"""The ledger of a trial: which items were worked on, when, and in which execution.

A job calls :func:`mark` where the work on an item starts. Outside of a trial that costs one global read. Inside,
the lab takes it down where no transaction of the job can take it back, so that work done twice is seen even if
the database was rolled back.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Marker = Callable[[str], None]

_marker: Marker | None = None


def mark(item: object) -> None:
    """Say that the work on *item* starts now.

    *item* is named by its ``str()``; the same item must get the same name in every execution.
    """
    if _marker is not None:
        _marker(str(item))


@contextmanager
def marking(marker: Marker) -> Iterator[None]:
    """Have *marker* called with the name of every item that is marked, until the block ends."""
    global _marker  # noqa: PLW0603 - one trial at a time runs in a process
    if _marker is not None:
        raise RuntimeError("a trial is already running in this process; end it before the next")
    _marker = marker
    try:
        yield
    finally:
        _marker = None
