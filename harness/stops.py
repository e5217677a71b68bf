"""Stop sources: functions that a checkpoint calls to decide whether the job has to stop.

For production: :class:`Flag` (set by a signal handler or a thread), :func:`any_of`, :func:`throttled`. For tests:
the triggers. Each says stop at one chosen place and counts that in ``fired``.
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
    """Reason that also decides what happens to the job; after a plain reason the job continues later."""

    __slots__ = ()


PAUSE = Control("paused")
"""Stop until the job is resumed."""

CANCEL = Control("cancelled")
"""Stop permanently: ``on_cancel`` runs, ``on_complete`` does not."""


class Flag:
    """Stop source that stops a job after :meth:`set` was called, from a signal handler or any thread.

    It costs a checkpoint nothing before that: it is not asked, but wakes the execution when it is set.
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
        """Clear the request."""
        self._reason = False

    def attach(self, wake: Wake) -> None:
        """Call *wake* when the flag is set."""
        self._wakes.append(wake)

    def detach(self, wake: Wake) -> None:
        """Undo :meth:`attach`."""
        self._wakes.remove(wake)

    def __call__(self, at: Position | None = None) -> bool | str:
        """Return the value that the flag was set to."""
        return self._reason


class any_of:  # noqa: N801 - reads as the function it is used as
    """Stop source that stops when any of its sources does; the reason of the first one counts."""

    def __init__(self, *sources: StopSource) -> None:
        self._sources = sources
        self.interval = min((interval_of(source) for source in sources), default=math.inf)

    def attach(self, wake: Wake) -> None:
        """Attach to the sources that can wake an execution."""
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
        """Ask the source before any work, if it supports that."""
        ask = getattr(self._source, "at_start", None)
        return ask(at) if ask else None

    def __call__(self, at: Position) -> bool | str | None:
        """Ask the source if the interval has passed."""
        now = self._clock()
        if now < self._next:
            return None
        self._next = now + self.interval
        return self._source(at)


def interval_of(source: StopSource) -> float:
    """Return the interval between two calls of *source*, in seconds; 0 means every checkpoint."""
    return float(getattr(source, "interval", 0.0))


def reason_of(answer: Any, source: object) -> str:
    """Return the reason for a stop from the answer of a source: ``"stopping"`` for True, else the answer.

    :raises JobDefinitionError: for the coroutine of an ``async def``, which would always mean stop.
    """
    if isinstance(answer, str):
        return answer
    callables.refuse_result(answer, source, "the stop source")
    return "stopping" if answer is True else str(answer)


class Trigger:
    """Base of the test triggers: stops where :meth:`due` returns True, and counts the stops in ``fired``.

    :param reason: the reason of the interruption, usually the trigger's name.
    :param once: whether it fires only once; otherwise once in every execution.
    """

    def __init__(self, reason: str, *, once: bool = True) -> None:
        self.reason, self._once, self.fired = reason, once, 0

    def due(self, at: Position) -> bool:
        """Return whether to stop here."""
        raise NotImplementedError

    def __call__(self, at: Position) -> str | None:
        """Return the reason if the job has to stop here."""
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

    :param total: number of items, if the job does not know it.
    """

    def __init__(self, percent: float, *, total: int | None = None) -> None:
        super().__init__(f"progress:{percent:g}%")
        self._percent, self._total = percent, total

    def due(self, at: Position) -> bool:
        """Return whether that percentage of the items is done."""
        total = self._total or at.total
        return total is not None and at.done * 100 >= self._percent * total


class AtStep(Trigger):
    """Stop during a step, when its cursor equals a Python value; ``...`` is any value."""

    def __init__(self, step: str, cursor: Any = ...) -> None:
        super().__init__(f"step:{step}" if cursor is ... else f"step:{step}@{cursor}")
        self._step, self._cursor = step, cursor

    def due(self, at: Position) -> bool:
        """Return whether this is the step and its cursor."""
        return at.step == self._step and (self._cursor is ... or bool(at.cursor == self._cursor))


class AfterStep(Trigger):
    """Stop at the checkpoint between a step and the next; there is none after the last step."""

    def __init__(self, step: str) -> None:
        super().__init__(f"after-step:{step}")
        self._step = step

    def due(self, at: Position) -> bool:
        """Return whether the step is the latest completed one."""
        return at.step is None and at.completed[-1:] == [self._step]
