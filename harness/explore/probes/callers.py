"""Find the cause of an audit event: the job's code, a library that it uses, the interpreter, or this package."""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

import harness
from harness.explore.points import Line, stack

Owner = Literal["job", "library", "stdlib", "import", "probe", "boundary", "ours"]

_PACKAGE = str(Path(harness.__file__).parent) + os.sep
_EXPLORE = os.path.join(_PACKAGE, "explore", "")  # noqa: PTH118 - a prefix
_PROBES = (os.path.join(_EXPLORE, "probes", ""), os.path.join(_EXPLORE, "crash.py"))  # noqa: PTH118
_BOUNDARIES = tuple(os.path.join(_EXPLORE, name) for name in ("targets.py", "rq.py"))  # noqa: PTH118
_LIBRARIES = tuple({sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib")})
_STDLIB = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib")})
_PREFIXES: tuple[tuple[str | tuple[str, ...], Owner], ...] = (
    ("<frozen importlib", "import"), ("<frozen ", "stdlib"), (_PROBES, "probe"), (_BOUNDARIES, "boundary"),
    (_PACKAGE, "ours"), (_LIBRARIES, "library"), (_STDLIB, "stdlib"), ("<", "library"),
)  # fmt: skip
_known: dict[str, Owner] = {}

PLUMBING = {
    "_pyio", "asyncio", "codecs", "concurrent", "contextlib", "functools", "io", "os", "pathlib", "posixpath",
    "selectors", "socket", "ssl", "subprocess", "tempfile", "threading", "urllib",
}  # fmt: skip
"""Modules of the standard library that do not identify a client; their caller does."""
READERS = {"_aix_support", "_osx_support", "ctypes.util", "locale", "platform", "sysconfig", "uuid"}
"""Modules of the standard library that start a process only to read a property of this machine."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Cause of an event.

    :ivar line: innermost line of the job's code, or of the library if it is the job.
    :ivar library: the library that the job called, by its top-level name; empty if it called none.
    :ivar direct: whether the job's code caused the event itself.
    """

    line: str
    library: str
    direct: bool


def caller(depth: int = 1) -> Caller | None:
    """Return the cause of the current event; None for this package, the interpreter and its imports.

    :param depth: number of frames to skip.
    """
    innermost: FrameType | None = None
    library = ""
    for frame in stack(sys._getframe(depth)):  # noqa: SLF001 - there is no public way that is as cheap
        owner = _owner(frame.f_code.co_filename)
        if owner == "job":
            return Caller(str(Line(frame.f_code, frame.f_lineno)), library, innermost is None)
        if owner in {"import", "ours"}:
            return None
        if owner == "boundary":
            break
        if owner in {"library", "stdlib"}:
            innermost = innermost or frame
            module = str(frame.f_globals.get("__name__", ""))
            name = module.partition(".")[0]
            if owner == "stdlib" and module in READERS:
                return None
            if name and not (owner == "stdlib" and name in PLUMBING):
                library = name
    if innermost is None:
        return None  # nothing but this package
    return Caller(str(Line(innermost.f_code, innermost.f_lineno)), library, direct=False)


def _owner(file: str) -> Owner:
    owner = _known.get(file)
    if owner is None:
        owner = _known[file] = next((owner for prefix, owner in _PREFIXES if file.startswith(prefix)), "job")
    return owner
