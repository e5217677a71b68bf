"""Checks of a job class's policy: the values of its attributes, and misspelt names.

A misspelt policy would be ignored, and a wrong type would fail at run time. So both are refused when the
class is defined. Values are checked again when the job is enqueued or run, because they may have been set on
the class later.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, lru_cache
from numbers import Real
from typing import Any

from harness.durability import Durability
from harness.errors import JobDefinitionError
from harness.runtime.durations import LONGEST, in_seconds


@dataclass(frozen=True)
class Rule:
    """Allowed values of a policy attribute, as a description and as a check."""

    takes: str
    allows: Callable[[Any], bool]


def _flag() -> Rule:
    return Rule("True or False", lambda value: isinstance(value, bool))


def _whole(least: int, *, none: bool = False) -> Rule:
    def allows(value: Any) -> bool:
        if value is None:
            return none
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    return Rule(f"a whole number of {least} or more" + (", or None for no limit" if none else ""), allows)


def _time(takes: str, *, over: float = -1.0, most: float = LONGEST, none: bool = False) -> Rule:
    def allows(value: Any) -> bool:
        seconds = in_seconds(value)
        if seconds is None:
            return none and value is None
        return over < seconds <= most and seconds >= 0

    return Rule(f"{takes}, as seconds or a timedelta" + (", or None for no limit" if none else ""), allows)


RULES: dict[str, Rule] = {
    "durability": Rule(
        "on_stop(), every(…) or with_transaction()", lambda value: isinstance(value, Durability)
    ),
    "max_resumptions": _whole(0, none=True),
    "resume_delay": _time("a time of 0 or more"),
    "error_delay": _time("a time of 0 or more"),
    "resume_queue": Rule(
        "the name of a queue, or None for the job's own",
        lambda value: value is None or (isinstance(value, str) and bool(value.strip())),
    ),
    "resume_at_front": _flag(),
    "resume_errors_after_advancing": _flag(),
    "max_runtime": _time("a time over 0", over=0.0, none=True),
    "max_crashes": _whole(0),
    "grace_period": _time("a time of 0 or more", most=math.inf),
    "max_unsaved": _time("a time of 0 or more", none=True),
    "quarantine": _flag(),
    "concurrency": _whole(1),
    "max_item_failures": _whole(0),
    "max_quarantined": _whole(0),
}
"""The policy attributes of both patterns."""

HOOKS = (
    "on_start", "on_resume", "on_shutdown", "on_complete", "on_cancel", "on_error", "on_quarantine", "should_stop",
    "around_iterate", "each_iteration", "build_enumerator", "progress_store", "idempotency_key",
)  # fmt: skip
"""Methods that a job may define; methods with similar names would never be called."""

_OTHER_NAMES = {
    # Rails, job-iteration, Sidekiq.
    "resume_options": "resume_delay, resume_queue and resume_at_front",
    "job_iteration_max_job_runtime": "max_runtime",
    "max_job_runtime": "max_runtime",
    "max_iteration_runtime": "max_runtime",
    "default_retry_backoff": "resume_delay",
    # Short forms that a comparison would not find.
    "max_crash": "max_crashes",
    "max_resumes": "max_resumptions",
}
_ONLY_ELSEWHERE = frozenset({"resume_options", "job_iteration_max_job_runtime"})
"""Names that are always refused, because they have no other meaning."""
_OTHER_HOOKS = {
    "on_begin": "on_start", "on_started": "on_start",
    "on_resumption": "on_resume",
    "on_stop": "on_shutdown", "on_stopped": "on_shutdown", "on_interrupt": "on_shutdown",
    "on_interrupted": "on_shutdown",
    "on_completion": "on_complete", "on_finish": "on_complete", "on_finished": "on_complete",
    "on_success": "on_complete",
    "on_cancelled": "on_cancel", "on_canceled": "on_cancel", "on_cancellation": "on_cancel",
    "on_failure": "on_error", "on_failed": "on_error", "on_exception": "on_error",
    "job_should_exit": "should_stop",
    "around_iteration": "around_iterate",
}  # fmt: skip
"""Names of the same hooks in other libraries; refused with the parameters of the hook or of Celery."""

_PARAMETERS = {"on_error": 1, "on_quarantine": 2}
"""Number of arguments of hooks that take any, without the job itself."""

_NEAR, _NEAR_HOOK = 0.9, 0.92
"""Minimum similarity of two names, as in :mod:`difflib`. Hooks share words, such as ``on``."""

_SECONDS = frozenset({float, int, type(None)})
_FLAGS = frozenset(name for name, rule in RULES.items() if rule.takes == "True or False")
_MISSING, _PROPERTIES = object(), (property, cached_property)
_ALLOWED: dict[str, Any] = {}
"""Last checked value of each name: most classes share the defaults, and all values are immutable."""
_PLAIN = (str, timedelta, Durability, Real, property, type(None))
"""Types of values that may be a misspelt policy, other than a flag."""


def check_values(cls: type, rules: dict[str, Rule] = RULES) -> None:
    """Refuse policy attributes of a wrong type or range, also from base classes.

    :raises JobDefinitionError: naming the attribute, its value and the allowed values.
    """
    for name, rule in rules.items():
        value = getattr(cls, name, _MISSING)
        # A property is checked when it is read.
        if value is _MISSING or value is _ALLOWED.get(name, _MISSING) or isinstance(value, _PROPERTIES):
            continue
        if not rule.allows(value):
            raise _wrong(cls, name, value)
        _ALLOWED[name] = value


def read_seconds(job: object, name: str) -> float | None:
    """Return a policy attribute of a job in seconds, whether it is a number, a ``timedelta`` or None.

    :raises JobDefinitionError: if its value, from a property or set on the job object, is not allowed.
    """
    value = getattr(job, name)
    if type(value) in _SECONDS:
        return value  # type: ignore[no-any-return]  # of a class that was checked
    if not RULES[name].allows(value):
        raise _wrong(type(job), name, value)
    return in_seconds(value)


def check_names(cls: type, ours: Iterable[type]) -> None:
    """Refuse names of attributes and methods that resemble a policy or a hook.

    A name is accepted if the same class also sets the right one: then it is intended.

    :param ours: the bases that define policy and hooks.
    :raises JobDefinitionError: with the right name.
    """
    ours = set(ours)
    known = {name for base in ours for name in vars(base)}
    authors = [base for base in cls.__mro__ if base not in ours and base is not object]
    for base in authors:
        for name, value in vars(base).items():
            if name.startswith("_") or name in known:
                continue
            # Of the other pattern; in a base class of both patterns it is meant for that pattern.
            if name in RULES:
                if base is cls and RULES[name].allows(value):
                    raise JobDefinitionError(f"{cls.__name__}.{name} is for iteration jobs; remove it")
                continue
            right = _right_name(name, value, known)
            if right is None or any(right in vars(each) for each in authors):
                continue
            where = (
                f"{cls.__name__}.{name}" if base is cls else f"{cls.__name__}.{name} (from {base.__name__})"
            )
            raise JobDefinitionError(f"{where} would be ignored; use {right}, or give it another name")


def check_constructor(cls: type) -> None:
    """Refuse a class whose objects cannot be created without arguments.

    :raises JobDefinitionError: saying where to take arguments instead.
    """
    made: Any = cls
    if made.__init__ is object.__init__ and made.__new__ is object.__new__:
        return
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [
        each.name
        for each in inspect.signature(cls).parameters.values()
        if each.default is inspect.Parameter.empty and each.kind not in kinds
    ]
    if needed:
        raise JobDefinitionError(
            f"{cls.__name__}.__init__ requires {', '.join(needed)}, but each execution creates the job "
            "without arguments; take the job's arguments in its methods (perform, or build_enumerator and "
            "each_iteration), and keep its results in attribute()"
        )


def _wrong(cls: type, name: str, value: Any) -> JobDefinitionError:
    return JobDefinitionError(f"{cls.__name__}.{name}: got {value!r}; it takes {RULES[name].takes}")


def _right_name(name: str, value: Any, known: set[str]) -> str | None:
    if inspect.isroutine(value) or isinstance(value, staticmethod | classmethod):
        other = _OTHER_HOOKS.get(name)
        if other is not None and _looks_like(value, other):
            return other
        return _nearest(name, tuple(each for each in HOOKS if each in known), _NEAR_HOOK)
    if name in _ONLY_ELSEWHERE or (name in _OTHER_NAMES and isinstance(value, _PLAIN)):
        return _OTHER_NAMES[name]
    right = _nearest(name, tuple(each for each in RULES if each in known), _NEAR)
    return right if isinstance(value, bool if right in _FLAGS else _PLAIN) else None


def _looks_like(function: Any, hook: str) -> bool:
    if isinstance(function, staticmethod | classmethod):
        function = function.__func__
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False
    if any(each.name == "task_id" for each in parameters):
        return True  # Celery's on_failure and on_success
    needed = [each for each in parameters if each.default is inspect.Parameter.empty]
    return len(needed) == 1 + _PARAMETERS.get(hook, 0) or not parameters


@lru_cache(maxsize=4096)
def _nearest(name: str, names: tuple[str, ...], least: float) -> str | None:
    """Return the name in *names* that *name* probably means."""
    if name.isupper():
        return None  # a constant
    plain = _plain(name)
    for each in names:
        other = _plain(each)
        # The same letters in another order: two letters or words were swapped.
        if plain == other or sorted(plain) == sorted(other):
            return each
    near = difflib.get_close_matches(plain, [_plain(each) for each in names], 1, least)
    return next((each for each in names if near and _plain(each) == near[0]), None)


def _plain(name: str) -> str:
    return name.lower().replace("_", "")
