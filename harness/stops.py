"""Stop sources: functions that a checkpoint calls to learn whether the job has to stop.

For production: :class:`Flag` (set by a signal handler or a thread), :func:`any_of`, :func:`throttled`. For tests:
the triggers, each of which says stop at one chosen place and remembers in ``fired`` that it did.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from harness.progress import Position, StopSource
from harness.runtime import callables

Clock = Callable[[], float]
Wake = Callable[[], None]


class Control(str):
    """A reason that also says what becomes of the job; a plain reason means that it goes on later."""

    __slots__ = ()


PAUSE = Control("paused")
"""Reason to stop and to stay stopped until the job is resumed."""

CANCEL = Control("cancelled")
"""Stop for good: ``on_cancel`` runs, ``on_complete`` does not."""


class Flag:
    """Stops a job once :meth:`set` was called, from a signal handler or from any thread.

    It costs a checkpoint nothing until then: it is not asked, it wakes the execution up.
    """

    interval = math.inf

    def __init__(self) -> None:
        self._reason: bool | str = False
        self._wakes: list[Wake] = []

    def set(self, reason: bool | str = True) -> None:
        """Ask for a stop; a string is its reason."""
        self._reason = reason
        for wake in self._wakes:
            wake()

    def clear(self) -> None:
        """Take the request back."""
        self._reason = False

    def attach(self, wake: Wake) -> None:
        """Have *wake* called when the flag is set."""
        self._wakes.append(wake)

    def detach(self, wake: Wake) -> None:
        """Undo :meth:`attach`."""
        self._wakes.remove(wake)

    def __call__(self, at: Position | None = None) -> bool | str:
        """Return what the flag was set to."""
        return self._reason


class any_of:  # noqa: N801 - reads as the function it is used as
    """Stops when any of the sources does; the first one's reason counts."""

    def __init__(self, *sources: StopSource) -> None:
        self._sources = sources
        self.interval = min((interval_of(source) for source in sources), default=math.inf)

    def attach(self, wake: Wake) -> None:
        """Attach to those sources that wake."""
        for source in self._sources:
            if hasattr(source, "attach"):
                source.attach(wake)

    def detach(self, wake: Wake) -> None:
        """Undo :meth:`attach`."""
        for source in self._sources:
            if hasattr(source, "detach"):
                source.detach(wake)

    def __call__(self, at: Position) -> bool | str | None:
        """Ask one source after the other."""
        for source in self._sources:
            if answer := source(at):
                return answer
        return None


class throttled:  # noqa: N801
    """Stop source that calls an expensive one, such as a query of Redis, at most once per interval."""

    def __init__(self, source: StopSource, seconds: float, *, clock: Clock = time.monotonic) -> None:
        self._source, self._clock, self._next = source, clock, -math.inf
        self.interval = seconds

    def at_start(self, at: Position) -> bool | str | None:
        """Ask the source before any work, if it can be."""
        ask = getattr(self._source, "at_start", None)
        return ask(at) if ask else None

    def __call__(self, at: Position) -> bool | str | None:
        """Ask the source if it is time, else go on."""
        now = self._clock()
        if now < self._next:
            return None
        self._next = now + self.interval
        return self._source(at)


def interval_of(source: StopSource) -> float:
    """Return how many seconds may pass between two questions to *source*; 0 means every checkpoint."""
    return float(getattr(source, "interval", 0.0))


def reason_of(answer: Any, source: object) -> str:
    """Return the reason of a stop that a source answered with: ``"stopping"`` for True, else the answer.

    :raises JobDefinitionError: for the coroutine of an ``async def``, which would always say stop.
    """
    if isinstance(answer, str):
        return answer
    callables.refuse_result(answer, source, "the stop source")
    return "stopping" if answer is True else str(answer)


class Trigger:
    """Base of the test triggers: stops where :meth:`due` says so, and counts how often in ``fired``.

    :param reason: the reason of the interruption, by custom the trigger's name.
    :param once: whether it fires a single time; otherwise once in every execution.
    """

    def __init__(self, reason: str, *, once: bool = True) -> None:
        self.reason, self._once, self.fired = reason, once, 0

    def due(self, at: Position) -> bool:
        """Return whether this is the place."""
        raise NotImplementedError

    def __call__(self, at: Position) -> str | None:
        """Return the reason at the chosen place."""
        if (self._once and self.fired) or not self.due(at):
            return None
        self.fired += 1
        return self.reason


class Count(Trigger):
    """Stop after a number of items, counted over all executions."""

    def __init__(self, items: int) -> None:
        super().__init__(f"count:{items}")
        self._items = items

    def due(self, at: Position) -> bool:
        """Return whether enough items are done."""
        return at.done >= self._items


class Every(Trigger):
    """Stop after a number of items in each execution."""

    def __init__(self, items: int) -> None:
        super().__init__(f"every:{items}", once=False)
        self._items = items

    def due(self, at: Position) -> bool:
        """Return whether enough items are done in this execution."""
        return at.items >= self._items


class Elapsed(Trigger):
    """Stop at the first checkpoint after a number of seconds, counted from the creation of the trigger."""

    def __init__(self, seconds: float, *, clock: Clock = time.monotonic) -> None:
        super().__init__(f"time:{seconds:g}s")
        self._seconds, self._clock = seconds, clock
        self._start = clock()

    def due(self, at: Position) -> bool:
        """Return whether the time has passed."""
        return self._clock() - self._start >= self._seconds


class Share(Trigger):
    """Stop after a percentage of all items.

    :param total: how many items there are, where the job does not know itself.
    """

    def __init__(self, percent: float, *, total: int | None = None) -> None:
        super().__init__(f"progress:{percent:g}%")
        self._percent, self._total = percent, total

    def due(self, at: Position) -> bool:
        """Return whether the share is done."""
        total = self._total or at.total
        return total is not None and at.done * 100 >= self._percent * total


class AtStep(Trigger):
    """During a step, when its cursor equals a value (compared as real values); ``...`` is any value."""

    def __init__(self, step: str, cursor: Any = ...) -> None:
        super().__init__(f"step:{step}" if cursor is ... else f"step:{step}@{cursor}")
        self._step, self._cursor = step, cursor

    def due(self, at: Position) -> bool:
        """Return whether this is the step, at the cursor."""
        return at.step == self._step and (self._cursor is ... or bool(at.cursor == self._cursor))


class AfterStep(Trigger):
    """At the checkpoint between a step and the next; there is none after the last step."""

    def __init__(self, step: str) -> None:
        super().__init__(f"after-step:{step}")
        self._step = step

    def due(self, at: Position) -> bool:
        """Return whether the step was the latest to complete."""
        return at.step is None and at.completed[-1:] == [self._step]
