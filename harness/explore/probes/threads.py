"""Threads that a job starts belong to its simulated process, and so does the work in its thread pools.

A pool that exists before an execution would not exist in another process. So each process gets its own pool
instead. Threads that are started without ``threading`` are reported as not seen.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.thread import _worker
from contextlib import contextmanager, nullcontext, suppress
from functools import wraps
from typing import TYPE_CHECKING, Any

from harness.errors import Died
from harness.explore.crash import SimulatedProcess, accounted, current, is_accounted, living
from harness.explore.probes.callers import caller
from harness.explore.probes.patching import patched

if TYPE_CHECKING:
    from threading import Thread

OURS = "harness-"
"""Name prefix of heartbeat threads."""


@contextmanager
def probes() -> Iterator[None]:
    """Attribute each thread to the process that starts it, except the timekeeping threads of this package."""
    apart = [(_thread, name, _apart) for name in ("start_new_thread", "start_new", "start_joinable_thread")]
    with patched(
        (threading.Thread, "start", _start),
        (ThreadPoolExecutor, "__init__", _made),
        (ThreadPoolExecutor, "submit", _submit),
        *(each for each in apart if hasattr(_thread, each[1])),
    ):
        yield


def _start(start: Any) -> Any:
    @wraps(start)
    def start_within(thread: Thread) -> None:
        simulated = current()
        # A thread of a pool belongs to no process, but each task in it does.
        of_pool = getattr(thread, "_target", None) is _worker
        if simulated is not None and not thread.name.startswith(OURS) and not of_pool:
            simulated.threads.append(thread)
            thread.run = _within(simulated, thread.run)  # type: ignore[method-assign]
        start(thread)

    return start_within


def _made(make: Any) -> Any:
    @wraps(make)
    def hooked(pool: Any, *args: Any, **kwargs: Any) -> None:
        make(pool, *args, **kwargs)
        simulated = pool.harness_life = current()
        if simulated is not None and pool._initializer is not None:  # noqa: SLF001 - there is no public way
            pool._initializer = _within(simulated, pool._initializer, died=True)  # noqa: SLF001

    return hooked


def _submit(submit: Any) -> Any:
    @wraps(submit)
    def submit_within(pool: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        simulated = current()
        if simulated is None:
            return submit(pool, function, *args, **kwargs)
        return submit(_pool_of(simulated, pool), _within(simulated, function, died=True), *args, **kwargs)

    return submit_within


def _pool_of(simulated: SimulatedProcess, pool: Any) -> Any:
    """Return the pool that a process uses instead of one from before its start."""
    if getattr(pool, "harness_life", None) is simulated:
        return pool
    if id(pool) not in simulated.pools:
        simulated.pools[id(pool)] = ThreadPoolExecutor(
            pool._max_workers,  # noqa: SLF001 - there is no public way
            initializer=pool._initializer,  # noqa: SLF001
            initargs=pool._initargs,  # noqa: SLF001
        )
    return simulated.pools[id(pool)]


def _within(
    simulated: SimulatedProcess, run: Callable[..., Any], *, died: bool = False
) -> Callable[..., Any]:
    """Return a function that runs in a process; *died* is called when the process ends."""
    watched = is_accounted()

    def run_within(*args: Any, **kwargs: Any) -> Any:
        # The job would not see an error of a thread, and a crashed process has no threads that could report
        # one.
        quiet = nullcontext() if died else suppress(Exception, Died)
        with living(simulated), quiet, accounted() if watched else nullcontext():
            return run(*args, **kwargs)

    return run_within


def _apart(start: Any) -> Any:
    @wraps(start)
    def hooked(function: Any, *args: Any, **kwargs: Any) -> Any:
        simulated, found = current(), caller(2)
        if simulated is not None and found is not None:
            simulated.unseen("thread", "_thread starts a thread apart from threading", found.line)
        return start(function, *args, **kwargs)

    return hooked
