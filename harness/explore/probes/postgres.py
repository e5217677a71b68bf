"""Crash points of psycopg's connections, without SQLAlchemy: those of SQL, as in :mod:`.sql`.

The probe watches connections to the database of ``database=`` that the job opens itself. Any other use of psycopg is
reported as not seen: other connections, connections opened before the execution, asynchronous connections, and the
pipeline mode.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import wraps
from typing import Any

from harness.explore.crash import SimulatedProcess, accounted, current, is_accounted
from harness.explore.probes.callers import caller
from harness.explore.probes.patching import patched
from harness.explore.probes.postgres_server import beyond
from harness.explore.probes.sql import LOST

_READS = ("BEGIN", "START", "SELECT", "SHOW", "SET", "SAVEPOINT", "RELEASE")
_COMMITS = ("COMMIT", "END")


def probes() -> AbstractContextManager[None]:
    """Hook psycopg if it is loaded, until the block ends."""
    psycopg: Any = sys.modules.get("psycopg")
    if psycopg is None:
        return patched()
    server = importlib.import_module("psycopg._server_cursor").ServerCursor
    cursors = [(each, name) for each in (psycopg.Cursor, server) for name in ("execute", "executemany")]
    return patched(
        (psycopg, "connect", _connect),
        (psycopg.Connection, "connect", lambda connect: _Connect(connect.__func__)),
        *((owner, name, _execute) for owner, name in cursors if name in vars(owner)),
        (psycopg.Cursor, "stream", _stream),
        (psycopg.Cursor, "copy", _copy),
        (psycopg.Connection, "commit", _commit),
        (psycopg.Connection, "rollback", _rollback),
        (psycopg.Connection, "close", _close),
        (psycopg.Connection, "pipeline", _unseen("in pipeline mode")),
        (psycopg.Connection, "tpc_commit", _unseen("in two-phase commits")),
        (psycopg.transaction.Transaction, "__exit__", _end),
        *(
            (owner, name, _unseen("by its asynchronous connections"))
            for owner, names in (
                (psycopg.AsyncConnection, ("commit",)),
                (psycopg.AsyncCursor, ("execute", "executemany", "copy")),
            )
            for name in names
        ),
    )


class Direct:
    """Connection of psycopg, in the form that the exploration uses."""

    def __init__(self, raw: Any) -> None:
        self.dbapi_connection = self.driver_connection = raw

    def crash(self) -> None:
        """Close it as a crash would: the server rolls back uncommitted work."""
        with suppress(Exception), accounted():
            self.dbapi_connection.close()


def _connect(connect: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(connect)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        simulated = current()
        if simulated is None or is_accounted():
            return connect(*args, **kwargs)
        try:
            with accounted():
                connection = connect(*args, **kwargs)
        except Exception:
            _report(simulated, "without SQLAlchemy")  # the database is unknown
            raise
        if simulated.observer.serves(connection):
            simulated.use(None, Direct(connection))
        else:
            _report(simulated, "without SQLAlchemy")
        return connection

    return hooked


class _Connect:
    """``Connection.connect``, a class method."""

    def __init__(self, connect: Callable[..., Any]) -> None:
        self._connect = _connect(connect)

    def __get__(self, _instance: Any, owner: type) -> Callable[..., Any]:
        return self._connect.__get__(owner)  # type: ignore[no-any-return]


def _watched(
    connection: Any, words: str = "on a connection that no probe watches"
) -> SimulatedProcess | None:
    """Return the simulated process that uses a connection, if it is watched; report it if it is not."""
    simulated = current()
    if simulated is None or is_accounted():
        return None
    if id(connection) in simulated.pooled:  # a connection of SQLAlchemy's pool that the job uses directly
        simulated.use_raw(connection, Direct)
    if id(connection) in simulated.connections:
        return simulated
    _report(simulated, words)
    return None


def _report(simulated: SimulatedProcess, words: str) -> None:
    found = caller(3)
    if found is not None:
        simulated.unseen("psycopg", f"psycopg is used {words}", found.line)


def _execute(execute: Any) -> Any:
    @wraps(execute)
    def hooked(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        simulated = _watched(cursor.connection)
        if simulated is None:
            return execute(cursor, query, *args, **kwargs)
        with _around(simulated, cursor.connection, _text(query, cursor)):
            return execute(cursor, query, *args, **kwargs)

    return hooked


def _stream(stream: Any) -> Any:
    @wraps(stream)
    def hooked(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        simulated = _watched(cursor.connection)
        if simulated is None:
            yield from stream(cursor, query, *args, **kwargs)
            return
        label = _text(query, cursor)
        beyond(simulated, label)
        simulated.reach("before-statement", label)
        yield from stream(cursor, query, *args, **kwargs)
        simulated.reach(_kind(cursor.connection, label), label, _lost)

    return hooked


def _copy(copy: Any) -> Any:
    @wraps(copy)
    @contextmanager
    def hooked(cursor: Any, statement: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        simulated = _watched(cursor.connection)
        if simulated is None:
            with copy(cursor, statement, *args, **kwargs) as found:
                yield found
            return
        label = _text(statement, cursor)
        kind = _kind(cursor.connection, label)
        beyond(simulated, label)
        simulated.reach(f"before-{kind}", label)
        with copy(cursor, statement, *args, **kwargs) as found:
            yield found
        simulated.reach(kind, label, _lost)

    return hooked


def _commit(commit: Any) -> Any:
    @wraps(commit)
    def hooked(connection: Any) -> None:
        simulated = _watched(connection)
        if simulated is None:
            commit(connection)
            return
        simulated.reach("before-commit", "commit")
        with accounted():
            commit(connection)
        simulated.reach("commit", "commit", _lost)

    return hooked


def _rollback(rollback: Any) -> Any:
    @wraps(rollback)
    def hooked(connection: Any) -> None:
        simulated = current()
        if simulated is None or not simulated.dead:  # the server has rolled back already
            rollback(connection)

    return hooked


def _close(close: Any) -> Any:
    @wraps(close)
    def hooked(connection: Any) -> None:
        simulated = current()
        if simulated is not None and not is_accounted():
            simulated.connections.pop(id(connection), None)
        close(connection)

    return hooked


def _end(leave: Any) -> Any:
    """Hook the end of ``with connection.transaction()``; the end of the outermost block is a commit."""

    @wraps(leave)
    def hooked(transaction: Any, kind: Any, error: Any, traceback: Any) -> Any:
        simulated = _watched(transaction.connection) if kind is None else None
        outer = transaction._outer_transaction  # noqa: SLF001 - there is no public name
        if simulated is None or not outer or transaction.force_rollback:
            return leave(transaction, kind, error, traceback)
        simulated.reach("before-commit", "commit")
        with accounted():
            answer = leave(transaction, kind, error, traceback)
        simulated.reach("commit", "commit", _lost)
        return answer

    return hooked


def _unseen(words: str) -> Callable[[Any], Any]:
    def wrap(call: Any) -> Any:
        @wraps(call)
        def hooked(*args: Any, **kwargs: Any) -> Any:
            simulated = current()
            if simulated is not None and not is_accounted():
                _report(simulated, words)
            return call(*args, **kwargs)

        return hooked

    return wrap


@contextmanager
def _around(simulated: SimulatedProcess, connection: Any, label: str) -> Iterator[None]:
    kind = _kind(connection, label)
    beyond(simulated, label)
    simulated.reach(f"before-{kind}", label)
    with accounted():
        yield
    simulated.reach(kind, label, _lost)


def _kind(connection: Any, label: str) -> str:
    """Return whether a statement commits: in autocommit mode, outside of a transaction, each one does."""
    verb = label.lstrip().upper()
    idle = connection.autocommit and connection.info.transaction_status == 0
    return "commit" if verb.startswith(_COMMITS) or (idle and not verb.startswith(_READS)) else "statement"


def _text(query: Any, cursor: Any) -> str:
    """Return a query as text: it may be bytes, or composed."""
    if isinstance(query, bytes):
        return query.decode(errors="replace")
    return query if isinstance(query, str) else str(query.as_string(cursor))


def _lost() -> Exception:
    error: Exception = sys.modules["psycopg"].OperationalError(LOST)
    return error
