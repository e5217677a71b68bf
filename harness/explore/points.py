"""Crash points: their lines in the job's own code, and their names."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import harness

_OURS = str(Path(harness.__file__).parent) + os.sep
_NOT_THE_JOBS = (
    _OURS, sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), sysconfig.get_path("purelib"),
    sysconfig.get_path("platlib"), "<",
)  # fmt: skip
_known: dict[str, bool] = {}

MAX_LABEL = 60


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the job's own code."""

    code: CodeType
    number: int

    def __str__(self) -> str:
        path = Path(self.code.co_filename)
        try:
            path = path.relative_to(Path.cwd())
        except ValueError:
            path = Path(path.name)
        return f"{path}:{self.number}"


@dataclass(frozen=True, slots=True)
class Point:
    """A crash point that the clean run passed.

    :ivar kind: ``commit``, ``before-statement``, …; :ivar number: its number among the points of its kind,
        from 1. :ivar lines: lines of the job's own code on the call stack, outermost first. :ivar state:
        index of the external state there. :ivar marks: number of items started. :ivar unsaved: number of
        items started since the last save. :ivar held: whether an open write would have blocked others.
    :ivar awaits: whether a task of the job waited there, so that it could be cancelled.
    :ivar inside: whether the point is in an item that takes turns with others.
    """

    kind: str
    number: int
    label: str
    lines: tuple[Line, ...]
    state: int
    marks: int
    unsaved: int
    held: bool
    awaits: bool = False
    inside: bool = False

    @property
    def name(self) -> str:
        """Name of the point in all outputs: ``commit#12``."""
        return f"{self.kind}#{self.number}"

    def __str__(self) -> str:
        label = " ".join(self.label.split())
        short = label if len(label) <= MAX_LABEL else label[: MAX_LABEL - 1] + "…"
        return f"{self.name} ({short})" if short != self.kind else self.name


def lines_here(boundary: CodeType) -> tuple[Line, ...]:
    """Return the lines of the job's own code on the call stack, outermost first.

    Code is the job's own if it is not in this package, the standard library or an installed package.

    :param boundary: the function that called the job; its callers are left out.
    """
    found = []
    for frame in stack(sys._getframe(1)):  # noqa: SLF001 - there is no public way that is as cheap
        code = frame.f_code
        if code is boundary:
            break
        if is_own(code):
            found.append(Line(code, frame.f_lineno))
    return tuple(reversed(found))


def stack(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and its callers, then the frames that wait for their greenlet, such as an async session's."""
    greenlet: Any = None
    while frame is not None:
        yield frame
        frame = frame.f_back
        if frame is None and "greenlet" in sys.modules:
            greenlet = (greenlet or sys.modules["greenlet"].getcurrent()).parent
            frame = None if greenlet is None else greenlet.gr_frame


def is_own(code: CodeType) -> bool:
    """Return whether code is the job's own, as for :func:`lines_here`."""
    own = _known.get(code.co_filename)
    if own is None:
        own = _known[code.co_filename] = not code.co_filename.startswith(_NOT_THE_JOBS)
    return own


def lines_of(error: BaseException) -> tuple[Line, ...]:
    """Return the lines of the job's own code in the traceback of an error."""
    found = []
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if is_own(code):
            found.append(Line(code, traceback.tb_lineno))
        traceback = traceback.tb_next
    return tuple(found)


def innermost(way: tuple[Line, ...], files: frozenset[str]) -> Line | None:
    """Return the most informative line of a call stack: the last in the job's files, or the last of all."""
    own = [line for line in way if line.code.co_filename in files]
    found = own or way
    return found[-1] if found else None


def between(before: tuple[Line, ...], after: tuple[Line, ...], files: frozenset[str]) -> list[Line]:
    """Return the lines around an interruption: the first where the call stacks differ, or the innermost ones."""
    for one, other in zip(before, after, strict=False):
        if one != other:
            return [one, other]
    found = [innermost(before, files), innermost(after, files)]
    return [line for line in found if line is not None]
