"""Turns of concurrent items: their tasks join an event loop that chooses, and their threads wait at crash points.

Installed only for jobs with ``concurrency``. ``asyncio.sleep`` and ``time.sleep`` in an item are points of the kind
``sleep``, and return without the delay.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

from harness.concurrency.items import Concurrent
from harness.explore.crash import SimulatedProcess, current, is_accounted
from harness.explore.points import lines_here
from harness.explore.probes.patching import patched
from harness.explore.trials import Watch
from harness.explore.turns import NONE, RETURNING, STARTING, Party, TurnLoop, party_here
from harness.runtime.loops import JobLoop

_SLEEP = asyncio.sleep
"""The original function, which is no crash point."""


def probes() -> AbstractContextManager[None]:
    """Hook the items, until the block ends."""
    return patched(
        (JobLoop, "factory", _factory),
        (Concurrent, "_do", _do),
        (Concurrent, "_in_thread", _in_thread),
        (SimulatedProcess, "reach", _reach),
        (asyncio, "sleep", _asyncio_sleep),
        (time, "sleep", _time_sleep),
    )


def _factory(_plain: Any) -> Any:
    return staticmethod(lambda: TurnLoop() if current() is not None else asyncio.new_event_loop())


def _do(do: Any) -> Any:
    @wraps(do)
    async def hooked(items: Any, item: Any, entry: Any) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(loop, TurnLoop):
            loop.join()
            await _SLEEP(0)  # it starts when it gets the turn
        watch = _watch()
        if watch is None:
            await do(items, item, entry)
            return
        watch.busy += 1
        try:
            await do(items, item, entry)
        finally:
            watch.busy -= 1

    return hooked


def _watch() -> Watch | None:
    simulated = current()
    return simulated.observer if simulated is not None and isinstance(simulated.observer, Watch) else None


def _in_thread(in_thread: Any) -> Any:
    @wraps(in_thread)
    async def hooked(items: Any, function: Any, *arguments: Any) -> Any:
        party = party_here()
        if party is None:
            return await in_thread(items, function, *arguments)

        def within(*given: Any) -> Any:
            party.enter()
            try:
                return function(*given)
            finally:
                party.thread = RETURNING

        party.thread = STARTING
        try:
            return await in_thread(items, within, *arguments)
        finally:
            party.thread = NONE

    return hooked


def _reach(reach: Any) -> Any:
    @wraps(reach)
    def hooked(simulated: SimulatedProcess, kind: str, label: str, lost: Any = None) -> Any:
        party = party_here()
        if party is None or simulated.dead:
            return reach(simulated, kind, label, lost)
        threaded = party.is_in_thread
        if threaded and not party.turns.has_turn(party):  # it waited for another item, which has the turn
            party.pause()
        watch: Any = simulated.observer
        if party.item.resumed and _precedes(kind) and not watch.then and watch.boundary is not None:
            watch.then = lines_here(watch.boundary)
        answer = reach(simulated, kind, label, lost)
        if threaded and not simulated.dead:
            party.pause()
        return answer

    return hooked


def _precedes(kind: str) -> bool:
    """Return whether a point precedes an effect; False after an effect whose answer had to be awaited."""
    return kind.startswith("before-") or kind in {"sleep", "write"}


def _asyncio_sleep(sleep: Any) -> Any:
    @wraps(sleep)
    async def hooked(delay: float, result: Any = None) -> Any:
        simulated, party = current(), party_here()
        if simulated is not None and party is not None and not is_accounted():
            simulated.reach("sleep", f"asyncio.sleep({delay!r})")
        return await sleep(delay, result)

    return hooked


def _time_sleep(sleep: Any) -> Any:
    @wraps(sleep)
    def hooked(seconds: float) -> None:
        simulated, party = current(), party_here()
        if _takes_turns(simulated, party):
            simulated.reach("sleep", f"time.sleep({seconds!r})")  # type: ignore[union-attr]
        else:
            sleep(seconds)

    return hooked


def _takes_turns(simulated: SimulatedProcess | None, party: Party | None) -> bool:
    return simulated is not None and party is not None and party.is_in_thread and not is_accounted()
