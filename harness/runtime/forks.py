"""Database connections belong to the process that opened them.

A fork copies SQLAlchemy's pools and their sockets. Two processes with the same socket share one session of the database
server. If one of them is killed in a transaction, that transaction stays open, because the other process still holds
the socket. The next commit on it commits the work of both.

So every connection is marked with the process that opened it, once :func:`watch` was called. In a forked child

* a connection that waits in a pool is replaced when it is next checked out. The inherited connection stays open and
  unused, because closing it properly would end the parent's session;
* a connection that is checked out, such as one that a session held at the fork, cannot be replaced: its transaction is
  the parent's. Where jobs run (see :func:`guarding`) each use of it raises InheritedConnection; ``close()`` and
  ``rollback()`` pass, and send nothing, so that a session can be closed and used again;
* :func:`check` refuses connections that this cannot replace, such as one that was detached from its pool.

A connection that was opened before :func:`watch` was called has no mark. It belongs to this process if it is younger.
Databases in memory are part of the process and are copied by the fork; they are left alone.

Nothing here imports SQLAlchemy: where it is not loaded, nothing can be inherited.
"""

from __future__ import annotations

import gc
import math
import os
import sqlite3
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import InheritedConnection

_MARK = "harness:pid"
"""Key in ``info`` of a pooled connection for the process that opened it; SQLAlchemy clears it with the connection."""

_UNKNOWN = 0
"""Mark of a connection that is older than this process."""

_SLACK_SECONDS = 0.02
"""Upper bound, in seconds, of the error in the kernel's start time of a process."""

_ADVICE = (
    "open it in the process that uses it: close the session or connection before the worker forks, "
    "or at the start of the job (session.close(), scoped_session.remove())"
)


class _State:
    """Connection state of this process; a child inherits it."""

    def __init__(self) -> None:
        self.watching = False
        self.guards = 0
        self.began: float | None = None
        """Time of the latest fork that made this process; None if it was not observed."""
        self.may_inherit = True
        """True if the parent of this forked process may have opened connections."""
        self.records: weakref.WeakSet[Any] = weakref.WeakSet()
        self.left: list[Any] = []
        """Inherited connections, referenced permanently so that the garbage collector does not close them."""


_state = _State()


@contextmanager
def guarding() -> Iterator[None]:
    """Refuse inherited connections in this process and its children inside the block, in which jobs run."""
    _state.guards += 1
    watch()
    try:
        yield
    finally:
        _state.guards -= 1


def watch() -> None:
    """Mark connections that SQLAlchemy's pools open from now on with this process, if SQLAlchemy is loaded."""
    alchemy = sys.modules.get("sqlalchemy")
    pools = getattr(sys.modules.get("sqlalchemy.pool"), "base", None)
    if _state.watching or alchemy is None or pools is None or not hasattr(alchemy, "event"):
        return
    _state.watching = True
    alchemy.event.listen(pools.Pool, "connect", _opened)
    kind = pools._ConnectionRecord  # noqa: SLF001 - SQLAlchemy has no public list of its connections
    for record in instances(kind):
        _state.records.add(record)
        record.info[_MARK] = _owner(record) if _state.may_inherit else os.getpid()
    _leave_behind()


def instances(*kinds: type) -> list[Any]:
    """Return all objects of these classes and their subclasses in this process.

    Objects frozen by ``gc.freeze()`` are included: servers call it before they fork.
    """
    classes = set().union(*map(_with_subclasses, kinds))
    frozen = gc.get_freeze_count() > 0
    if frozen:
        gc.unfreeze()
    # Follow the references from objects to their class; asking every object for its class takes twice as long.
    referring = gc.get_referrers(*classes)
    if frozen:
        gc.freeze()
    # Compare type(): isinstance() asks an object for its class, which would create a lazy object.
    return [each for each in referring if type(each) in classes]


def _with_subclasses(kind: type) -> set[type]:
    # Call it as type.__subclasses__(): a metaclass is a subclass of type, and has no bound method.
    return {kind}.union(*map(_with_subclasses, type.__subclasses__(kind)))


def check(session: Any, statement: Any) -> Any:
    """Return the connection of a session, and refuse one that another process opened.

    :param session: a SQLAlchemy session. :param statement: the statement it will execute. :raises InheritedConnection:
        if another process opened it, or if that is unknown.
    """
    connection = session.connection(bind_arguments={"clause": statement})
    proxy = connection.connection
    owner = proxy.info.get(_MARK)
    if owner is None:
        owner = proxy.info[_MARK] = _owner(proxy._connection_record)  # noqa: SLF001 - only the record has its age
    if owner != os.getpid():
        _refuse(proxy)  # no rollback either: it would roll back another process's transaction
        raise _refusal("the session's connection")
    return connection


def _owner(record: Any) -> int:
    """Return which process opened a connection that has no mark."""
    return _UNKNOWN if record is None or record.last_connect_time < _born() else os.getpid()


def _opened(_: Any, record: Any) -> None:
    record.info[_MARK] = os.getpid()
    _state.records.add(record)


def _leave_behind() -> None:
    """Separate this process from the connections of other processes."""
    me = os.getpid()
    for record in list(_state.records):
        connection = record.dbapi_connection
        if connection is None or record.info.get(_MARK) == me:
            continue
        if _in_memory(connection):
            record.info[_MARK] = me
        elif not record.in_use:
            record.dbapi_connection = None  # SQLAlchemy opens another at the next checkout
            _put_aside(connection)
        elif _state.guards:
            proxy = record.fairy_ref()
            record.dbapi_connection = None
            _state.left.append(connection)
            if proxy is not None:
                _refuse(proxy)


def _refuse(proxy: Any) -> None:
    _state.left.append(proxy.dbapi_connection)
    proxy.dbapi_connection = _Refused()


def _put_aside(connection: Any) -> None:
    _state.left.append(connection)
    if isinstance(connection, sqlite3.Connection) and not connection.in_transaction:
        # A SQLite connection has no server, but SQLite would assume that this process holds locks of the file.
        with suppress(sqlite3.Error):
            connection.close()


def _in_memory(connection: Any) -> bool:
    if not isinstance(connection, sqlite3.Connection):
        return False
    try:
        return not any(path for _, _, path in connection.execute("PRAGMA database_list"))
    except sqlite3.Error:  # of another thread
        return False


class _Refused:
    """Replacement for a connection that was checked out when the process was forked."""

    def close(self) -> None:
        """Send nothing."""

    def rollback(self) -> None:
        """Send nothing: the transaction is the parent's."""

    def __getattr__(self, name: str) -> Any:
        raise _refusal("this connection")


@cache
def _error() -> type[InheritedConnection]:
    """Return the error, of a class that SQLAlchemy raises unchanged and not inside a StatementError."""
    unwrapped = sys.modules["sqlalchemy.exc"].DontWrapMixin
    return type(
        "InheritedConnection",
        (InheritedConnection, unwrapped),
        {"__module__": InheritedConnection.__module__},
    )


def _refusal(what: str) -> InheritedConnection:
    return _error()(
        f"{what} was opened by a parent process, before this process ({os.getpid()}) was forked; {_ADVICE}"
    )


def _born() -> float:
    """Return the start time of this process, as ``time.time()``; minus infinity if it is unknown."""
    if _state.began is not None:
        return _state.began
    try:
        fields = (
            Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        )
        after_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - after_boot
    except (OSError, ValueError, IndexError, AttributeError):
        return -math.inf
    return time.time() - age + _SLACK_SECONDS


def _before_fork() -> None:
    if _state.guards:
        watch()  # SQLAlchemy may have been imported since


def _after_fork() -> None:
    _state.began, _state.may_inherit = time.time(), "sqlalchemy" in sys.modules
    if _state.watching:
        _leave_behind()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
