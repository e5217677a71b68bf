"""Files that a module opened for writing before the job: no audit event reports writes to them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from harness.explore.files import FileResource, Kept


class HandleResource(FileResource):
    """File that is written through a handle that outlives the executions.

    :param handle: the open file.
    """

    def __init__(self, path: str, handle: Any) -> None:
        super().__init__(path)
        self._handle = handle

    def restore(self, kept: Kept) -> None:
        """Restore the content, and move the handle to its end.

        A crash loses unflushed data. So the buffer is flushed first, into content that is then overwritten.
        """
        with suppress(ValueError):  # the job has closed it
            self._handle.flush()
        super().restore(kept)
        with suppress(ValueError, OSError):
            self._handle.seek(0, os.SEEK_END)


def open_handles(modules: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield path and handle of each file that the job's modules, or their classes, have open for writing.

    :param modules: names of modules; all loaded modules of their top-level packages count.
    """
    packages = {module.partition(".")[0] for module in modules}
    seen: set[int] = set()
    for name, loaded in list(sys.modules.items()):
        if name.partition(".")[0] not in packages:
            continue
        values = list(vars(loaded).values())
        classes = [value for value in values if isinstance(value, type) and value.__module__ == name]
        for value in [*values, *(each for owner in classes for each in vars(owner).values())]:
            if isinstance(value, io.IOBase) and id(value) not in seen:
                seen.add(id(value))
                path = path_of(value)
                if path is not None:
                    yield path, value


def path_of(handle: Any) -> str | None:
    """Return the path of an open file that can be written; None for anything else, such as a terminal or a pipe."""
    try:
        name = handle.name
        regular = isinstance(name, str | bytes) and handle.writable() and os.path.isfile(name)  # noqa: PTH113
    except (AttributeError, ValueError):
        return None
    return os.path.abspath(os.fsdecode(name)) if regular else None  # noqa: PTH100 - as the job spells it
