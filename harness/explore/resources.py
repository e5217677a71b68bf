"""Resources outside of the process that a job can change, with their snapshots.

A resource is read after every crash point, and each change is kept as a snapshot. So a trial does not repeat
the work before its crash.
"""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.explore.crash import current
from harness.explore.pages import Pages, Pool
from harness.explore.tables import Resource, Table
from harness.explore.witnesses import ObjectResource, SentResource
from harness.stores.memory import MemoryStore

__all__ = [
    "ObjectResource",
    "ProgressResource",
    "Resource",
    "SentResource",
    "SqliteResource",
    "Table",
    "sqlite_path",
]

OURS = ("harness", "job_progress", "sqlite_", "alembic_version")
"""Name prefixes of tables that are not an outcome of the job, such as those of progress."""
MOMENTS = ("DATE", "TIME")
"""Parts of the declared types of date and time columns, whose values differ between runs."""

WAIT_SECONDS = 0.25
MAX_WAITS = 240
"""Lock timeout and number of attempts: one minute in total, enough for any transaction that ends."""

_SCHEMA = "SELECT name, sql FROM sqlite_master WHERE type = 'table'"
_WAL_BYTES = slice(18, 20)


class SqliteResource:
    """SQLite database; a file is read through its own connection, so that only committed data counts.

    :param path: path of the file; empty for a database in memory, which is read through the job's connection.
    """

    def __init__(self, path: str, raw: sqlite3.Connection) -> None:
        self._path, self.in_memory = path, not path
        self._connection = raw
        self._pages = Pool()
        self._opened_or_restored = 0
        self.open()
        self._tables: dict[str, Table] = {}
        self._schema: list[Any] | None = None
        self._seen = self._version()

    def open(self) -> None:
        """Open a connection to the file."""
        self._opened_or_restored += 1
        if not self.in_memory:
            self._connection = sqlite3.connect(
                self._path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
            # The operating system keeps the writes of a crashed process; only a power failure needs more.
            self._connection.execute("PRAGMA synchronous=OFF")

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection through which the database is read."""
        return self._connection

    def move(self, path: str) -> None:
        """Use a copy from now on. The old connection is closed, because it belongs to the parent process."""
        self._path = path
        self.open()

    def changed(self) -> bool:
        """Return whether a change was committed."""
        version = self._version()
        if version == self._seen:
            return False
        self._seen = version
        return True

    def keep(self) -> Pages:
        """Return the pages of the database file; a new one has none."""
        return self._pages.of(self.file())

    def file(self) -> bytes:
        """Return the database file; a new one has no bytes."""
        pages: int = self._connection.execute("PRAGMA page_count").fetchone()[0]
        return self._connection.serialize() if pages else b""

    @property
    def version(self) -> tuple[int, int] | None:
        """Number that differs after each commit and each restore; None for a database in memory."""
        if self.in_memory:
            return None
        number: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return self._opened_or_restored, number

    def everything(self, kept: Pages | None = None) -> dict[str, tuple[list[str], list[tuple[Any, ...]]]]:
        """Return the columns and the rows of every table, those of progress too."""
        with ExitStack() as stack:
            connection = self._connection if kept is None else stack.enter_context(closing(_opened(kept)))
            found = {}
            for name, sql in connection.execute(_SCHEMA).fetchall():
                cursor = connection.execute(f'SELECT * FROM "{name}"')  # noqa: S608
                found[f"{name} {sql}"] = [column[0] for column in cursor.description], cursor.fetchall()
            return found

    def restore(self, kept: Pages) -> None:
        """Write all pages in one transaction, so that other open connections notice."""
        self._opened_or_restored += 1  # PRAGMA data_version counts only other connections' commits
        if self.in_memory:
            self._connection.rollback()
        with closing(_opened(kept)) as source:
            source.backup(self._connection, progress=_Patience(self._path))
        if not self.in_memory:  # keep the log short, because a reader searches it first
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._seen = self._version()

    def contents(self, kept: Pages | None = None) -> dict[str, Table]:
        """Return all tables except those of this package."""
        if kept is not None:
            with closing(_opened(kept)) as connection:
                return _tables(connection, _described(connection))
        schema = self._connection.execute(_SCHEMA).fetchall()
        if schema != self._schema:
            self._schema, self._tables = schema, _described(self._connection)
        return _tables(self._connection, self._tables)

    def close(self) -> None:
        """Close the connection, if this object opened it."""
        if not self.in_memory:
            self._connection.close()

    def _version(self) -> Any:
        if not self.in_memory:
            return self._connection.execute("PRAGMA data_version").fetchone()
        if self._connection.in_transaction:
            return self._seen  # the database is unchanged until the commit
        schema = self._connection.execute("PRAGMA schema_version").fetchone()
        return self._connection.total_changes, schema


class _Patience:
    """Ends a backup that waits for a lock, because sqlite3 would wait forever."""

    def __init__(self, path: str) -> None:
        self._path, self._waited = path, 0

    def __call__(self, _status: int, _remaining: int, _total: int) -> None:
        self._waited += 1
        if self._waited > MAX_WAITS:
            raise UsageError(
                f"the database {Path(self._path).name} is locked by another connection and cannot be "
                "restored; end the transactions of the test before it explores"
            )


def _opened(pages: Pages) -> sqlite3.Connection:
    """Open a stored database file in memory."""
    connection = sqlite3.connect(":memory:")
    kept = b"".join(pages)
    if kept:
        # A database in memory cannot have a write-ahead log; a restore does not change the mode of the file.
        connection.deserialize(kept[: _WAL_BYTES.start] + b"\1\1" + kept[_WAL_BYTES.stop :])
    return connection


def _tables(connection: sqlite3.Connection, described: dict[str, Table]) -> dict[str, Table]:
    return {
        name: replace(table, rows=connection.execute(f'SELECT * FROM "{name}"').fetchall())  # noqa: S608
        for name, table in described.items()
    }


def _described(connection: sqlite3.Connection) -> dict[str, Table]:
    """Return the tables without their rows."""
    described = {}
    for name, sql in connection.execute(_SCHEMA).fetchall():
        if name.startswith(OURS):
            continue
        columns = connection.execute(f'PRAGMA table_info("{name}")').fetchall()
        names = [column[1].lower() for column in columns]
        key = tuple(index for index, column in enumerate(columns) if column[5])
        is_integer = len(key) == 1 and columns[key[0]][2].upper() == "INTEGER"
        described[name] = Table(
            columns=tuple(column[1] for column in columns),
            rows=[],
            key=key,
            numbered=is_integer and not _refers(columns, key, sql),
            moments=_declared(columns, MOMENTS),
            transactional=True,
            json=_declared(columns, ("JSON",)),
            references=tuple(
                (names.index(each[3].lower()), each[2])
                for each in connection.execute(f'PRAGMA foreign_key_list("{name}")').fetchall()
                if each[3].lower() in names
            ),
        )
    return described


def _declared(columns: list[Any], types: tuple[str, ...]) -> frozenset[int]:
    """Return the columns of these types."""
    return frozenset(
        index for index, column in enumerate(columns) if any(each in column[2].upper() for each in types)
    )


def _refers(columns: list[Any], key: tuple[int, ...], sql: str) -> bool:
    """Return whether the key is also a foreign key, whose numbers are significant."""
    name = columns[key[0]][1].lower()
    return any(f"foreign key({quoted})" in sql.lower() for quoted in (name, f'"{name}"'))


class ProgressResource(MemoryStore):
    """Store of an explored job without its own store; it behaves like a server.

    Crash points: ``before-save`` and ``save``, for claims too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._changed = False

    def claim(self, job_id: str) -> Any:
        """Claim the job."""
        return self._reached("claim", lambda: super(ProgressResource, self).claim(job_id))

    def save(self, progress: Any) -> int:
        """Store the progress."""
        size: int = self._reached("save", lambda: super(ProgressResource, self).save(progress))
        return size

    def replace(self, key: str, before: str | None, after: str) -> bool:
        """Store a shared record."""
        replaced: bool = self._reached(
            "share", lambda: super(ProgressResource, self).replace(key, before, after)
        )
        return replaced

    def changed(self) -> bool:
        """Return whether anything was saved."""
        changed, self._changed = self._changed, False
        return changed

    def keep(self) -> Any:
        """Return the texts."""
        return dict(self._texts), dict(self._shared)

    def restore(self, kept: Any) -> None:
        """Restore the records."""
        self._texts, self._shared = dict(kept[0]), dict(kept[1])

    def contents(self, kept: Any = None) -> dict[str, Table]:
        """Return nothing: progress is not part of the outcome."""
        del kept
        return {}

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def _reached(self, verb: str, write: Any) -> Any:
        simulated = current()
        if simulated is None:
            return write()
        simulated.reach("before-save", verb)
        answer = write()
        self._changed = True
        simulated.reach(
            "save", verb, lambda: ConnectionError("the connection was lost before the answer came")
        )
        return answer


def sqlite_path(raw: Any) -> str | None:
    """Return the file of a DBAPI connection, ``""`` for a database in memory, None if it is not SQLite's."""
    if not isinstance(raw, sqlite3.Connection):
        return None
    with suppress(sqlite3.OperationalError):  # in a transaction it does not change
        sqlite3.Connection.execute(raw, "PRAGMA synchronous=OFF")  # as in SqliteResource
    path: str = sqlite3.Connection.execute(raw, "PRAGMA database_list").fetchone()[2]
    return path
