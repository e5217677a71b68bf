"""Crash points before a file is opened for writing, renamed or removed: ``write``, and ``opened`` once it is empty.

The audit hook (:mod:`.audit`) calls it. Changes that no resource compares are reported as not seen.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any

from harness.explore.crash import SimulatedProcess, accounted, current
from harness.explore.probes.callers import caller
from harness.explore.probes.patching import patched

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_temporary: dict[str, str] = {}
"""Files and folders that the job created under random names, each with the job's line."""

ATTRIBUTES = ("os.chmod", "os.chown", "os.setxattr", "os.removexattr", "os.chflags")
"""Events of changes of a file's attributes, which are not compared; changes of its times are ignored."""
TEMPORARY = ("tempfile.mkstemp", "tempfile.mkdtemp")
"""Events of new names that are random."""
PATHS = (
    "open", "os.rename", "os.remove", "os.truncate", "os.link", "os.mkdir", "os.rmdir", "os.symlink",
)  # fmt: skip
"""Events of changes of the content of files and folders."""
_TERMINALS = (
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/tty",
    "/dev/std",
    "/dev/fd/",
    "/dev/pts/",
    "/proc/self/fd/",
)


def probes() -> AbstractContextManager[None]:
    """Hook functions that raise no audit event, until the block ends."""
    return patched(
        (shutil, "copystat", _with_the_content),
        (shutil, "copymode", _with_the_content),
        *((os, name, _special(name)) for name in ("mkfifo", "mknod") if hasattr(os, name)),
    )


def prepare() -> None:
    """Forget temporary files, and call gettempdir().

    Its first call writes a file while it holds a lock, and the hook would wait for that lock forever.
    """
    tempfile.gettempdir()
    _temporary.clear()


def own_pid() -> int:
    """Return the number of this process."""
    return os.getpid()


def text(value: Any) -> str:
    """Return a path or a name as text."""
    try:
        return os.fsdecode(value)
    except TypeError:
        return str(value)


def changed(simulated: SimulatedProcess, event: str, args: tuple[Any, ...]) -> None:
    """Reach the point before a file changes."""
    paths = [path for path in _paths(event, args) if not _is_no_outcome(path, event)]
    if event == "os.mkdir":
        # An existing directory does not change, so there is nothing to compare or restore.
        paths = [path for path in paths if not os.path.isdir(path)]  # noqa: PTH112
    if event == "os.rmdir":
        # A directory that is not empty does not change either; it may hold the database, which has its own resource.
        paths = [path for path in paths if not _is_full(path)]
    if not paths:
        return
    found = caller(2)
    if found is None:
        return
    for path in paths:
        kind = _not_compared(path)
        if kind:
            simulated.unseen(kind[0], f"{event} {kind[1]}", found.line)
        else:
            simulated.observer.meet(path)
    label = f"{event} {' '.join(map(os.path.basename, paths))}"
    simulated.reach("write", label)
    if event == "open":
        _opened(simulated, paths[0], int(args[2]), label)


def _opened(simulated: SimulatedProcess, path: str, flags: int, label: str) -> None:
    """Reach the point at which a file is open and still empty, as it is after a crash before the first flush.

    The event precedes the opening. So the file is emptied here, as the opening would do. A new file is removed again,
    because the job's opening may require that it does not exist, and sets its mode.
    """
    is_new = not os.path.lexists(path)
    if is_new and not flags & os.O_CREAT:
        return
    if not is_new and (flags & os.O_EXCL or not flags & os.O_TRUNC or not os.path.isfile(path)):  # noqa: PTH113
        return
    try:
        os.close(os.open(path, os.O_WRONLY | (os.O_CREAT | os.O_EXCL if is_new else os.O_TRUNC), 0o600))
    except OSError:
        return  # the job gets the same error
    try:
        simulated.reach("opened", label)
    finally:
        if is_new and not simulated.dead:
            os.unlink(path)  # noqa: PTH108


def attributes(simulated: SimulatedProcess, event: str, args: tuple[Any, ...]) -> None:
    """Report a change of a file's attributes."""
    if isinstance(args[0], int):
        return  # the descriptor of an open file, whose writes are seen
    path = os.path.abspath(text(args[0]))  # noqa: PTH100 - as the job spells it
    found = caller(2)
    if found is not None and found.library not in sys.stdlib_module_names and not _is_no_outcome(path, event):
        simulated.unseen("attributes", f"{event} {os.path.basename(path)}", found.line)  # noqa: PTH119


def temporary(simulated: SimulatedProcess, event: str, args: tuple[Any, ...]) -> None:
    """Remember a random name."""
    del simulated, event
    found = caller(2)
    _temporary[os.path.abspath(text(args[0]))] = found.line if found else ""  # noqa: PTH100


def left() -> list[tuple[str, str]]:
    """Return path and line of each file or folder under a random name that still exists."""
    return [(path, line) for path, line in _temporary.items() if os.path.lexists(path)]


def _paths(event: str, args: tuple[Any, ...]) -> list[str]:
    if event == "open":
        path, mode, flags = args
        writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & _WRITING)
        found = [(path, -1)] if writes else []
    elif event in {"os.rename", "os.link", "os.symlink"}:
        folders = args[2:] if event != "os.symlink" else (-1, *args[2:])
        found = list(zip(args[:2], (*folders, -1, -1), strict=False))[event == "os.symlink" :]
    else:
        found = [(args[0], args[-1] if event in {"os.remove", "os.mkdir", "os.rmdir"} else -1)]
    return [_absolute(path, folder) for path, folder in found if isinstance(path, str | bytes | os.PathLike)]


def _is_full(path: str) -> bool:
    """Return whether a directory is not empty."""
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def _absolute(path: Any, folder: Any) -> str:
    """Return a path that the job gave, perhaps within an open folder."""
    name = text(path)
    if isinstance(folder, int) and folder >= 0 and not os.path.isabs(name):  # noqa: PTH117
        name = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name)  # noqa: PTH115, PTH118
    return os.path.abspath(name)  # noqa: PTH100 - as the job spells it


def _is_no_outcome(path: str, event: str) -> bool:
    """Return whether a file is not part of the outcome: a terminal, compiled code, or a file under a random name.

    Opening a folder for writing creates a file without a name, which is removed when it is closed.
    """
    if event == "open" and os.path.isdir(path):  # noqa: PTH112
        return True
    if path.startswith(_TERMINALS) or "__pycache__" in path:
        return True
    return bool(_temporary) and any(path == each or path.startswith(each + os.sep) for each in _temporary)


def _not_compared(path: str) -> tuple[str, str] | None:
    """Return the name and the text for a path that no resource can compare."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
        return None
    return "device", f"{os.path.basename(path)}, which is no regular file"  # noqa: PTH119


def _with_the_content(copy: Any) -> Any:
    """Do not report the copy of a file's attributes together with its content, which is no separate effect."""

    @wraps(copy)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        with accounted():
            return copy(*args, **kwargs)

    return hooked


def _special(name: str) -> Any:
    def wrap(make: Any) -> Any:
        @wraps(make)
        def hooked(path: Any, *args: Any, **kwargs: Any) -> Any:
            simulated, found = current(), caller(2)
            if simulated is not None and found is not None:
                simulated.unseen("device", f"os.{name} {os.path.basename(text(path))}", found.line)  # noqa: PTH119
            return make(path, *args, **kwargs)

        return hooked

    return wrap
