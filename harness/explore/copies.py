"""Private external state of a forked process: copies of SQLite files, and the memory that the fork copies.

Any other external state exists only once. Two processes that change and restore it would disturb each other.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable, Container
from contextlib import ExitStack
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn

from harness.explore.crash import SimulatedProcess
from harness.explore.messages import Messages
from harness.explore.probes import sqlite
from harness.explore.probes.patching import patched
from harness.explore.redis import RedisResource
from harness.explore.resources import ObjectResource, ProgressResource, SentResource, SqliteResource
from harness.runtime.forks import instances

if TYPE_CHECKING:
    from harness.explore.external_state import ExternalState
    from harness.explore.recording import Recording

Leave = Callable[[], NoReturn]
"""Callback that ends a process when it reaches external state without a copy."""

SHARED = {"before-request", "request", "write", "leave"}
"""Kinds of crash points at external state that exists only once."""
_IN_MEMORY = (Messages, ObjectResource, ProgressResource, SentResource)


def why_alone(external: ExternalState, recording: Recording) -> str:
    """Return why the trials have to run in one process; empty if they do not."""
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return "processes are forked on Linux, and from the main thread"
    if threading.active_count() > 1:
        return "another thread is alive, and a fork would leave it out"
    if external.not_seen:
        return "not all effects of the job are seen"
    for key, place, _ in external.each():
        if isinstance(place, RedisResource) and place.is_fake:
            continue
        if not isinstance(place, (*_IN_MEMORY, SqliteResource)):
            return f"{key} exists once"
    for point in recording.points:
        if is_shared(point.kind, point.label):
            return f"{point.name} is at external state that exists once"
    return _held(external.databases)


def _held(databases: dict[str, SqliteResource]) -> str:
    """Return a description of an open object that two processes would share after a fork; empty if none is open."""
    ours = {id(place.connection) for place in databases.values()}
    for each in instances(sqlite3.Connection, socket.socket, asyncio.AbstractEventLoop):
        if isinstance(each, sqlite3.Connection):
            if id(each) not in ours and _leads_to(each, databases):
                return "a connection to the database is open, apart from the job's"
        elif isinstance(each, socket.socket):
            if each.fileno() >= 0:
                return "a socket is open"
        elif not each.is_closed():
            return "an event loop is open"
    return ""


def _leads_to(connection: sqlite3.Connection, paths: Container[str]) -> bool:
    try:
        path = sqlite3.Connection.execute(connection, "PRAGMA database_list").fetchone()[2]
    except sqlite3.ProgrammingError as error:  # it is closed, or belongs to another thread
        return "closed" not in str(error)
    return path in paths


def is_shared(kind: str, label: str) -> bool:
    """Return whether a crash point is at external state that exists only once."""
    return kind in SHARED or (kind.startswith("before-") and label.lstrip()[:6].upper() == "ATTACH")


def own(external: ExternalState, folder: str, leave: Leave) -> None:
    """Give this process copies of the databases; end it if the job reaches other external state."""
    paths = {}
    for number, (path, place) in enumerate(external.databases.items()):
        copy = os.path.join(folder, str(number), os.path.basename(path))  # noqa: PTH118, PTH119
        os.makedirs(os.path.dirname(copy))  # noqa: PTH103, PTH120
        for suffix in ("", "-wal"):  # no process writes now, but committed data may still be in the log
            if os.path.exists(path + suffix):  # noqa: PTH110
                shutil.copyfile(path + suffix, copy + suffix)
        place.move(copy)
        paths[path] = os.path.realpath(copy)
    sqlite.redirect(paths)
    external.stay({copy: path for path, copy in paths.items()}, leave)
    # This process only runs trials: the hook stays until its end.
    ExitStack().enter_context(patched((SimulatedProcess, "reach", lambda reach: _checked(reach, leave))))


def _checked(reach: Any, leave: Leave) -> Any:
    @wraps(reach)
    def hooked(simulated: SimulatedProcess, kind: str, label: str, lost: Any = None) -> object:
        if is_shared(kind, label):
            leave()
        return reach(simulated, kind, label, lost)

    return hooked
