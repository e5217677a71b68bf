"""Async twins of plain jobs, so that one suite of behaviour shows both."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from harness import ContinuableJob, Enumerator, IterationJob
from harness.job import HOOKS, Job
from harness.runtime.callables import first_arguments, kind_of

_ASKED = {"should_stop", "in_transaction", "progress_store", "idempotency_key"}
_TWINS: dict[type[Job], type[Job]] = {}


def twin_of(job: type[Job]) -> type[Job]:
    """Return a subclass that awaits before it does what the job does: items, hooks, steps and around_iterate.

    Pairs that are no Enumerator come by ``async for``. A class that has other than plain functions is its own twin.
    """
    if job not in _TWINS:
        members = {name: _awaiting(getattr(job, name)) for name in _names(job) if _is_plain(job, name)}
        if issubclass(job, IterationJob):
            if _is_plain(job, "build_enumerator"):
                members["build_enumerator"] = _pairs(job.build_enumerator)
            if job.around_iterate is not IterationJob.around_iterate:
                members["around_iterate"] = _around(job.around_iterate)
        members |= {"__module__": job.__module__, "__qualname__": job.__qualname__}
        _TWINS[job] = type(job.__name__, (job,), members)
    return _TWINS[job]


def _names(job: type[Job]) -> set[str]:
    names = {name for name in (*HOOKS, "on_quarantine") if name not in _ASKED}
    if issubclass(job, ContinuableJob):
        steps = set().union(*(first_arguments(value, "step") for value in vars(job).values()))
        return names | {name for name in steps if hasattr(job, name)}
    return names | {"each_iteration"}


def _is_plain(job: type[Job], name: str) -> bool:
    function = inspect.getattr_static(job, name, None)
    ours = getattr(function, "__module__", "").startswith("harness.")
    return inspect.isfunction(function) and not ours and kind_of(function) is None


def _awaiting(function: Callable[..., Any]) -> Any:
    @functools.wraps(function)
    async def awaiting(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        return function(*args, **kwargs)

    return awaiting


def _pairs(function: Callable[..., Any]) -> Any:
    @functools.wraps(function)
    async def build_enumerator(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        found = function(*args, **kwargs)
        return _awaited(found) if isinstance(found, list) and not isinstance(found, Enumerator) else found

    return build_enumerator


async def _awaited(pairs: list[Any]) -> AsyncIterator[Any]:
    for pair in pairs:
        await asyncio.sleep(0)
        yield pair


def _around(function: Callable[..., Any]) -> Any:
    @asynccontextmanager
    async def around_iterate(self: Any) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        with function(self):
            yield

    return around_iterate
