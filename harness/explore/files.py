"""Files and directories as resources: contents written to the operating system, which a crash does not revert."""

from __future__ import annotations

import shutil
import stat
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.explore.tables import Table

MOST_ENTRIES = 10_000
MOST_BYTES = 256 << 20
"""Limits for a directory that each trial restores: number of entries, and bytes."""

TICK = 20_000_000
"""Nanoseconds within which two changes of a file may have the same time: more than one tick of a kernel's clock."""

Kept = Any
"""Snapshot: None for nothing, bytes of a file, ``("link", target)``, or ``("directory", {name: snapshot})``."""


class FileResource:
    """File, symbolic link or directory with everything in it, existing or not.

    :ivar folders: whether directories are compared and restored.
    """

    folders = True

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._seen: Any = None
        self._held: Kept = None
        self._note(self._signature(), self.keep())

    def changed(self) -> bool:
        """Return whether its content has changed."""
        now = self._signature()
        if now == self._seen and not self._is_young:
            return False
        held = self._held
        self._note(now, self.keep())
        return bool(held != self._held)

    def keep(self) -> Kept:
        """Return its content; None if it does not exist."""
        return _read(self._path, _Budget(self._path))

    def restore(self, kept: Kept) -> None:
        """Write or remove it. Correct content is not touched, so its open handles stay valid."""
        _write(self._path, kept)
        self._note(self._signature(), kept)

    def contents(self, kept: Kept = ...) -> dict[str, Table]:
        """Return the lines of a file, or the names in a directory and the lines of its files, if it exists."""
        content = self.keep() if kept is ... else kept
        found: dict[str, Table] = {}
        _describe(found, self._path, content)
        return found

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def _note(self, signature: Any, content: Kept) -> None:
        """Remember the content that was read, and the signature from before the read."""
        self._seen, self._held = signature, content
        # A second write in the same tick of the file system's clock gets the same times.
        self._is_young = time.time_ns() - _newest(self._seen) < TICK

    def _signature(self) -> Any:
        return _signature(self._path)


class _Budget:
    """Limit of a snapshot."""

    def __init__(self, path: Path) -> None:
        self._path, self._entries, self._bytes = path, 0, 0

    def spend(self, size: int) -> None:
        self._entries += 1
        self._bytes += size
        if self._entries > MOST_ENTRIES or self._bytes > MOST_BYTES:
            raise UsageError(
                f"the job changes {self._path}, which holds more than {MOST_ENTRIES:,} files or {MOST_BYTES >> 20} MB; "
                "the explorer restores it for every trial: let the job work in a smaller directory"
            )


def _read(path: Path, budget: _Budget) -> Kept:
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    budget.spend(found.st_size if stat.S_ISREG(found.st_mode) else 0)
    if stat.S_ISLNK(found.st_mode):
        return "link", str(path.readlink())
    if stat.S_ISDIR(found.st_mode):
        return "directory", {each.name: _read(each, budget) for each in sorted(path.iterdir())}
    return path.read_bytes() if stat.S_ISREG(found.st_mode) else ("special", stat.S_IFMT(found.st_mode))


def _write(path: Path, kept: Kept) -> None:
    kind = kept[0] if isinstance(kept, tuple) else "file" if kept is not None else None
    if _kind(path) not in (kind, None):
        _remove(path)
    if isinstance(kept, bytes):
        if path.exists() and path.read_bytes() == kept:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kept)
    elif kind == "link":
        if path.is_symlink() and str(path.readlink()) == kept[1]:
            return
        path.unlink(missing_ok=True)
        path.symlink_to(kept[1])
    elif kind == "directory":
        path.mkdir(parents=True, exist_ok=True)
        for each in list(path.iterdir()):
            if each.name not in kept[1]:
                _remove(each)
        for name, inside in kept[1].items():
            _write(path / name, inside)


def _kind(path: Path) -> str | None:
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(mode):
        return "link"
    if stat.S_ISDIR(mode):
        return "directory"
    return "file" if stat.S_ISREG(mode) else "special"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _signature(path: Path) -> Any:
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    # A program that copies a file may set its mtime, but cannot set its ctime.
    own = found.st_mode, found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns
    if not stat.S_ISDIR(found.st_mode):
        return own
    return own, tuple((each.name, _signature(each)) for each in sorted(path.iterdir()))


def _newest(signature: Any) -> int:
    """Return the newest time in a signature, in nanoseconds since 1970."""
    if signature is None:
        return 0
    if isinstance(signature[0], int):
        return int(signature[-1])
    return max([_newest(signature[0]), *(_newest(each) for _, each in signature[1])])


def _describe(found: dict[str, Table], path: Path, kept: Kept) -> None:
    """Add a table for a file, or for a directory and each file in it, under a name that no other path has."""
    name = _name(path)
    if isinstance(kept, bytes):
        found[f"file {name}"] = Table(("line",), _lines(kept), unnamed=True)
    elif kept is not None and kept[0] == "directory":
        found[f"directory {name}"] = Table(("entry",), [(each,) for each in kept[1]], unnamed=True)
        for each, inside in kept[1].items():
            _describe(found, path / each, inside)
    elif kept is not None:
        found[f"{kept[0]} {name}"] = Table(("target",), [(kept[1],)], unnamed=True)


def _name(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _lines(content: bytes) -> list[tuple[str]]:
    """Return the lines of a text; for anything else its size and a hash."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return [(f"{len(content)} bytes, SHA-256 {sha256(content).hexdigest()[:16]}",)]
    lines = text.split("\n")
    last = lines.pop()
    return [(line.removesuffix("\r"),) for line in lines] + (
        [(f"{last} (without an end of line)",)] if last else []
    )
