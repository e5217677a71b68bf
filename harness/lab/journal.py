"""Journal of the processes of a trial: one JSON object per line in one file.

Each line is one write to a file that is open for appending. So lines of several processes do not mix, and
written lines survive a kill of the process. Times are those of ``time.monotonic``, which all processes of a
machine share.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.boundary.decoding import malformed, parse_json, read
from harness.errors import UsageError
from harness.lab.trial import Attempt


class Journal:
    """Writer of a journal."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, what: str, **more: Any) -> None:
        """Add a line about this process with the current time."""
        line = json.dumps({"what": what, "pid": os.getpid(), "at": time.monotonic(), **more}) + "\n"
        os.write(self._file, line.encode())


class JournalContent:
    """Content of a journal.

    :ivar attempts: all executions in order of their start. :ivar marked: the items begun. :ivar working:
        processes that have not reported their end. :ivar fired: whether the interruption happened. :ivar
        largest: size in bytes of the largest saved progress, if any.
    """

    def __init__(self, path: Path) -> None:
        self.attempts: list[Attempt] = []
        self.marked: list[str] = []
        self.fired = False
        self.largest: int | None = None
        self._open: dict[int, Attempt] = {}
        lines = path.read_bytes().splitlines() if path.exists() else []
        entries = [_entry(line, f"line {number} of the journal") for number, line in enumerate(lines, 1)]
        self.working: list[int] = []
        for entry in entries:
            try:
                getattr(self, f"_{entry['what']}")(entry)
            except KeyError:
                raise UsageError(
                    f"the journal has {entry['what']!r} of a process that has not started"
                ) from None
        self.working += self._open
        for attempt in self._open.values():  # they did not record their end
            attempt.ended = "killed"
            attempt.end = max([attempt.start, *attempt.marks, attempt.requested or 0.0])

    def _start(self, entry: dict[str, Any]) -> None:
        attempt = self._open[entry["pid"]] = Attempt(entry["at"])
        self.attempts.append(attempt)

    def _mark(self, entry: dict[str, Any]) -> None:
        self._open[entry["pid"]].marks.append(entry["at"])
        self.marked.append(entry["item"])

    def _fire(self, entry: dict[str, Any]) -> None:
        self.fired = True
        attempt = self._open[entry["pid"]]
        attempt.requested, attempt.reason = entry["at"], entry["reason"]

    def _saved(self, entry: dict[str, Any]) -> None:
        self.largest = max(self.largest or 0, entry["bytes"])

    def _outcome(self, entry: dict[str, Any]) -> None:
        attempt = self._open[entry["pid"]]
        attempt.ended, attempt.reason = entry["ended"], attempt.reason or entry["reason"]

    def _end(self, entry: dict[str, Any]) -> None:
        self._open.pop(entry["pid"]).end = entry["at"]


@dataclass(frozen=True)
class _Start:
    pid: int
    at: float


@dataclass(frozen=True)
class _Mark(_Start):
    item: str


@dataclass(frozen=True)
class _Fire(_Start):
    reason: str


@dataclass(frozen=True)
class _Saved(_Start):
    bytes: int


@dataclass(frozen=True)
class _Outcome(_Start):
    ended: str
    reason: str | None


_KINDS = {"start": _Start, "mark": _Mark, "fire": _Fire, "saved": _Saved, "outcome": _Outcome, "end": _Start}
"""Kinds of lines, each with its fields."""


def _entry(line: bytes, where: str) -> dict[str, Any]:
    """Read a line.

    :raises UsageError: if :class:`Journal` does not write such lines.
    """
    data = parse_json(line, where, error=UsageError)
    what = data.get("what") if isinstance(data, dict) else None
    if not isinstance(what, str) or what not in _KINDS:
        malformed(where, data, "what is one of " + ", ".join(_KINDS))
    return {"what": what, **asdict(read(_KINDS[what], data, where))}
