"""Interruptions by name: the same on the command line, in pytest ids and in records.

==========================  ==========================================================================
``none``                    run without interruption
``count:20``                stop once, after 20 items of the job
``every:7``                 stop in every execution, after 7 items of it
``time:0.5s``               stop once, at the first checkpoint after half a second
``progress:40%``            stop once, after 40 per cent of all items
``flag``                    stop once, by a flag that is set externally when half of the items are done
``step:price@17``           stop once, in step ``price`` when its cursor is 17 (``step:price``: at any)
``after-step:load``         stop once, between step ``load`` and the next
``signal:TERM@count:20``    a real SIGTERM (or INT) to the worker's process, where the trigger behind ``@``
                            fires (without it, ``progress:50%``)
``kill:horse@count:20``     a real SIGKILL to the work horse when the work on item 21 has begun; ``kill:worker``,
                            ``kill:both``; behind ``@`` comes count, every, time or progress. On Celery and Dramatiq
                            the horse is the process of the pool, and the worker the main process
==========================  ==========================================================================
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness import stops
from harness.errors import NothingInterrupted, UsageError
from harness.job import Job
from harness.overrides import Overrides, overriding

if TYPE_CHECKING:
    from harness.progress import Position
    from harness.stops import Clock, Trigger

HALF = "progress:50%"
SIGNALS = {"TERM": signal.SIGTERM, "INT": signal.SIGINT}
VICTIMS = ("horse", "worker", "both")
ALLOWED = (
    "none, count:N, every:N, time:SECONDSs, progress:PERCENT%, flag, step:NAME[@CURSOR], after-step:NAME, "
    "signal:TERM[@…], signal:INT[@…], kill:horse[@…], kill:worker[@…], kill:both[@…]"
)


@dataclass(frozen=True)
class Interruption:
    """Named interruption.

    :ivar name: its name. :ivar where: creates its trigger from the number of items and a clock; None for
        ``none``. :ivar by: how it interrupts at the trigger: ``"stop"``, ``"flag"``, a signal to send, or the
        name of the process to kill.
    """

    name: str
    where: Callable[[int, Clock], Trigger] | None
    by: str | signal.Signals = "stop"

    def __str__(self) -> str:
        return self.name

    @property
    def kills(self) -> bool:
        """True if it needs processes that can be killed."""
        return str(self.by).startswith("kill:")

    @property
    def repeats(self) -> bool:
        """True if it interrupts every execution, False if it interrupts once."""
        return re.search("(^|@)every:", self.name) is not None


def parse_interruption(name: str) -> Interruption:
    """Return the interruption of that name.

    :raises UsageError: for an unknown name.
    """
    if name == "none":
        return Interruption(name, None)
    if name == "flag":
        return Interruption(name, parse_interruption(HALF).where, "flag")
    kind, _, rest = name.partition(":")
    if kind == "signal":
        return _signal(name, rest)
    if kind == "kill":
        return _kill(name, rest)
    parser = _PARSERS.get(kind)
    if parser is None or not rest:
        raise UsageError(f"unknown interruption {name!r}; use one of {ALLOWED}")
    return Interruption(name, parser(name, rest))


@contextmanager
def interrupt_during_step(
    step: str, *, cursor: Any = ..., reason: str | None = None, job: type[Job] | None = None
) -> Iterator[None]:
    """Interrupt a job of this process once, in a step, when the step's cursor equals *cursor*.

    Cursors are compared as Python values, so a date matches a date. By default every cursor matches.

    :param reason: the reason of the interruption; by default the name of the trigger.
    :param job: the class of the job, or a base of it; by default the first job that reaches the step. :raises
        NothingInterrupted: at the end of the block, if no job was interrupted.
    """
    trigger = stops.AtStep(step, cursor)
    where = f"in step {step!r}" + ("" if cursor is ... else f" at cursor {cursor!r}")
    with _interrupting(trigger, reason, where, job):
        yield


@contextmanager
def interrupt_after_step(
    step: str, *, reason: str | None = None, job: type[Job] | None = None
) -> Iterator[None]:
    """Interrupt a job of this process once, between a step and the next.

    :param reason: the reason of the interruption; by default the name of the trigger.
    :param job: the class of the job, or a base of it; by default the first job that reaches that point.
        :raises NothingInterrupted: at the end of the block, if no job was interrupted, as after the last
        step.
    """
    with _interrupting(stops.AfterStep(step), reason, f"after step {step!r}", job):
        yield


@contextmanager
def _interrupting(trigger: Trigger, reason: str | None, where: str, job: type[Job] | None) -> Iterator[None]:
    if job is not None and not (isinstance(job, type) and issubclass(job, Job)):
        raise UsageError(
            f"job= takes a ContinuableJob or an IterationJob, got {job!r}; leave it out for any job"
        )
    trigger.reason = reason or trigger.reason

    def of_job(at: Position) -> str | None:
        return trigger(at) if job is None or isinstance(at.job, job) else None

    with overriding(Overrides(stops=(of_job,), delay_seconds=0.0)):
        yield
    if not trigger.fired:
        kind = "job" if job is None else job.__name__
        raise NothingInterrupted(f"no {kind} was interrupted {where}: no checkpoint was reached there")


def _signal(name: str, rest: str) -> Interruption:
    which, _, where = rest.partition("@")
    if which not in SIGNALS:
        raise UsageError(f"interruption {name!r}: got the signal {which!r}; use {', '.join(SIGNALS)}")
    inner = parse_interruption(where or HALF)
    if inner.where is None or inner.by != "stop":
        raise UsageError(
            f"interruption {name!r}: after @ use count, every, time, progress, step or after-step"
        )
    return Interruption(name, inner.where, SIGNALS[which])


def _kill(name: str, rest: str) -> Interruption:
    which, _, where = rest.partition("@")
    if which not in VICTIMS:
        raise UsageError(f"interruption {name!r}: got {which!r}; use {', '.join(VICTIMS)}")
    inner = parse_interruption(where or HALF)
    if inner.name.partition(":")[0] not in {"count", "every", "time", "progress"}:
        raise UsageError(f"interruption {name!r}: after @ use count, every, time or progress")
    return Interruption(name, inner.where, f"kill:{which}")


def _whole(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text) or int(text) < 1:
        raise UsageError(f"interruption {name!r}: got {text!r}; use a whole number of 1 or more")
    return int(text)


def _number(name: str, text: str, unit: str, most: float) -> float:
    match = re.fullmatch(rf"([0-9]+(?:\.[0-9]+)?){unit}", text)
    value = float(match[1]) if match else 0.0
    if not 0 < value <= most:
        limit = f" and up to {most:g}{unit}" if most < float("inf") else ""
        raise UsageError(f"interruption {name!r}: got {text!r}; use a number over 0{limit} before {unit!r}")
    return value


def _count(name: str, rest: str) -> Any:
    items = _whole(name, rest)
    return lambda total, clock: stops.Count(items)


def _every(name: str, rest: str) -> Any:
    items = _whole(name, rest)
    return lambda total, clock: stops.Every(items)


def _time(name: str, rest: str) -> Any:
    seconds = _number(name, rest, "s", float("inf"))
    return lambda total, clock: stops.Elapsed(seconds, clock=clock)


def _progress(name: str, rest: str) -> Any:
    percent = _number(name, rest, "%", 100)
    return lambda total, clock: stops.Share(percent, total=total)


def _step(name: str, rest: str) -> Any:
    step, separator, text = rest.partition("@")
    try:
        cursor = json.loads(text) if separator else ...
    except ValueError:
        cursor = text  # so that a str needs no quotes
    return lambda total, clock: stops.AtStep(step, cursor)


def _after_step(name: str, rest: str) -> Any:
    return lambda total, clock: stops.AfterStep(rest)


_PARSERS: dict[str, Callable[[str, str], Callable[[int, Clock], Trigger]]] = {
    "count": _count,
    "every": _every,
    "time": _time,
    "progress": _progress,
    "step": _step,
    "after-step": _after_step,
}
