"""Functions whose call does nothing yet: ``async def``, and functions with ``yield``.

A queue calls plain functions. A call of an ``async def`` only makes a coroutine, and one of a generator function a
generator: the job would count an item as done of which nothing was done. Both are refused, where they can be seen
when the class is defined, else by what the call returned: a decorator may hide what a function is.

This module is the one place that decides so.
"""

from __future__ import annotations

import dis
import functools
import inspect
import itertools
from types import AsyncGeneratorType, CoroutineType, GeneratorType, MethodType
from typing import Any

from harness.errors import JobDefinitionError

_LAZY: dict[type, str] = {
    CoroutineType: "a coroutine", GeneratorType: "a generator", AsyncGeneratorType: "an async generator",
    map: "a map object", filter: "a filter object", itertools.starmap: "a starmap object",
}  # fmt: skip
"""Types of results that have yet to be iterated or awaited."""

_CACHED = type(functools.lru_cache(len))

ASYNC, GENERATOR = "an async function", "a generator function"

_INSTEAD = {
    ASYNC: "write def instead of async def, and call asyncio.run(…) in it for what is async",
    GENERATOR: "write it without yield, and do the work in it",
}


def kind_of(function: Any) -> str | None:
    """Return :data:`ASYNC` or :data:`GENERATOR` if a call of *function* runs nothing of it, else None.

    Sees through partials, static and class methods, bound methods, caches and objects with ``__call__``. Other
    decorators are not seen through: ``@contextmanager``, or one that runs a coroutine to its end, make a function of
    it that does its work.
    """
    function = _innermost(function)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return ASYNC
    return GENERATOR if inspect.isgeneratorfunction(function) else None


def refuse_function(function: Any, name: str, *, generator: str | None = None) -> None:
    """Refuse a function whose call runs nothing of it.

    :param name: what the function is called in the error.
    :param generator: what to write instead of a generator function; an empty text allows it.
    :raises JobDefinitionError: saying what to write instead.
    """
    kind = kind_of(function)
    if kind is None or (kind is GENERATOR and generator == ""):
        return
    instead = generator if kind is GENERATOR and generator else _INSTEAD[kind]
    raise JobDefinitionError(f"{name} is {kind}, and calling it would do nothing; {instead}")


def refuse_result(result: Any, job: object, name: str) -> None:
    """Refuse the result of a call that has not done its work: a coroutine, a generator, an awaitable, a ``map``.

    Call it only for results that are not None: that keeps the common case to one comparison.

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
            "return asyncio.run(…) of it"
            if awaited
            else "do the work before it returns, for example with a for loop"
        )
    )


def close(result: Any) -> None:
    """Close a coroutine or generator that will not be used, so that no warning says that it was never awaited."""
    if isinstance(result, CoroutineType | GeneratorType):
        result.close()


def first_arguments(function: Any, method: str) -> set[str]:
    """Return the literal strings that a function's code gives to a method as its first argument."""
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
