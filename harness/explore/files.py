"""A file as a place outside: what has reached the operating system, which a death does not take back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.explore.places import Table


class FilePlace:
    """A file, there or not."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._seen = self._signature()

    def changed(self) -> bool:
        """Return whether it was written, replaced or removed."""
        before, self._seen = self._seen, self._signature()
        return bool(before != self._seen)

    def keep(self) -> bytes | None:
        """Return its content; None if there is no such file."""
        return self._path.read_bytes() if self._path.exists() else None

    def restore(self, kept: bytes | None) -> None:
        """Write or remove it."""
        if kept is None:
            self._path.unlink(missing_ok=True)
        else:
            self._path.write_bytes(kept)
        self._seen = self._signature()

    def contents(self, kept: Any = ...) -> dict[str, Table]:
        """Return its lines, if it exists."""
        content = self.keep() if kept is ... else kept
        if content is None:
            return {}
        lines = content.decode(errors="replace").splitlines()
        return {f"file {self._path.name}": Table(("line",), [(line,) for line in lines])}

    def close(self) -> None:
        """Nothing is open."""

    def _signature(self) -> Any:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
