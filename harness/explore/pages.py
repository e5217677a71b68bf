"""Database files stored page by page, so that a page shared by many states is in memory once."""

from __future__ import annotations

SIZE = 4096
"""Size of a page in bytes, independent of the database's page size."""

Pages = tuple[bytes, ...]
"""Pages of a file, in order."""


class Pool:
    """Pages of all states of a database, without duplicates."""

    def __init__(self) -> None:
        self._pages: dict[bytes, bytes] = {}

    def of(self, file: bytes) -> Pages:
        """Return a file's pages."""
        cut = (file[start : start + SIZE] for start in range(0, len(file), SIZE))
        return tuple(self._pages.setdefault(page, page) for page in cut)
