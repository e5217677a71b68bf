"""Ledger of a trial: the items that were started, when, and in which execution.

A job calls :func:`mark` when the work on an item starts. Outside of a trial, a call only checks a list. In a
trial, the lab records the item outside the job's transactions, so that repeated work is visible even after a
rollback.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.runtime.scoped import Scoped

if TYPE_CHECKING:
    from collections.abc import Iterator

Marker = Callable[[str], None]

_markers: Scoped[Marker] = Scoped("harness_marker")


def mark(item: object) -> None:
    """Record that the work on *item* starts now.

    The name of *item* is its ``str()``; the same item must have the same name in every execution.
    """
    marker = _markers.get()
    if marker is not None:
        marker(str(item))


@contextmanager
def marking(marker: Marker) -> Iterator[None]:
    """Call *marker* with the name of every item that is marked in this context, until the block ends."""
    if _markers.own() is not None:
        raise RuntimeError(
            "a trial is already running in this thread or task; end it before you start another"
        )
    with _markers.holding(marker):
        yield
