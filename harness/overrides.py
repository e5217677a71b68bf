"""Settings that override those of jobs: from tests, and an operator's time limit.

A test's settings apply to its thread or asyncio task, and to threads that a job starts. So two tests of one
process can run jobs at the same time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.runtime.durations import in_seconds
from harness.runtime.scoped import Scoped

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from harness.durability import Durability
    from harness.progress import StopSource, Store


@dataclass(frozen=True)
class Overrides:
    """Settings of a test for the jobs that run in its context.

    :ivar stops: stop sources that are settings before all others. :ivar durability: replaces the job's own.
        :ivar store: replaces the job's and the queue's. :ivar clock: replaces ``time.monotonic``. :ivar
        poll_seconds: replaces the interval at which queues check for requests. :ivar delay_seconds: time
        before the next execution, instead of the delay that the job or its policy asks for.
    """

    stops: Sequence[StopSource] = ()
    durability: Durability | None = None
    store: Store | None = None
    clock: Callable[[], float] = time.monotonic
    poll_seconds: float | None = None
    delay_seconds: float | None = None


_NONE = Overrides()
_scoped: Scoped[Overrides] = Scoped("harness_overrides")


class _Current:
    """Settings of the current context, with the attributes of :class:`Overrides`."""

    @property
    def stops(self) -> Sequence[StopSource]:
        return _settings().stops

    @property
    def durability(self) -> Durability | None:
        return _settings().durability

    @property
    def store(self) -> Store | None:
        return _settings().store

    @property
    def clock(self) -> Callable[[], float]:
        return _settings().clock

    @property
    def poll_seconds(self) -> float | None:
        return _settings().poll_seconds

    @property
    def delay_seconds(self) -> float | None:
        return _settings().delay_seconds


current = _Current()
"""Current settings of this thread or task; see :func:`overriding`."""

longest_runtime = math.inf
"""Seconds after which every execution of this process stops; see :func:`limit_runtime`."""


def _settings() -> Overrides:
    return _scoped.get() or _NONE


@contextmanager
def overriding(settings: Overrides) -> Iterator[None]:
    """Apply *settings* to all jobs that run in this context inside the block."""
    with _scoped.holding(settings):
        yield


def limit_runtime(seconds: float | timedelta | None) -> None:
    """Stop every execution of this process at its first checkpoint after the given seconds; None for no limit.

    A job's own ``max_runtime`` applies too: the lower one wins. The limit is read when an execution starts.
    :raises UsageError: for anything but a time.
    """
    global longest_runtime  # noqa: PLW0603 - one for the process, as documented
    limit = math.inf if seconds is None else in_seconds(seconds)
    if limit is None or not (seconds is None or 0 < limit < math.inf):
        raise UsageError(
            f"limit_runtime() takes seconds over 0 or None; got {seconds!r}; a timedelta is accepted too"
        )
    longest_runtime = limit
