"""Crash points: where they are in the job's own code, and what they are called."""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

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

    :ivar kind: ``commit``, ``before-statement``, …; :ivar number: its place among those of its kind, from 1.
    :ivar lines: the job's own code that led there, from the outside in.
    :ivar state: the index of the state of the outside there.
    :ivar marks: how many items had begun. :ivar unsaved: how many items had begun since the progress was saved.
    :ivar held: whether a write was open that others would have to wait for.
    """

    kind: str
    number: int
    label: str
    lines: tuple[Line, ...]
    state: int
    marks: int
    unsaved: int
    held: bool

    @property
    def name(self) -> str:
        """Name of the point in all outputs: ``commit#12``."""
        return f"{self.kind}#{self.number}"

    def __str__(self) -> str:
        label = " ".join(self.label.split())
        short = label if len(label) <= MAX_LABEL else label[: MAX_LABEL - 1] + "…"
        return f"{self.name} ({short})" if short != self.kind else self.name


def lines_here(boundary: CodeType) -> tuple[Line, ...]:
    """Return the lines of the job's own code that led here, from the outside in.

    Own is what belongs neither to this package, nor to the standard library, nor to what was installed.

    :param boundary: the function that called the job; its callers are left out.
    """
    found = []
    frame = sys._getframe(1)  # noqa: SLF001 - there is no public way that is as cheap
    while frame is not None and frame.f_code is not boundary:
        code = frame.f_code
        own = _known.get(code.co_filename)
        if own is None:
            own = _known[code.co_filename] = not code.co_filename.startswith(_NOT_THE_JOBS)
        if own:
            found.append(Line(code, frame.f_lineno))
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(reversed(found))


def is_own(code: CodeType) -> bool:
    """Return whether code is the job's own, as for :func:`lines_here`."""
    return not code.co_filename.startswith(_NOT_THE_JOBS)


def lines_of(error: BaseException) -> tuple[Line, ...]:
    """Return the lines of the job's own code that an error came through."""
    found = []
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not code.co_filename.startswith(_NOT_THE_JOBS):
            found.append(Line(code, traceback.tb_lineno))
        traceback = traceback.tb_next
    return tuple(found)


def innermost(way: tuple[Line, ...], files: frozenset[str]) -> Line | None:
    """Return the line that a way is best known by: the last in the job's files, or the last of all."""
    own = [line for line in way if line.code.co_filename in files]
    found = own or way
    return found[-1] if found else None


def between(before: tuple[Line, ...], after: tuple[Line, ...], files: frozenset[str]) -> list[Line]:
    """Return the lines around an interruption: those in which the two ways differ first, or the best known."""
    for one, other in zip(before, after, strict=False):
        if one != other:
            return [one, other]
    found = [innermost(before, files), innermost(after, files)]
    return [line for line in found if line is not None]
