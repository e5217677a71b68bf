"""Functions that do nothing when they are called: ``async def``, and functions with ``yield``.

Calling an ``async def`` only creates a coroutine, and calling a generator function only creates a generator. A job
would then count an item as done without doing it. An execution awaits coroutines of the work and of hooks. It refuses
generators, and coroutines of functions that a checkpoint calls. It refuses them when the class is defined, if the kind
of the function is visible. A decorator may hide the kind, so the result of the call is checked too.

This module is the one place that decides so.
"""

from __future__ import annotations

import dis
import functools
import inspect
import itertools
import reprlib
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from types import AsyncGeneratorType, CoroutineType, GeneratorType, MethodType, NoneType, UnionType
from typing import Any, Union, get_args, get_origin
from uuid import UUID

from harness.errors import JobDefinitionError, UsageError

_LAZY: dict[type, str] = {
    CoroutineType: "a coroutine", GeneratorType: "a generator", AsyncGeneratorType: "an async generator",
    map: "a map object", filter: "a filter object", itertools.starmap: "a starmap object",
}  # fmt: skip
"""Types of results that have yet to be iterated or awaited."""

_PLAIN = {
    bool,
    bytes,
    date,
    datetime,
    Decimal,
    dict,
    float,
    frozenset,
    int,
    list,
    NoneType,
    set,
    str,
    tuple,
    UUID,
}
"""Types whose annotations are compared with the arguments of a job."""

LATER: Any = object()
"""Placeholder for an argument that does not come from the queue: ``self``, an item, a cursor."""

_WIDER: dict[type, tuple[type, ...]] = {float: (int,)}
"""Types that are allowed where another is annotated."""

_CACHED = type(functools.lru_cache(len))

ASYNC, GENERATOR, ASYNC_GENERATOR = "an async function", "a generator function", "an async generator function"

_INSTEAD = {
    ASYNC: "write def instead of async def: its result is needed immediately",
    GENERATOR: "write it without yield, and do the work in it",
    ASYNC_GENERATOR: "write it without yield, and do the work in it",
}


def kind_of(function: Any) -> str | None:
    """Return the kind of a function that does nothing when called, such as :data:`ASYNC`; None for other functions.

    It unwraps partials, static and class methods, bound methods, caches and objects with ``__call__``. It does not
    unwrap other decorators, such as ``@contextmanager`` or one that runs a coroutine to its end: the decorated function
    does its work when called.
    """
    function = _innermost(function)
    if inspect.iscoroutinefunction(function):
        return ASYNC
    if inspect.isasyncgenfunction(function):
        return ASYNC_GENERATOR
    return GENERATOR if inspect.isgeneratorfunction(function) else None


def refuse_function(function: Any, name: str, *, allowed: Sequence[str] = (), instead: str = "") -> None:
    """Refuse a function that does nothing when called.

    :param name: name of the function in the error. :param allowed: kinds that the caller iterates or awaits. :param
        instead: advice in the error; by default the advice for the kind.
    :raises JobDefinitionError: saying what to write instead.
    """
    kind = kind_of(function)
    if kind is None or kind in allowed:
        return
    instead = instead or _INSTEAD[kind]
    raise JobDefinitionError(f"{name} is {kind}, and calling it would do nothing; {instead}")


def refuse_result(result: Any, job: object, name: str) -> None:
    """Refuse the result of a call that has not done its work: a coroutine, a generator, an awaitable, a ``map``.

    Call it only for results that are not None, so that the common case costs one comparison.

    :param job: the object that the function belongs to; its class is named in the error.
    :raises JobDefinitionError: saying what to write instead; a coroutine is closed before.
    """
    what = _LAZY.get(type(result))
    if what is None:
        if not hasattr(type(result), "__await__"):
            return
        what = f"an awaitable {type(result).__name__}"
    awaited = hasattr(type(result), "__await__") or isinstance(result, AsyncGeneratorType)
    close(result)
    raise JobDefinitionError(
        f"{type(job).__name__}.{name} returned {what}, and nothing has been done yet; "
        + (
            "return a value instead"
            if awaited
            else "do the work before it returns, for example with a for loop"
        )
    )


def check_call(function: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Refuse arguments that a function cannot be called with: missing, extra, or of another type than annotated.

    Only annotations of plain types are compared, such as ``int`` or ``list[str] | None``; others allow everything.

    :param name: name of the function in the error. :param args: arguments of the call, ``self`` included; :data:`LATER`
        replaces unknown ones.
    :raises UsageError: saying what the function takes.
    """
    try:
        signature, known = _signature(function)
    except (TypeError, ValueError):
        return  # a callable without a known signature
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise UsageError(
            f"{name} cannot be called with these arguments: {error}; it takes {_shown(signature)}"
        ) from None
    scope = getattr(inspect.unwrap(_innermost(function)), "__globals__", {})
    for key, value in bound.arguments.items():
        if value is LATER:
            continue
        parameter = signature.parameters[key]
        allowed = known.get(key) or _plain_types(parameter.annotation, scope)
        if allowed is None:
            continue  # perhaps not yet defined: it is looked up again at the next call
        known[key] = allowed
        values = [value]
        if parameter.kind is parameter.VAR_POSITIONAL:
            values = list(value)
        elif parameter.kind is parameter.VAR_KEYWORD:
            values = list(value.values())
        for each in values:
            if each is not LATER and not isinstance(each, allowed):
                wanted = " or ".join(sorted({kind.__name__ for kind in allowed} - {"NoneType"}))
                raise UsageError(
                    f"{name} got {reprlib.repr(each)} of type {type(each).__name__} for {key!r}; use {wanted}"
                )


@functools.lru_cache(maxsize=1024)
def _signature(function: Any) -> tuple[inspect.Signature, dict[str, tuple[type, ...]]]:
    """Return the signature, and the cache for the plain types of its parameters."""
    return inspect.signature(function), {}


def _shown(signature: inspect.Signature) -> str:
    hidden = {"self", "cursor", "item"}
    shown = [
        str(each.replace(annotation=each.empty))
        for name, each in signature.parameters.items()
        if name not in hidden
    ]
    return f"({', '.join(shown)})" if shown else "no arguments"


def _plain_types(annotation: Any, scope: dict[str, Any]) -> tuple[type, ...] | None:
    """Return the types that an annotation allows, or None if it is not made of plain types alone."""
    if isinstance(annotation, str):
        try:
            # The text of an annotation in the job's own source, evaluated as typing.get_type_hints() does.
            annotation = eval(annotation, dict(scope))  # noqa: S307
        except Exception:  # noqa: BLE001 - a name that only type checkers know
            return None
    if annotation is None:
        return (NoneType,)
    if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
        parts = [_plain_types(each, scope) for each in get_args(annotation)]
        return None if None in parts else tuple(kind for part in parts for kind in part or ())
    kind = get_origin(annotation) or annotation
    return (kind, *_WIDER.get(kind, ())) if isinstance(kind, type) and kind in _PLAIN else None


def close(result: Any) -> None:
    """Close an unused coroutine or generator, to avoid the warning that it was never awaited."""
    if isinstance(result, CoroutineType | GeneratorType):
        result.close()


def first_arguments(function: Any, method: str) -> set[str]:
    """Return the literal strings that a function's code passes to a method as its first argument."""
    code = getattr(_innermost(function), "__code__", None)
    if code is None or method not in code.co_names:
        return set()
    found, called = set(), False
    for instruction in dis.get_instructions(code):
        if called and instruction.opname == "LOAD_CONST" and isinstance(instruction.argval, str):
            found.add(instruction.argval)
        called = instruction.argval == method or (called and instruction.opname in {"PUSH_NULL", "CACHE"})
    return found


def _innermost(function: Any) -> Any:
    while True:
        if isinstance(function, staticmethod | classmethod | MethodType):
            function = function.__func__
        elif isinstance(
            function, functools.partial | functools.partialmethod | functools.singledispatchmethod
        ):
            function = function.func
        elif isinstance(function, _CACHED):
            function = function.__wrapped__
        elif inspect.isroutine(function) or inspect.isclass(function) or not callable(function):
            return function
        else:
            function = type(function).__call__


def takes_step(name: str, function: Callable[..., object]) -> bool:
    """Return whether the function takes the step; refuse a function that could not be called.

    A parameter with a default is not filled: it may bind a variable of a loop, as in ``def load(step, name=name)``.
    Only a parameter named ``step`` is filled.
    """
    kind = inspect.Parameter
    parameters = list(inspect.signature(function).parameters.values())
    needed = [each for each in parameters if each.default is kind.empty and each.kind is not kind.VAR_KEYWORD]
    if any(each.kind is kind.KEYWORD_ONLY for each in needed):
        found = "keyword-only arguments without a default"
        raise JobDefinitionError(f"Step method {name!r} must not accept {found}")
    if len(needed) > 1:
        raise JobDefinitionError(
            f"Step method {name!r} must accept 0 or 1 arguments; got {', '.join(map(str, parameters))}; "
            "give further ones a default"
        )
    named = [each for each in parameters[:1] if each.name == "step" and each.kind is not kind.KEYWORD_ONLY]
    return bool(needed or named)
