"""Crash points before a file is opened for writing, renamed or removed: ``write``.

Python cannot remove an audit hook. So there is one, added by the first exploration, and it does nothing outside of one.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.explore.crash import current

_WRITING = os.O_WRONLY | os.O_RDWR
_state = {"hooked": False, "active": False, "temporary": ""}


@contextmanager
def probes() -> Iterator[None]:
    """Notice what happens to files, until the block ends."""
    # Asked before the hook is active: the first call of gettempdir() writes a file while it holds a lock, and the hook
    # would wait for that lock for ever.
    _state["temporary"] = os.path.join(tempfile.gettempdir(), tempfile.gettempprefix())  # noqa: PTH118 - a prefix
    if not _state["hooked"]:
        sys.addaudithook(_hook)
        _state["hooked"] = True
    _state["active"] = True
    try:
        yield
    finally:
        _state["active"] = False


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _state["active"] or event not in _PATHS:
        return
    life = current()
    if life is None:
        return
    paths = [os.path.abspath(os.fsdecode(path)) for path in _PATHS[event](args)]  # noqa: PTH100 - as the job spells it
    paths = [path for path in paths if not _is_no_outcome(path)]
    if not paths:
        return
    for path in paths:
        life.observer.meet(path)
    life.reach("write", f"{event} {' '.join(map(os.path.basename, paths))}")


def _opened(args: tuple[Any, ...]) -> list[Any]:
    path, mode, flags = args
    writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & _WRITING)
    return [path] if writes and isinstance(path, str | bytes) else []


def _named(args: tuple[Any, ...]) -> list[Any]:
    return [path for path in args[:2] if isinstance(path, str | bytes)]


_PATHS = {"open": _opened, "os.rename": _named, "os.remove": _named, "os.truncate": _named, "os.link": _named}
"""Events, and the paths that they are about."""


def _is_no_outcome(path: str) -> bool:
    """Return whether a file is no outcome: a device, what Python compiled, or a temporary file under a random name."""
    return path.startswith(("/dev/", str(_state["temporary"]))) or "__pycache__" in path
