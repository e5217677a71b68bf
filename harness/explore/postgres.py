"""PostgreSQL database as a resource: read and restored table by table, row by row, through its own connection.

Rows are kept as text, as PostgreSQL writes them. A table is read again only if a transaction has changed it.
Restoring removes extra rows, writes missing and different rows in one transaction, and sets the sequences. So
after a trial that changed three rows, it writes three rows.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from harness.errors import UsageError
from harness.explore.crash import living
from harness.explore.postgres_schema import TABLES, Described, described
from harness.explore.resources import OURS
from harness.explore.tables import Table

DRIVERS = ("psycopg", "psycopg2", "pg8000", "asyncpg")
"""Packages whose connections lead to PostgreSQL."""
MOMENTS = {"date", "time", "timetz", "timestamp", "timestamptz"}
"""Types of columns that hold a date or a time."""
LOCK_SECONDS = 20
"""Seconds to wait for the lock of another session before a table cannot be restored."""
PROGRESS = {"job_id", "epoch", "state", "progress", "updated_at"}
"""Columns of a table in which ``SqlStore`` keeps progress."""

_SCHEMA = (
    "SELECT count(*), max(xmin::text::bigint), max(oid::bigint) FROM pg_class WHERE relkind IN ('r', 'S')"
)
_SEQUENCES = """
SELECT quote_ident(schemaname) || '.' || quote_ident(sequencename) FROM pg_sequences ORDER BY 1
"""
_NOTIFYING = """
SELECT CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname, t.tgname FROM pg_trigger t
JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND p.prosrc ~* 'notify|dblink' ORDER BY 1, 2
"""
_SERVED = "SELECT count(*) FROM pg_stat_activity WHERE pid = :pid AND datname = current_database()"
_HELD = """
SELECT count(*) FROM pg_locks l WHERE l.pid = ANY (:pids) AND l.granted AND (
  l.locktype = 'advisory' OR (l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock') OR (l.locktype = 'relation'
  AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')))
"""


@dataclass(frozen=True)
class Kept:
    """Rows by table, as text; and each sequence with its last value and whether it was used."""

    tables: dict[str, tuple[str, ...]]
    sequences: dict[str, tuple[int, bool]] = field(compare=False)


class PostgresResource:
    """A PostgreSQL database.

    :param url: URL of the database; its user owns the tables.
    """

    def __init__(self, url: str | sa.URL) -> None:
        self._engine = sa.create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        self._schema: tuple[Any, ...] = ()
        self._tables: dict[str, Described] = {}
        self._names: list[str] = []
        self._versions: dict[str, Any] = {}
        self._rows: dict[str, tuple[str, ...]] = {}
        self.open()

    def open(self) -> None:
        """Connect."""
        with living(None):
            self._connection = self._engine.connect()
            self._all(f"SET lock_timeout = '{LOCK_SECONDS}s'")
            self._snapshot = ""
            self._seen = self.keep()

    def close(self) -> None:
        """Disconnect."""
        with living(None):
            self._connection.close()

    def serves(self, raw: Any) -> bool:
        """Return whether a connection of a driver leads to this database."""
        pid = pid_of(raw)
        with living(None):
            return pid is None or bool(self._all(_SERVED, pid=pid)[0][0])

    def changed(self) -> bool:
        """Return whether a change was committed."""
        with living(None):
            if self._current() == self._snapshot:
                return False
            kept = self.keep()
            changed, self._seen = kept != self._seen, kept
            return changed

    def holds(self, connections: Iterable[Any]) -> bool:
        """Return whether one of these connections has a lock that would block others."""
        pids = [pid for each in connections if (pid := pid_of(getattr(each, "dbapi_connection", None)))]
        with living(None):
            return bool(pids) and bool(self._all(_HELD, pids=pids)[0][0])

    def keep(self) -> Kept:
        """Return the committed content."""
        with living(None):
            snapshot = self._current()
            if snapshot != self._snapshot:
                self._read()
                self._snapshot = snapshot
            return Kept(dict(self._rows), self._sequences())

    def restore(self, kept: Kept) -> None:
        """Restore the content of the tables in one transaction; readers are not locked out."""
        with living(None):
            now = self.keep()
            for name in now.tables.keys() - kept.tables.keys():
                self._all(f"DROP TABLE {self._tables[name].quoted} CASCADE")
            if lost := kept.tables.keys() - now.tables.keys():
                raise UsageError(
                    f"the job dropped the table {min(lost)}, which cannot be restored; explore it on SQLite"
                )
            # A crash or a lost answer in one of these does not change the database: nothing is committed yet.
            try:
                self._change(now, kept)
            except sa.exc.IntegrityError:  # two rows have exchanged a unique value, for example
                self._replace(now, kept)
            self._snapshot = ""
            self._seen = self.keep()

    def notifying(self) -> dict[str, str]:
        """Return triggers that send notifications, by the table that has them."""
        with living(None):
            return {row[0]: row[1] for row in self._all(_NOTIFYING)}

    def contents(self, kept: Kept | None = None) -> dict[str, Table]:
        """Return all tables except those of this package."""
        with living(None):
            held = self.keep() if kept is None else kept
            return {
                name: self._table(self._tables[name], rows)
                for name, rows in held.tables.items()
                if name in self._tables and not name.startswith(OURS)
            }

    def everything(self, kept: Kept | None = None) -> dict[str, tuple[list[str], list[Any]]]:
        """Return the columns and the rows of every table; rows are text, but rows of progress are tuples of columns."""
        with living(None):
            held = self.keep() if kept is None else kept
            found: dict[str, tuple[list[str], list[Any]]] = {}
            for name, rows in held.tables.items():
                columns = list(self._tables[name].columns) if name in self._tables else []
                typed = set(columns) >= PROGRESS
                found[name] = (
                    columns,
                    self._typed(self._tables[name], rows) if typed else [(row,) for row in sorted(rows)],
                )
            return found

    # Reading.

    def _all(self, statement: str, **values: Any) -> list[Any]:
        result = self._connection.execute(sa.text(statement), values)
        return list(result) if result.returns_rows else []

    def _current(self) -> str:
        """Return a value that changes at the end of each transaction that has written."""
        return str(self._all("SELECT pg_current_snapshot()::text")[0][0])

    def _read(self) -> None:
        """Read the tables that have changed."""
        schema = tuple(self._all(_SCHEMA)[0])
        if schema != self._schema:
            self._schema = schema
            self._tables = {each.name: each for each in map(described, self._all(TABLES))}
            self._names = [row[0] for row in self._all(_SEQUENCES)]
        found = list(self._tables.values())
        # A change writes rows under a new transaction id, or reduces the number of rows.
        versions = [
            f"SELECT {index}, count(*), coalesce(max(xmin::text::bigint), 0) FROM {each.quoted}"  # noqa: S608
            for index, each in enumerate(found)
        ]
        now = self._all(" UNION ALL ".join(versions)) if versions else []
        self._rows = {name: rows for name, rows in self._rows.items() if name in self._tables}
        for index, count, newest in now:
            each = found[index]
            version = (each, count, newest)
            if self._versions.get(each.name) != version or each.name not in self._rows:
                rows = self._all(f"SELECT t::text FROM {each.quoted} t ORDER BY {_order(each)}")  # noqa: S608
                self._rows[each.name] = tuple(row[0] for row in rows)
                self._versions[each.name] = version

    def _sequences(self) -> dict[str, tuple[int, bool]]:
        names = self._names
        queries = [
            f"SELECT {index}, last_value, is_called FROM {name}"  # noqa: S608
            for index, name in enumerate(names)
        ]
        found = self._all(" UNION ALL ".join(queries)) if queries else []
        return {names[index]: (last, called) for index, last, called in found}

    def _typed(self, table: Described, rows: tuple[str, ...]) -> list[tuple[Any, ...]]:
        """Return rows, which are stored as text, as tuples of columns."""
        found = self._all(
            f"SELECT (x.r::{table.quoted}).* FROM unnest(CAST(:rows AS text[])) WITH ORDINALITY AS x(r, n) "  # noqa: S608
            "ORDER BY x.n",
            rows=list(rows),
        )
        return [tuple(row) for row in found]

    def _table(self, table: Described, rows: tuple[str, ...]) -> Table:
        key = tuple(table.columns.index(name) for name in table.key)
        names = {each.oid: each.name for each in self._tables.values()}
        return Table(
            columns=table.columns,
            rows=self._typed(table, rows),
            key=key,
            numbered=len(key) == 1 and table.numbered[key[0]],
            moments=frozenset(index for index, kind in enumerate(table.types) if kind in MOMENTS),
            references=tuple(
                (table.columns.index(column), names[oid]) for column, oid in table.references if oid in names
            ),
            transactional=True,
        )

    # Writing.

    def _change(self, now: Kept, kept: Kept) -> None:
        """Change the rows that differ."""
        with self._transaction() as free:
            ordered = self._ordered([name for name, rows in kept.tables.items() if now.tables[name] != rows])
            missing = {name: self._remove(name, kept.tables[name], free=free) for name in reversed(ordered)}
            for name in ordered:
                self._write(self._tables[name], missing[name])
            self._set_sequences(now, kept)

    def _replace(self, now: Kept, kept: Kept) -> None:
        """Empty all tables and fill them again."""
        with self._transaction():
            names = ", ".join(self._tables[name].quoted for name in kept.tables)
            self._all(f"TRUNCATE {names}")
            for name in self._ordered(list(kept.tables)):
                self._write(self._tables[name], list(kept.tables[name]))
            self._set_sequences(now, kept)

    def _set_sequences(self, now: Kept, kept: Kept) -> None:
        for name, (last, called) in kept.sequences.items():
            if now.sequences.get(name) != (last, called):
                self._all("SELECT setval(:name, :last, :called)", name=name, last=last, called=called)

    @contextmanager
    def _transaction(self) -> Iterator[bool]:
        """Begin a transaction; disable triggers and reference checks if the user may; yield whether they are."""
        self._all("BEGIN")
        try:
            self._all("SAVEPOINT role")
            free = True
            try:
                self._all("SET LOCAL session_replication_role = replica")
            except sa.exc.DBAPIError:
                free = False
                self._all("ROLLBACK TO role")
            yield free
        except BaseException:
            self._all("ROLLBACK")
            raise
        self._all("COMMIT")

    def _ordered(self, names: list[str]) -> list[str]:
        """Return tables ordered so that each comes after those that it refers to."""
        waiting, ordered = [self._tables[name] for name in names], []
        while waiting:
            oids = {each.oid for each in waiting}
            free = [each for each in waiting if not (each.refers_to - {each.oid}) & oids] or waiting
            ordered += [each.name for each in free]
            waiting = [each for each in waiting if each not in free]
        return ordered

    def _remove(self, name: str, wanted: tuple[str, ...], *, free: bool) -> list[str]:
        """Remove unwanted rows, and return the rows to write.

        :param free: whether references are not checked; then rows to be changed are removed too.
        """
        table = self._tables[name]
        missing, extra = Counter(wanted), []
        for place, text in self._all(f"SELECT ctid::text, t::text FROM {table.quoted} t"):  # noqa: S608
            if missing[text] > 0:
                missing[text] -= 1
            else:
                extra.append(place)
        rows = list((+missing).elements())
        if extra:
            same = " AND ".join(
                f"(x.r::{table.quoted}).{each} = t.{each}" for each in map(_quoted, table.key)
            )
            kept = (  # rows that will be changed stay, because other rows may refer to them
                f" AND NOT EXISTS (SELECT 1 FROM unnest(CAST(:rows AS text[])) AS x(r) WHERE {same})"  # noqa: S608
                if same and not free else ""
            )  # fmt: skip
            self._all(
                f"DELETE FROM {table.quoted} t WHERE ctid = ANY (CAST(:places AS tid[])){kept}",  # noqa: S608
                places=extra, **({"rows": rows} if kept else {}),
            )  # fmt: skip
        return rows

    def _write(self, table: Described, rows: list[str]) -> None:
        if not rows:
            return
        columns = ", ".join(table.written)
        values = ", ".join(f"(x.r::{table.quoted}).{each}" for each in table.written)
        keys = set(table.key)
        others = [
            quoted
            for name, quoted, made in zip(table.columns, table.quoted_columns, table.generated, strict=True)
            if not made and name not in keys
        ]
        changes = ", ".join(f"{each} = excluded.{each}" for each in others)
        key = ", ".join(map(_quoted, table.key))
        conflict = f" ON CONFLICT ({key}) DO " + (f"UPDATE SET {changes}" if changes else "NOTHING")
        self._all(
            f"INSERT INTO {table.quoted} ({columns}) OVERRIDING SYSTEM VALUE "  # noqa: S608
            f"SELECT {values} FROM unnest(CAST(:rows AS text[])) AS x(r)" + (conflict if key else ""),
            rows=rows,
        )


def _order(table: Described) -> str:
    return ", ".join(map(_quoted, table.key)) or "t::text"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def is_postgresql(raw: Any) -> bool:
    """Return whether a driver's connection leads to PostgreSQL."""
    return type(raw).__module__.partition(".")[0] in DRIVERS


def pid_of(raw: Any) -> int | None:
    """Return the number of the server process that serves a connection; None if the driver does not know it."""
    if hasattr(raw, "get_server_pid"):
        return int(raw.get_server_pid())
    if hasattr(raw, "get_backend_pid"):
        return int(raw.get_backend_pid())
    if getattr(raw, "closed", False):
        return None
    found = getattr(getattr(raw, "info", None), "backend_pid", None)
    key = getattr(raw, "_backend_key_data", None)
    if found is None and key:
        found = struct.unpack("!i", bytes(key[:4]))[0]
    return found
