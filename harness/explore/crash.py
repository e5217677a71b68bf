"""Simulate the crash of a process: after it, the execution can no longer change external state.

An execution runs inside :func:`living`, with a :class:`SimulatedProcess`. A probe (:mod:`harness.explore.probes`)
calls :meth:`SimulatedProcess.reach` before and after each external effect. The observer of the process may call
:meth:`SimulatedProcess.die` there. From then on

* its connections are closed abruptly, so the server rolls back all uncommitted work;
* each attempt at an external effect raises :class:`~harness.errors.Died`, also in ``except`` and ``finally`` blocks and
  in threads that the execution started.

State inside the process is not frozen: locks are released and files are closed while the error propagates. A real crash
stops everything in the same instant. So data that was written to a file but not flushed is written here, and would be
lost in a real crash.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Protocol
from weakref import WeakValueDictionary

from harness.errors import Died

if TYPE_CHECKING:
    from threading import Thread

Lost = Callable[[], Exception]
"""Returns the error that a client library raises if the answer to an action is lost."""


class Observer(Protocol):
    """Observer of a simulated process."""

    def reach(self, simulated: SimulatedProcess, kind: str, label: str, lost: Lost | None) -> object:
        """Receive a crash point, in the thread of the job; see :meth:`SimulatedProcess.reach`."""
        ...

    def meet(self, thing: Any) -> None:
        """Receive a connection, a client or the path of a file before the process uses it."""
        ...

    def serves(self, raw: Any) -> bool:
        """Return whether a driver's connection leads to a PostgreSQL database that is compared."""
        ...

    def sent(self, kind: str, label: str, body: bytes = b"") -> None:
        """Receive a mail, a request or a message that arrived."""
        ...

    def unseen(self, name: str, what: str, line: str) -> None:
        """Receive an external effect that no probe watches; see :class:`~harness.explore.seen.NotSeen`."""
        ...


_local = threading.local()
_accounted: ContextVar[bool] = ContextVar("harness accounted", default=False)
_awaiting: ContextVar[bool] = ContextVar("harness awaiting", default=False)


class SimulatedProcess:
    """Simulated process that an execution runs in: its external effects and its crash.

    :param observer: called at every crash point while the process lives.
    :ivar dead: whether it has crashed. :ivar cause: why it ended, if not by a planned crash.
    :ivar connections: database connections in use, by the identity of the driver's connection. :ivar engines: their
        engines.
    :ivar pooled: wrappers of SQLAlchemy's pools, by the identity of the driver's connection.
    :ivar threads: the threads that the execution started. :ivar pools: its pools of threads, by the identity of those
        that the job uses.
    """

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.dead = False
        self.cause: str | None = None
        self.connections: dict[int, Any] = {}
        self.engines: dict[int, Any] = {}
        self.threads: list[Thread] = []
        self.pools: dict[int, Any] = {}
        self.pooled: WeakValueDictionary[int, Any] = WeakValueDictionary()

    def reach(self, kind: str, label: str, lost: Lost | None = None) -> object:
        """Pass a crash point.

        :param lost: makes the error that the client library raises if the answer to the last action is lost.
        :raises Died: if the process has crashed, or crashes here.
        """
        if self.dead:
            raise Died
        return self.observer.reach(self, kind, label, lost)

    def unseen(self, name: str, what: str, line: str = "") -> None:
        """Report an external effect that no probe watches.

        :param name: the name under which a user accepts it. :param line: the line of the job, if it is known.
        """
        if not self.dead:
            self.observer.unseen(name, what, line)

    def use(self, engine: Any, connection: Any) -> None:
        """Remember a connection, an object with ``invalidate()``, which a crash closes."""
        raw = id(connection.dbapi_connection)  # the pool makes a new wrapper for each transaction
        if raw not in self.connections:
            self.engines[id(engine)] = engine
            self.observer.meet(connection)
        self.connections[raw] = connection

    def use_raw(self, raw: Any, direct: Callable[[Any], Any]) -> None:
        """Remember a driver's connection that the job uses directly: through its pool, or alone.

        :param direct: returns an object with ``crash()`` for a connection that belongs to no pool.
        """
        if id(raw) not in self.connections:
            self.use(None, self.pooled.get(id(raw)) or direct(raw))

    def die(self, cause: str | None = None) -> NoReturn:
        """Crash here.

        :raises Died: always.
        """
        self.end(cause)
        raise Died

    def end(self, cause: str | None = None) -> None:
        """Close the connections; refuse all further effects."""
        if self.dead:
            return
        self.dead, self.cause = True, cause
        for connection in list(self.connections.values()):
            getattr(connection, "crash", partial(close_raw, connection))()
        self.connections.clear()


def current() -> SimulatedProcess | None:
    """Return the simulated process of this thread; None outside of trials."""
    simulated: SimulatedProcess | None = getattr(_local, "simulated", None)
    return simulated


def living(simulated: SimulatedProcess | None) -> AbstractContextManager[None]:
    """Attribute effects inside the block to a process, also in threads that it starts; None for no process."""
    return _Living(simulated)


class _Living:
    """Sets the process of a thread during a block. It is no generator, because a trial enters thousands of blocks."""

    __slots__ = ("_before", "_simulated")

    def __init__(self, simulated: SimulatedProcess | None) -> None:
        self._simulated = simulated

    def __enter__(self) -> None:
        self._before = current()
        _local.simulated = self._simulated

    def __exit__(self, *_: object) -> None:
        _local.simulated = self._before


class _Marked:
    """Sets a context variable during a block."""

    __slots__ = ("_token", "_variable")

    def __init__(self, variable: ContextVar[bool]) -> None:
        self._variable = variable

    def __enter__(self) -> None:
        self._token = self._variable.set(True)

    def __exit__(self, *_: object) -> None:
        self._variable.reset(self._token)


def accounted() -> AbstractContextManager[None]:
    """Mark effects inside the block as watched by a probe, so that they are not reported as unseen.

    The mark follows the task of an asyncio program, and the threads that are started inside the block.
    """
    return _Marked(_accounted)


def is_accounted() -> bool:
    """Return whether a probe watches the current code."""
    return _accounted.get()


def awaiting() -> AbstractContextManager[None]:
    """Mark effects inside the block as awaited: a task of the job waits for them, and may be cancelled there."""
    return _Marked(_awaiting)


def is_awaiting() -> bool:
    """Return whether a task of the job waits for the current effect."""
    return _awaiting.get()


def close_raw(connection: Any) -> None:
    """Close a pooled connection as a crash would: immediately, even if some code still holds it.

    A SQLite database in memory would be lost with its connection. It represents a server, so it is only
    rolled back.
    """
    raw = getattr(connection, "dbapi_connection", None)
    if raw is None:
        return
    # Call the driver's own method: the probe of the connection refuses effects of a crashed process.
    rollback = sqlite3.Connection.rollback if isinstance(raw, sqlite3.Connection) else type(raw).rollback
    with suppress(Exception):
        rollback(
            raw
        )  # SQLite keeps a closed connection and its lock open while a statement is still referenced
    if not in_memory(raw):
        with suppress(Exception):  # a connection that cannot be closed counts as closed
            connection.invalidate()


def in_memory(raw: Any) -> bool:
    """Return whether a DBAPI connection contains a SQLite database in memory."""
    if not isinstance(raw, sqlite3.Connection):
        return False
    return not sqlite3.Connection.execute(raw, "PRAGMA database_list").fetchone()[2]
