"""Event loop that decides which of several concurrent items continues, in a repeatable order.

Each item of an :class:`harness.iteration.IterationJob` with ``concurrency`` is a task, and so is each task that it
starts. One of them has the turn. It keeps the turn until it waits. During a call of a watched client no other task
gets the turn; after it, an :class:`~harness.explore.orders.Order` chooses the task that continues. Plain functions run
in threads: a thread has the turn until its next crash point.

* **A sleeping task** may be chosen at any time, which ends its sleep.
* **An open write transaction** keeps the turn, because it would block other items.
* **A task or a thread that waits for another one**, such as for a lock, passes the turn on.
* **The time of the loop** does not advance while a task can continue.

So the same order gives the same crash points with the same numbers.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import sys
import sysconfig
import threading
import time
from asyncio import futures
from asyncio.tasks import sleep
from collections import deque
from contextlib import suppress
from contextvars import Context, ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import harness
from harness.explore.crash import current, is_accounted
from harness.explore.points import is_own

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from harness.explore.trials import Watch

PATIENCE = 0.3
"""Seconds after which a call of a client counts as a wait for another item."""
LOOK_SECONDS, LOOKS = 0.01, 3
"""Seconds between two polls of a thread, and number of equal polls after which it counts as blocked by another."""

NONE, STARTING, PARKED, RUNNING, RETURNING = range(5)
"""States of the thread of an item."""

_TRANSPORTS = tuple(
    f"asyncio/{name}.py" for name in ("base_events", "selector_events", "sslproto", "streams")
)
"""Files of asyncio whose futures are completed from outside of the process."""
_PACKAGE = str(Path(harness.__file__).parent) + os.sep
_LIBRARIES = tuple({sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib")})

_party: ContextVar[Party | None] = ContextVar("harness explored item", default=None)


class Party:
    """Task of an item, with its thread if it runs in one.

    :ivar number: its place in the order of the starts; that of a task of an item begins with that of the item.
    :ivar handles: its next steps. :ivar sleep: timer of its sleep.
    :ivar aside: whether it waits until no other task can continue; :ivar resumed: whether that wait is over.
    """

    def __init__(
        self, turns: TurnLoop, task: asyncio.Task[Any], number: tuple[int, ...], item: Party | None = None
    ) -> None:
        self.turns, self.task, self.number, self.item = turns, task, number, item or self
        self.context: Context | None = None
        self.handles: deque[asyncio.Handle] = deque()
        self.sleep: asyncio.TimerHandle | None = None
        self.aside = self.resumed = self.has_begun = False
        self.thread = NONE
        self._ident = self._native = 0
        self._since, self._place, self._alike = 0.0, (0, 0), 0
        self._go = threading.Event()

    @property
    def is_ready(self) -> bool:
        """True if it can continue."""
        sleeps = self.sleep is not None and not self.sleep.cancelled()
        return bool(self.handles) or self.thread == PARKED or sleeps

    @property
    def is_busy(self) -> bool:
        """True if its thread runs, or if it is in a call of a watched client, and does not wait for another item."""
        if self.thread in {STARTING, RUNNING, RETURNING}:
            return not self.handles and not self._is_blocked()
        return not self.is_ready and self.is_calling and time.monotonic() < self._since + PATIENCE

    @property
    def is_calling(self) -> bool:
        """True if it is in a call of a client, or of any library that waits for an answer."""
        waits_for: Any = getattr(self.task, "_fut_waiter", None)
        return self.turns.is_answer(waits_for) or (
            self.context is not None and self.context.run(is_accounted)
        )

    def go(self) -> None:
        """Continue until the next wait."""
        self.has_begun = True
        self._since, self._alike = time.monotonic(), 0
        if self.thread == PARKED:
            self.thread = RUNNING
            self._go.set()
            return
        timer, self.sleep = self.sleep, None
        if not self.handles and timer is not None:
            timer._run()  # noqa: SLF001 - the sleep ends, as by the loop
            timer.cancel()
        if self.handles:
            self.turns.step(self.handles.popleft())

    def enter(self) -> None:
        """Start in a thread, and wait there for the first turn."""
        self._ident, self._native = threading.get_ident(), threading.get_native_id()
        self.pause()

    def pause(self) -> None:
        """Wait in its thread until it has the turn again."""
        self._go.clear()
        self.thread = PARKED
        if self.turns.wake():
            self._go.wait()
        self.thread = RUNNING

    def release(self) -> None:
        """Let its thread continue without turns, because the loop is closed."""
        self._go.set()

    @property
    def is_in_thread(self) -> bool:
        """True in its thread."""
        return self.thread != NONE and threading.get_ident() == self._ident

    def _is_blocked(self) -> bool:
        """Return whether its thread probably waits for a lock."""
        frame = sys._current_frames().get(self._ident) if self.thread == RUNNING else None  # noqa: SLF001 - as in points
        if frame is None or self.turns.stands_still:
            return False
        place = id(frame), frame.f_lasti
        if place != self._place or not _sleeps(self._native):
            self._place, self._alike, self._since = place, 0, time.monotonic()
            return False
        self._alike += 1
        if is_own(frame.f_code) or frame.f_code.co_filename == threading.__file__:
            return self._alike >= LOOKS
        return time.monotonic() >= self._since + PATIENCE


def _sleeps(native: int) -> bool:
    """Return whether a thread waits, rather than being ready without a processor."""
    try:
        return Path(f"/proc/self/task/{native}/stat").read_text().rpartition(")")[2].split()[0] == "S"
    except (OSError, IndexError):
        return True


class _Selector(selectors.DefaultSelector):
    """Selector whose waits have a limit.

    :ivar most: maximum number of seconds; None for no limit.
    """

    most: float | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for files that are ready."""
        limits = [each for each in (timeout, self.most) if each is not None]
        return super().select(min(limits, default=None))


class TurnLoop(asyncio.SelectorEventLoop):
    """Event loop of an execution whose items take turns."""

    def __init__(self) -> None:
        self._now, self._limit = time.monotonic(), _Selector()
        self._parties: dict[asyncio.Task[Any], Party] = {}
        self._answers: WeakSet[asyncio.Future[Any]] = WeakSet()
        self._number = 0
        self._main: Context | None = None
        self._turn: Party | None = None
        self._over = False
        simulated: Any = current()
        self._simulated = simulated
        self._watch: Watch = simulated.observer
        self._order = self._watch.next_order()
        super().__init__(self._limit)

    def time(self) -> float:
        """Return the time of the loop, which advances only while no item can continue."""
        return self._now

    def close(self) -> None:
        """Close the loop; threads continue without turns."""
        self._over = True
        for party in self._parties.values():
            party.release()
        super().close()

    @property
    def stands_still(self) -> bool:
        """True while the process is paused, in a trial that freezes it."""
        return self._watch.still

    @property
    def has_items(self) -> bool:
        """True while tasks of the job wait for their turns."""
        return bool(self._parties)

    def join(self) -> Party:
        """Let the current task take turns from its next wait on."""
        task = asyncio.current_task(self)
        assert task is not None  # noqa: S101 - a coroutine calls this
        party = self._added(task, None)
        _party.set(party)
        return party

    def step(self, handle: asyncio.Handle) -> None:
        """Run the next step of a task."""
        self._ready.append(handle)  # type: ignore[attr-defined]

    def wake(self) -> bool:
        """Make the loop choose again; return False if it is closed."""
        with suppress(RuntimeError):
            self.call_soon_threadsafe(_nothing)
            return not self._over
        return False

    def has_turn(self, party: Party) -> bool:
        """Return whether a task has the turn."""
        return self._turn is party

    # The methods of asyncio's loop that continue tasks.

    def _call_soon(self, callback: Any, args: Any, context: Context | None) -> asyncio.Handle:
        task = getattr(callback, "__self__", None)
        party = self._party_of(task, context) if isinstance(task, asyncio.Task) else None
        if party is None:
            return super()._call_soon(callback, args, context)  # type: ignore[misc,no-any-return]
        handle = asyncio.Handle(callback, args, self, context)
        party.handles.append(handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future; remember one that a library waits for."""
        future = super().create_future()
        if _is_of_a_library(sys._getframe(1)):  # noqa: SLF001 - as in points
            self._answers.add(future)
        return future

    def is_answer(self, future: Any) -> bool:
        """Return whether a library waits for a future."""
        return future is not None and future in self._answers

    def call_later(  # type: ignore[override]  # the arguments of a callback have no types here
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Schedule a call; remember the call that ends a sleep."""
        handle = super().call_later(delay, callback, *args, context=context)
        if callback is futures._set_result_unless_cancelled:  # type: ignore[attr-defined]  # noqa: SLF001
            party = _party.get()
            if party is not None and not is_accounted():
                party.sleep = handle
        return handle

    def _run_once(self) -> None:
        while self.stands_still:
            time.sleep(LOOK_SECONDS)
        idle = False
        self._limit.most = None
        if not self._ready and not self._over:  # type: ignore[attr-defined]
            busy = (self._main is not None and self._main.run(is_accounted)) or self._is_any_busy()
            if busy:
                self._limit.most = LOOK_SECONDS
            elif not self._give_turn():
                idle = True
        began = time.monotonic()
        super()._run_once()  # type: ignore[misc]
        if idle:
            self._now += time.monotonic() - began

    def _is_any_busy(self) -> bool:
        ready = {party.item for party in self._parties.values() if party.is_ready}
        busy = [
            party.is_busy for party in self._parties.values() if party.item not in ready
        ]  # poll every party
        return any(busy)

    def _is_calling(self, item: Party) -> bool:
        return any(party.is_calling for party in self._parties.values() if party.item is item)

    def _give_turn(self) -> bool:
        """Let one task continue; return False if none can."""
        ready = [party for party in self._parties.values() if party.is_ready]
        if not ready:
            return False
        turn = self._turn
        own = [] if turn is None else [party for party in ready if party.item is turn.item]
        held = self._watch.external.held(self._simulated)
        if turn is not None and own and (held or self._is_calling(turn.item)):
            chosen = turn if turn in own else own[0]
        elif held:  # a started party may hold a resource that the holder of the lock waits for
            begun = [party for party in ready if party.item.has_begun]
            chosen = self._order.choose(turn, begun or ready)
        else:
            rest = [party for party in ready if not party.item.aside]
            for party in ready if not rest else ():
                party.item.aside, party.item.resumed = False, True
            chosen = self._order.choose(turn, rest or ready)
        self._turn = chosen
        chosen.go()
        return True

    def _party_of(self, task: asyncio.Task[Any], context: Context | None) -> Party | None:
        party = self._parties.get(task)
        if party is None and context is not None:
            parent = context.get(_party)
            if parent is None:
                if task.get_name() == "job":
                    self._main = context
            elif not context.run(is_accounted):  # a client's own task belongs to its call
                party = self._added(task, parent)
                context.run(_party.set, party)
        if party is not None:
            party.context = context
        return party

    def _added(self, task: asyncio.Task[Any], parent: Party | None) -> Party:
        self._number += 1
        number = (self._number,) if parent is None else (*parent.number, self._number)
        party = self._parties[task] = Party(self, task, number, None if parent is None else parent.item)
        task.add_done_callback(self._forget)
        return party

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._parties.pop(task, None)


def _is_of_a_library(frame: FrameType | None) -> bool:
    """Return whether a library created a future, or the parts of asyncio for files and threads."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_PACKAGE) or is_own(frame.f_code):
            return False
        if file.startswith(_LIBRARIES) or file.endswith(_TRANSPORTS):
            return True
        frame = frame.f_back
    return False


def party_here() -> Party | None:
    """Return the current item of this context, if items take turns."""
    return _party.get()


def set_aside() -> None:
    """Make the current item wait until no other item can continue."""
    party = _party.get()
    if party is not None:
        party.item.aside = True


async def other_items() -> None:
    """Let other items continue, as the await of a client does while it waits for its answer."""
    if _party.get() is not None:
        await sleep(0)


def _nothing() -> None:
    """Do nothing; the loop then chooses again."""
