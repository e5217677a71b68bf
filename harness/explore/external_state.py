"""External state of a job: its resources, found when the job first uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy.orm import close_all_sessions

from harness.errors import UsageError
from harness.explore.crash import SimulatedProcess, living
from harness.explore.files import FileResource
from harness.explore.handles import HandleResource, open_handles
from harness.explore.memory import Memory
from harness.explore.postgres import PostgresResource, is_postgresql
from harness.explore.redis import RedisResource, identity
from harness.explore.resources import (
    ObjectResource,
    ProgressResource,
    SentResource,
    SqliteResource,
    sqlite_path,
)
from harness.explore.seen import Unseen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.explore.resources import Resource, Table

State = dict[str, Any]
"""Content of every resource at one time, by the resource's key."""


DATABASE = "database"
"""Key of the PostgreSQL database."""
SERVED = (SqliteResource, PostgresResource)
"""Resources that are the same for all processes."""
FILE = "file "
"""Key prefix of files."""

CRASHED_SECONDS, JOIN_SECONDS = 5.0, 1.0
"""Seconds to wait for the threads of a crashed process, which end at their next effect, and of a finished job."""


class ExternalState:
    """External state of a job.

    :param witnesses: lists, dicts and sets by name that stand for external state.
    :param modules: names of the modules of the job, or of its versions.
    :param database: URL of a PostgreSQL database that the job uses.
    :ivar memory: state of the process, which a new process does not have.
    :ivar not_seen: effects that no probe watches.
    :ivar progress: store of the explored job, unless it has its own.
    """

    def __init__(
        self, witnesses: Mapping[str, Any], modules: Sequence[str], database: str | None = None
    ) -> None:
        self.progress, self._sent = ProgressResource(), SentResource()
        self._places: dict[str, Resource] = {"progress": self.progress, "sent": self._sent}
        for name, thing in witnesses.items():
            self._places[name] = ObjectResource(name, thing)
        if database is not None:
            self._places[DATABASE] = PostgresResource(database)
        for path, handle in open_handles(modules):
            self._places[f"{FILE}{path}"] = HandleResource(path, handle)
        self.not_seen = Unseen()
        self._copies: dict[str, str] = {}
        self._leave: Callable[[], NoReturn] | None = None
        self.memory = Memory(modules, list(witnesses.values()))
        self._first: State = {key: place.keep() for key, place in self._places.items()}
        self._last: State = dict(self._first)

    def meet(self, thing: Any) -> None:
        """Find the resource of a connection, a client or a file's path.

        Its current content becomes its initial content.
        """
        with living(None):  # effects of the explorer are not the job's
            self._meet(thing)

    def _meet(self, thing: Any) -> None:
        if hasattr(thing, "connection_pool"):
            self._meet_redis(thing)
            return
        if isinstance(thing, str):
            self._add(f"{FILE}{thing}", lambda: FileResource(thing))
            return
        raw: Any = getattr(thing, "driver_connection", None)
        path = sqlite_path(raw)
        if path is None:
            if raw is not None:
                self._meet_server(raw)
            return
        if self._leave is not None and path:
            if path not in self._copies:
                self._leave()
            path = self._copies[path]
        self._add(path or f"database in memory {id(raw)}", lambda: SqliteResource(path, raw))

    def include(self, places: Mapping[str, Resource]) -> None:
        """Watch more resources; their current content becomes their initial content."""
        for key, place in places.items():
            self._add(key, lambda place=place: place)  # type: ignore[misc]  # the default binds it

    def has_file(self, path: str) -> bool:
        """Return whether a file is compared."""
        return f"{FILE}{path}" in self._places

    @property
    def databases(self) -> dict[str, SqliteResource]:
        """The SQLite files by path."""
        return {
            key: place
            for key, place in self._places.items()
            if isinstance(place, SqliteResource) and not place.in_memory
        }

    def stay(self, copies: dict[str, str], leave: Callable[[], NoReturn]) -> None:
        """Accept no more resources from now on, and no database except these copies.

        :param copies: paths of the databases, by the path of the copy. :param leave: called if there are others.
        """
        self._copies, self._leave = copies, leave
        self.not_seen = Unseen(leave)

    def _add(self, key: str, make: Callable[[], Resource]) -> None:
        if key not in self._places:
            if self._leave is not None:
                self._leave()
            place = make()
            self._first[key] = self._last[key] = place.keep()
            self._places[key] = place

    def _meet_server(self, raw: Any) -> None:
        """Check that a connection leads to the database that may be changed and restored."""
        if not is_postgresql(raw):
            raise UsageError(
                f"the job uses a database through {type(raw).__module__.partition('.')[0]}; the explorer "
                "can only restore SQLite and PostgreSQL: explore the job on one of these"
            )
        database = self._places.get(DATABASE)
        if not isinstance(database, PostgresResource):
            raise UsageError(
                "the job uses PostgreSQL, and the explorer changes and restores its rows in each trial; "
                "give the URL of a test database with database= or --database"
            )
        if not database.serves(raw):
            raise UsageError(
                "the job uses another PostgreSQL database than the one in database= or --database"
            )

    def serves(self, raw: Any) -> bool:
        """Return whether a connection leads to the PostgreSQL database that is compared."""
        database = self._places.get(DATABASE)
        with living(None):
            return isinstance(database, PostgresResource) and database.serves(raw)

    def notifying(self) -> dict[str, str]:
        """Return triggers of the PostgreSQL database that send notifications, by the table that has them."""
        database = self._places.get(DATABASE)
        return database.notifying() if isinstance(database, PostgresResource) else {}

    def held(self, simulated: SimulatedProcess) -> bool:
        """Return whether the process has an open write transaction, or a lock that would block other processes."""
        connections, database = list(simulated.connections.values()), self._places.get(DATABASE)
        return any(
            getattr(getattr(each, "dbapi_connection", None), "in_transaction", False) for each in connections
        ) or (isinstance(database, PostgresResource) and database.holds(connections))

    def _meet_redis(self, client: Any) -> None:
        key = identity(client)
        self._add(key, lambda: RedisResource(client))
        self._places[key].touched = True  # type: ignore[attr-defined]

    def sent(self, kind: str, label: str, body: bytes = b"") -> None:
        """Record a mail, a request or a message that arrived."""
        self._sent.add(kind, label, body)

    def look(self) -> State | None:
        """Return the state if it has changed, or None."""
        with living(None):
            changed = [key for key, place in self._places.items() if place.changed()]
            if not changed:
                return None
            self._last = {**self._last, **{key: self._places[key].keep() for key in changed}}
            return self._last

    def now(self) -> State:
        """Return the current content of all resources."""
        with living(None):
            return {key: place.keep() for key, place in self._places.items()}

    def each(self, state: State | None = None) -> Iterator[tuple[str, Resource, Any]]:
        """Yield each resource with its key and its content in a state; ``...`` means its current content.

        Files with their initial content are left out. So a file that only a recovery uses does not change earlier
        states.
        """
        for key, place in self._places.items():
            kept = ... if state is None else state.get(key, self._first[key])
            if key.startswith(FILE):
                kept = place.keep() if kept is ... else kept
                if kept == self._first[key]:
                    continue
            yield key, place, kept

    @property
    def one_process(self) -> bool:
        """True if a resource is a database in the memory of this process, which a second process cannot use."""
        return any(isinstance(place, SqliteResource) and place.in_memory for place in self._places.values())

    @property
    def first(self) -> State:
        """The initial state."""
        return self._first

    def restore(self, state: State) -> None:
        """Restore a state; resources that were found later get their initial content."""
        for key, place in self._places.items():
            place.restore(state.get(key, self._first[key]))
        self._last = {**self._first, **state}

    def contents(self, state: State | None = None) -> dict[str, Table]:
        """Return the content of all resources by name, now or in a state."""
        found: dict[str, Table] = {}
        for key, place in self._places.items():
            tables = place.contents() if state is None else place.contents(state.get(key, self._first[key]))
            for name, table in tables.items():
                # Two databases may have tables with the same name: neither may hide the other.
                found[f"{name} in {key}" if found.get(name, table) != table else name] = table
        return found

    def mortal(self) -> State:
        """Return the content of resources in this process."""
        return {key: place.keep() for key, place in self._places.items() if not isinstance(place, SERVED)}

    @contextmanager
    def let_go(self) -> Iterator[None]:
        """Close all database files: a child process cannot use SQLite's locks of its parent."""
        files = [place for place in self._places.values() if isinstance(place, SERVED)]
        for place in files:
            place.close()
        try:
            yield
        finally:
            for place in files:
                place.open()

    def take_over(self, state: State) -> None:
        """Replace the content of resources in this process by that of another process."""
        for key, kept in state.items():
            self._places[key].restore(kept)

    def close(self) -> None:
        """Close all resources."""
        for place in self._places.values():
            place.close()


def leave(simulated: SimulatedProcess, *, alone: bool) -> None:
    """End a finished or crashed process: its connections, its sessions and its threads.

    The next execution then starts like a new process, without cached rows and without connections.

    :param alone: whether no other execution is alive; its sessions must not change.
    """
    engines = [engine for engine in simulated.engines.values() if engine is not None]
    crashed = simulated.dead
    simulated.end("over")
    for pool in simulated.pools.values():
        pool.shutdown(wait=False, cancel_futures=True)
    for thread in simulated.threads:
        thread.join(CRASHED_SECONDS if crashed else JOIN_SECONDS)
        if thread.is_alive() and not crashed:
            target = getattr(getattr(thread, "_target", None), "__qualname__", thread.name)
            simulated.observer.unseen("thread", f"{target} is still running when the job is done", "")
    if alone:
        with living(None), suppress(Exception):
            close_all_sessions()
    for engine in engines:
        if not _keeps_memory(engine):
            # Connections of an async driver are closed already; closing them again would need its event loop.
            engine.dispose(close=not engine.dialect.is_async)


def _keeps_memory(engine: Any) -> bool:
    url = engine.url
    return url.get_backend_name() == "sqlite" and (not url.database or ":memory:" in str(url))
