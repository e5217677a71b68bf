"""Settings for all jobs of this process that override their own: from tests, and an operator's time limit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.durations import in_seconds
from harness.errors import UsageError

if TYPE_CHECKING:
    from datetime import timedelta

    from harness.durability import Durability
    from harness.progress import StopSource, Store
    from harness.stops import Clock


@dataclass(frozen=True)
class Overrides:
    """Settings of a test for the jobs of this process.

    :ivar stops: stop sources that come before all others.
    :ivar durability: in place of the job's own. :ivar store: in place of the job's and the queue's.
    :ivar clock: in place of ``time.monotonic``.
    :ivar poll_seconds: how often queues look for requests from outside, in place of their own.
    :ivar delay_seconds: time before the next execution, in place of what the job or its policy asks for.
    """

    stops: Sequence[StopSource] = ()
    durability: Durability | None = None
    store: Store | None = None
    clock: Clock = time.monotonic
    poll_seconds: float | None = None
    delay_seconds: float | None = None


current = Overrides()
"""Current settings; see :func:`overriding`."""

longest_runtime = math.inf
"""Seconds after which every execution of this process gives way; see :func:`limit_runtime`."""


@contextmanager
def overriding(asked: Overrides) -> Iterator[None]:
    """Apply *asked* to all jobs that run in this process inside the block."""
    global current  # noqa: PLW0603 - a queue calls with nothing but what was enqueued
    before, current = current, asked
    try:
        yield
    finally:
        current = before


def limit_runtime(seconds: float | timedelta | None) -> None:
    """Stop every execution of this process at its first checkpoint after the given seconds; None for no limit.

    A job's own ``max_runtime`` holds too: the lower one wins. It is read when an execution begins.

    :raises UsageError: for what is no time.
    """
    global longest_runtime  # noqa: PLW0603 - one for the process, as documented
    limit = math.inf if seconds is None else in_seconds(seconds)
    if limit is None or not (seconds is None or 0 < limit < math.inf):
        raise UsageError(
            f"limit_runtime() takes seconds over 0 or None; got {seconds!r}; a timedelta is accepted too"
        )
    longest_runtime = limit
