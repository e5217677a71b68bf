"""Database files kept page by page, so that a page that many states share is in memory once."""

from __future__ import annotations

SIZE = 4096
"""Bytes of a page, whatever the database's own are."""

Pages = tuple[bytes, ...]
"""A file, in order."""


class Pool:
    """Pages of all states of a database, each of them once."""

    def __init__(self) -> None:
        self._pages: dict[bytes, bytes] = {}

    def of(self, file: bytes) -> Pages:
        """Return a file's pages."""
        cut = (file[start : start + SIZE] for start in range(0, len(file), SIZE))
        return tuple(self._pages.setdefault(page, page) for page in cut)
