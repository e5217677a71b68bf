"""Connections, processes and files that were opened before the exploration: their use raises no event.

Connections to SQLite and descriptors of files can be traced, and are reported when they are used. Objects of
drivers in C are reported if a module of the job has one in a variable.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.explore.crash import current, is_accounted
from harness.explore.probes.callers import caller
from harness.explore.probes.drivers import IN_C
from harness.runtime.forks import instances

MEMBERS = 1_000
"""Maximum number of members of a container that are checked."""
_SQLITE = b"SQLite format 3"
_READING = {"SELECT", "PRAGMA", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "EXPLAIN"}


def older() -> list[sqlite3.Connection]:
    """Return all open connections to SQLite."""
    return instances(sqlite3.Connection)


def held(modules: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield name, text and place of objects in a job's modules that no probe can watch.

    :param modules: names of the job's modules; modules of the same packages that they use count, too.
    """
    for module in _used(modules):
        for variable, value in list(vars(sys.modules[module]).items()):
            inside = _inside(value)
            for each in [value, *inside]:
                found = _held(each)
                if found is not None:
                    yield found[0], f"{variable} {found[1]}", module
                    break


def _used(modules: Sequence[str]) -> list[str]:
    """Return the loaded modules, with the modules of the same packages in their variables."""
    packages = {module.partition(".")[0] for module in modules}
    found = dict.fromkeys(module for module in modules if module in sys.modules)
    for module in list(found):
        for value in list(vars(sys.modules[module]).values()):
            name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(name, str) and name.partition(".")[0] in packages and name in sys.modules:
                found[name] = None
    return list(found)


def _inside(value: Any) -> list[Any]:
    """Return the members of a container, or of an object of the job's own, one level deep."""
    if type(value) in {list, tuple, set}:
        return list(value)[:MEMBERS]
    if type(value) is dict:
        return list(value.values())[:MEMBERS]
    plain = isinstance(value, ModuleType | type) or callable(value)
    return [] if plain else list(getattr(value, "__dict__", {}).values())[:MEMBERS]


def _held(value: Any) -> tuple[str, str] | None:
    if isinstance(value, ModuleType):
        name = value.__name__.partition(".")[0]
        return (name, "is a client that raises no audit events") if name in IN_C else None
    if isinstance(value, subprocess.Popen) and value.stdin is not None and not value.stdin.closed:
        return "process", "is a process that was started before, and reads what is written to it"
    if isinstance(value, type):
        return None
    kind = type(value).__module__.partition(".")[0]
    if kind in {"psycopg2", *IN_C}:
        return kind, f"is an object of {kind}, which raises no audit events"
    return None


@contextmanager
def traced(connections: Sequence[sqlite3.Connection]) -> Iterator[None]:
    """Report writes of a job through connections that were open before, until the block ends."""

    def trace(statement: str) -> None:
        simulated = current()
        if (
            simulated is None
            or simulated.dead
            or is_accounted()
            or statement.split(maxsplit=1)[0].upper() in _READING
        ):
            return
        found = caller(2)
        if found is not None:
            simulated.unseen("sqlite3", "a connection that was open before is written to", found.line)

    for connection in connections:
        with suppress(sqlite3.Error):  # it is closed, or belongs to another thread
            connection.set_trace_callback(trace)
    try:
        yield
    finally:
        for connection in connections:
            with suppress(sqlite3.Error):
                connection.set_trace_callback(None)


def descriptors(modules: Sequence[str]) -> set[int]:
    """Return the numbers in variables of the job's modules; each may be a descriptor that the job uses."""
    values = [value for module in _used(modules) for value in vars(sys.modules[module]).values()]
    found = [each for value in values for each in (value, *_inside(value))]
    return {each for each in found if type(each) is int and each > 2}


def _outputs() -> set[str]:
    """Return the output files of this process and of its ancestors.

    A worker of a test run shares such a descriptor, so its position moves when other processes write.
    """
    found, pid = set(), "self"
    with suppress(OSError, ValueError, IndexError):
        while pid not in {"0", "1"}:
            for number in (1, 2):
                with suppress(OSError):
                    found.add(str(Path("/proc", pid, "fd", str(number)).readlink()))
            # The name of a program, in parentheses, may contain spaces; status and parent follow it.
            pid = Path("/proc", pid, "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
    return found


def positions(numbers: set[int]) -> dict[str, tuple[str, int]]:
    """Return path and position of each regular file that is open for writing, by descriptor; empty where unknown.

    :param numbers: descriptors to look at: others may be shared with another process, which writes there.
    """
    found: dict[str, tuple[str, int]] = {}
    outputs = _outputs()
    with suppress(OSError):
        for entry in list(Path("/proc/self/fd").iterdir()):
            with suppress(OSError, ValueError):
                path = str(entry.readlink())
                if int(entry.name) not in numbers or path in outputs or not Path(path).is_file():
                    continue
                with Path(path).open("rb") as file:
                    if file.read(len(_SQLITE)) == _SQLITE:
                        continue  # its connections are traced
                fields = Path("/proc/self/fdinfo", entry.name).read_text(encoding="ascii").split()
                flags = int(fields[3], 8)
                # Descriptors that this process inherited, such as its output, are also open in its children.
                if flags & (os.O_WRONLY | os.O_RDWR) and flags & os.O_CLOEXEC:
                    found[entry.name] = path, int(fields[1])
    return found
