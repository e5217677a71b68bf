"""Progress in two small tables of a database; work in the same database can be committed with it.

Create the tables with :meth:`SqlStore.create`, with ``harness init-db``, or with a migration: Alembic finds them
after :func:`progress_tables` has added them to your metadata.

**What a crash means.** ``claim``, ``save``, ``delete`` and ``replace`` are each a separate transaction. Crash before
its commit: nothing is stored. Crash after it: everything is stored. If only the answer is lost, SQLAlchemy's
OperationalError is raised, and the execution fails. Its progress is then stored or not; both states are correct. A
claim whose answer was lost leaves an unused epoch. ``save_within`` is part of the caller's transaction. Crash before
the commit: neither the work nor the progress is stored. Crash after it: both are stored. If only the answer to that
commit is lost, the next claim reads the stored progress, which agrees with the work.

**Lock waits.** ``save_within`` locks the job's row until the caller's transaction ends. A claim waits for that end, and
then sees the saved progress. So call ``save_within`` last, just before the commit. A worker that is frozen *between*
the save and the commit makes the claim wait: only the end of its transaction decides whether its work is committed. On
PostgreSQL each statement that may wait ends after ``lock_timeout`` with ProgressLocked. The statement has changed
nothing, and the job runs again later. The claim then waits again, until the frozen worker continues or its connection
ends. PostgreSQL's ``idle_in_transaction_session_timeout`` ends that connection. A worker that was frozen *before* the
save finds a higher epoch: it raises Superseded, and its transaction is rolled back.

**PostgreSQL.** The store's own transactions are READ COMMITTED, independent of the engine's level. The caller's
transaction may have any level. Above READ COMMITTED the database refuses to update a row that was claimed in between
(SQLSTATE 40001); the store reports that as Superseded too.

**SQLite.** SQLite locks the whole file. Each transaction of the store takes the lock with its first statement, so it
waits for other writers, never reads old data, and never deadlocks. It waits for the connection's timeout, 5 s by
default, and then raises "database is locked". Longer transactions need ``create_engine(url, connect_args={"timeout":
30})``; with ``PRAGMA journal_mode=WAL`` readers and the writer do not wait for each other. ``lock_timeout`` has no
effect on SQLite. A store and a session of one process are two connections: end the session's transaction before any
call except ``save_within``. Databases in memory are not supported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, ProgrammingError

from harness.boundary.decoding import shown
from harness.errors import CorruptProgress, UsageError
from harness.progress import Progress
from harness.runtime import forks
from harness.stores.databases import is_same, named, refuse_async
from harness.stores.locks import LOCK_TIMEOUT, bound, is_locked, locked
from harness.stores.memory import superseded
from harness.stores.prepared import Prepared

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


forks.watch()


class ProgressTables(NamedTuple):
    """Tables of a :class:`SqlStore`.

    :ivar progress: one row per job. :ivar shared: records that several jobs share, one row per key. Rows stay
        until they are deleted; ``updated_at`` (UTC) shows which are old.
    """

    progress: sa.Table
    shared: sa.Table


def progress_tables(
    metadata: sa.MetaData, *, name: str = "job_progress", schema: str | None = None
) -> ProgressTables:
    """Add the tables of a :class:`SqlStore` to *metadata*, for Alembic or ``metadata.create_all()``.

    :param name: name of the first table; the second has the suffix ``_shared``.
    """
    return ProgressTables(
        sa.Table(
            name,
            metadata,
            sa.Column("job_id", sa.String(255), primary_key=True),
            sa.Column("epoch", sa.Integer, nullable=False),
            sa.Column("state", sa.String(16), nullable=False),
            sa.Column("progress", sa.Text, nullable=False),
            sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
            schema=schema,
        ),
        sa.Table(
            f"{name}_shared",
            metadata,
            sa.Column("key", sa.String(255), primary_key=True),
            sa.Column("value", sa.Text, nullable=False),
            sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
            schema=schema,
        ),
    )


TABLES = progress_tables(sa.MetaData())
"""Tables with the names of ``harness init-db``."""

NOW = sa.func.current_timestamp()


class SqlStore:
    """Store in a database: a :class:`harness.progress.TransactionalStore`.

    :param engine: engine of the database, SQLite or PostgreSQL. It may be created before a fork: its connections are
        not shared with the parent process. :param tables: result of :func:`progress_tables`, if the names are not the
        default ones.
    :param lock_timeout: time in seconds, or a ``timedelta``, that a statement waits for another transaction's lock on
        PostgreSQL. If the engine's connections already have a ``lock_timeout`` other than 0, it is kept.
    :raises UsageError: if *lock_timeout* is not a time that PostgreSQL accepts.
    """

    unavailable: ClassVar[tuple[type[Exception], ...]] = (OperationalError, InterfaceError)

    def __init__(
        self,
        engine: sa.Engine,
        *,
        tables: ProgressTables = TABLES,
        lock_timeout: float | timedelta = LOCK_TIMEOUT,
    ) -> None:
        refuse_async(engine)
        self._sqlite = engine.dialect.name == "sqlite"
        self._engine = engine if self._sqlite else engine.execution_options(isolation_level="READ COMMITTED")
        self._progress, self._shared = tables
        columns = self._progress.c
        # The text also contains the epoch; the column is authoritative, because it is locked and compared.
        self._of_job = columns.job_id == sa.bindparam("job")
        always = bound(lock_timeout)
        self._bound = always if engine.dialect.name == "postgresql" else sa.true()
        self._save = Prepared(
            sa.update(self._progress)
            .where(self._of_job, columns.epoch == sa.bindparam("owner"), self._bound)
            .values(state=sa.bindparam("stands"), progress=sa.bindparam("text"), updated_at=NOW)
        )
        self._raise_epoch = (
            sa.update(self._progress).where(self._of_job, self._bound).values(epoch=columns.epoch + 1)
        )
        self._select = sa.select(columns.epoch, columns.progress).where(self._of_job)

    def create(self) -> None:
        """Create the missing tables."""
        for table in (self._progress, self._shared):
            table.create(self._engine, checkfirst=True)

    def drop(self) -> None:
        """Drop the tables with all progress."""
        for table in (self._progress, self._shared):
            table.drop(self._engine, checkfirst=True)

    def claim(self, job_id: str) -> Progress:
        """Claim the job with a raised epoch.

        :raises UsageError: if the tables are missing. :raises ProgressLocked: if another transaction holds
            the job's row for longer than the lock timeout.
        """
        try:
            return self._claim(job_id)
        except IntegrityError:
            # Another execution inserted the row first: now raise its epoch.
            return self._claim(job_id)

    def save(self, progress: Progress) -> int:
        """Store the progress unless the job was claimed since."""
        values = _values(progress)
        with self._transaction(progress.job_id) as connection:
            if self._save.run(connection, values) == 0:
                raise superseded(progress, self._owner(connection, progress))
        return len(values["text"])

    def save_within(self, session: Session, progress: Progress) -> int:
        """Store the progress in the open transaction of *session*, which locks it until the caller commits.

        On PostgreSQL the store's lock timeout applies to the rest of that transaction, if it had none.

        :raises Superseded: if the job was claimed since; roll the transaction back.
        :raises ProgressLocked: if another transaction holds the job's row for too long; roll the transaction back.
        :raises UsageError: if the session is not on the database of the store.
        :raises InheritedConnection: if another process opened the session's connection.
        """
        values = _values(progress)
        connection = forks.check(session, self._save.statement)
        try:
            stored = self._save.run(connection, values)
        except DBAPIError as error:
            self._check_same_database(session)
            # The session's transaction has failed, so it cannot say whether a claim was the reason.
            with self._transaction(progress.job_id, reading=True) as own:
                owner = self._owner(own, progress)
            if owner != progress.epoch:
                raise superseded(progress, owner) from error
            if is_locked(error):
                raise locked(progress.job_id) from error
            raise
        if not stored:
            owner = self._owner(session, progress)
            if owner is None:
                self._check_same_database(session, missing=progress)
            raise superseded(progress, owner)
        return len(values["text"])

    def renew(self, progress: Progress) -> int:
        """Store the progress of an execution whose row is gone; one transaction, like a save."""
        try:
            with self._transaction(progress.job_id) as connection:
                return self._insert(connection, progress)
        except IntegrityError:  # a row exists by now, of this execution or of another
            return self.save(progress)

    def renew_within(self, session: Session, progress: Progress) -> int:
        """Store the progress of an execution whose row is gone in the open transaction of *session*.

        :raises Superseded: if a row exists by now; roll the transaction back. :raises ProgressLocked: if another
            transaction that inserts the row takes too long; roll the transaction back.
        """
        try:
            return self._insert(session, progress)
        except IntegrityError as error:
            raise superseded(progress, progress.epoch + 1) from error
        except DBAPIError as error:
            if is_locked(error):
                raise locked(progress.job_id) from error
            raise

    def load(self, job_id: str) -> Progress | None:
        """Return the stored progress, or None."""
        with self._transaction(job_id, reading=True) as connection:
            row = connection.execute(self._select, {"job": job_id}).one_or_none()
        return None if row is None else _progress(job_id, *row)

    def delete(self, job_id: str) -> None:
        """Delete the progress."""
        with self._transaction(job_id) as connection:
            connection.execute(sa.delete(self._progress).where(self._of_job, self._bound), {"job": job_id})

    def older_than(self, seconds: float, after: str = "", limit: int = 1_000) -> list[tuple[str, str]]:
        """Return ids and states of jobs with progress older than an age, in the order of their ids.

        :param after: id before the first one. :param limit: maximum number of ids.
        """
        columns = self._progress.c
        rows = (
            sa.select(columns.job_id, columns.state)
            .where(columns.job_id > after, columns.updated_at < self._before(seconds))
            .order_by(columns.job_id)
            .limit(limit)
        )
        with self._transaction(after, reading=True) as connection:
            return [(str(job_id), str(state)) for job_id, state in connection.execute(rows)]

    def shared_older_than(self, seconds: float, after: str = "", limit: int = 1_000) -> list[str]:
        """Return keys of shared records older than an age, in their order."""
        columns = self._shared.c
        rows = (
            sa.select(columns.key)
            .where(columns.key > after, columns.updated_at < self._before(seconds))
            .order_by(columns.key)
            .limit(limit)
        )
        with self._transaction(after, reading=True) as connection:
            return [str(key) for key in connection.scalars(rows)]

    def prune(self, job_ids: Sequence[str], keys: Sequence[str], seconds: float) -> int:
        """Delete the progress of jobs, and shared records, unless they were written since; return their number.

        One transaction. A row that an execution has written since it was listed is not old, and is kept.
        """
        deleted = 0
        with self._transaction(", ".join([*job_ids, *keys][:3])) as connection:
            for table, column, names in (
                (self._progress, self._progress.c.job_id, job_ids), (self._shared, self._shared.c.key, keys),
            ):  # fmt: skip
                if names:
                    old = column.in_(names), table.c.updated_at < self._before(seconds), self._bound
                    deleted += connection.execute(sa.delete(table).where(*old)).rowcount
        return deleted

    def _before(self, seconds: float) -> Any:
        """Return the time before an age, by this process's clock; SQLite keeps UTC without a zone."""
        at = datetime.now(UTC) - timedelta(seconds=seconds)
        return at.replace(tzinfo=None) if self._sqlite else at

    def read(self, key: str) -> str | None:
        """Return the shared record under the key."""
        with self._transaction(key, reading=True) as connection:
            value: str | None = connection.scalar(
                sa.select(self._shared.c.value).where(self._shared.c.key == key)
            )
        return value

    def replace(self, key: str, before: str | None, after: str) -> bool:
        """Replace the shared record unless it was changed since it was read.

        If only the answer is lost, it raises; a caller that tries again reads the record first.
        """
        columns = self._shared.c
        if before is None:
            insert = sa.insert(self._shared).values(key=key, value=after, updated_at=NOW)
            try:
                with self._transaction(key) as connection:
                    self._bound_inserts(connection)
                    connection.execute(insert)
            except IntegrityError:
                return False
            return True
        update = sa.update(self._shared).where(columns.key == key, columns.value == before, self._bound)
        with self._transaction(key) as connection:
            return connection.execute(update.values(value=after, updated_at=NOW)).rowcount == 1

    def _claim(self, job_id: str) -> Progress:
        with self._transaction(job_id) as connection:
            # The first statement writes and takes the lock, so the row that is read next is the latest.
            if connection.execute(self._raise_epoch, {"job": job_id}).rowcount == 0:
                progress = Progress(job_id, epoch=1)
                self._insert(connection, progress)
                return progress
            # Unreadable progress raises an error, which rolls back the change of the epoch: the row does not change.
            progress = _progress(job_id, *connection.execute(self._select, {"job": job_id}).one())
            self._save.run(connection, _values(progress))
            return progress

    def _insert(self, at: sa.Connection | Session, progress: Progress) -> int:
        text = progress.to_json()
        self._bound_inserts(at)
        row = {"job_id": progress.job_id, "epoch": progress.epoch, "state": progress.state, "progress": text}
        at.execute(sa.insert(self._progress).values(**row, updated_at=NOW))
        return len(text)

    def _owner(self, at: sa.Connection | Session, progress: Progress) -> int | None:
        row = at.execute(self._select, {"job": progress.job_id}).one_or_none()
        return None if row is None else row[0]

    def _bound_inserts(self, at: sa.Connection | Session) -> None:
        """Limit the time that an insert waits for another transaction's row with the same key: it has no WHERE."""
        if not self._sqlite:
            at.execute(sa.select(self._bound))

    @contextmanager
    def _transaction(self, key: str, *, reading: bool = False) -> Iterator[sa.Connection]:
        with self._engine.connect() as connection:
            try:
                with connection.begin():
                    if self._sqlite and not reading:
                        _lock_sqlite(connection)
                    yield connection
            except DBAPIError as error:
                if is_locked(error):
                    raise locked(key) from error
                if not isinstance(error, OperationalError | ProgrammingError):
                    raise
                if error.connection_invalidated or self._exist(connection):
                    raise
                raise UsageError(
                    f"the {named(self._engine)} has no table {self._progress.fullname!r} for the progress "
                    f"of jobs, or no {self._shared.fullname!r}; create them once with SqlStore.create(), "
                    "with `harness init-db` or by a migration (progress_tables() adds them to your "
                    "metadata)"
                ) from error

    def _exist(self, connection: sa.Connection) -> bool:
        tables = sa.inspect(connection)
        return all(tables.has_table(each.name, schema=each.schema) for each in (self._progress, self._shared))

    def _check_same_database(self, session: Session, missing: Progress | None = None) -> None:
        engine = session.get_bind(clause=self._progress).engine
        same = is_same(engine, self._engine)
        if same and missing is not None:  # otherwise the session uses another schema
            with self._transaction(missing.job_id, reading=True) as own:
                same = self._owner(own, missing) != missing.epoch
        if not same:
            raise UsageError(
                f"the session works in the {named(engine)}, but the progress is in the {named(self._engine)}; they "
                "can be "
                "committed together only in one database: give the store the session's engine"
            )


def _lock_sqlite(connection: sa.Connection) -> None:
    """Take the lock of the file, unless the engine has already begun a transaction."""
    driver: Any = connection.connection.dbapi_connection
    if not driver.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _values(progress: Progress) -> dict[str, Any]:
    text = progress.to_json()
    return {"job": progress.job_id, "owner": progress.epoch, "stands": progress.state, "text": text}


def _progress(job_id: str, epoch: Any, text: Any) -> Progress:
    progress = Progress.from_json(job_id, text)
    if type(epoch) is not int or epoch < 0:  # SQLite stores any type in any column
        raise CorruptProgress(f"the progress of job {job_id} has epoch = {shown(epoch)}; it was not changed")
    progress.epoch = epoch
    return progress
