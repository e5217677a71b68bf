"""What happens in the processes of a trial, one JSON object a line in one file.

Each line is one write to a file that is open for appending, so lines of several processes do not mix, and what was
written stays when its process is killed. Times are those of ``time.monotonic``, which all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from harness.lab.trial import Attempt


class Journal:
    """The writing end."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, what: str, **more: Any) -> None:
        """Add a line about this process, now."""
        line = json.dumps({"what": what, "pid": os.getpid(), "at": time.monotonic(), **more}) + "\n"
        os.write(self._file, line.encode())


class Story:
    """What a journal tells.

    :ivar attempts: every execution, in the order in which they began. :ivar marked: the items begun.
    :ivar working: processes that have not said that they ended.
    :ivar fired: whether the interruption came.
    :ivar largest: bytes of the largest progress saved, if one was.
    """

    def __init__(self, path: Path) -> None:
        self.attempts: list[Attempt] = []
        self.marked: list[str] = []
        self.fired = False
        self.largest: int | None = None
        self._open: dict[int, Attempt] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        entries = [json.loads(line) for line in lines]
        self.working: list[int] = []
        for entry in entries:
            getattr(self, f"_{entry['what']}")(entry)
        self.working += self._open
        for attempt in self._open.values():  # never said that they ended
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
