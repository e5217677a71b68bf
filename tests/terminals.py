"""Terminals for a guide that needs several of them together: each is a shell to type into and read from."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import pyte

from tests.workers import PATIENCE

WIDTH, HEIGHT = 100, 40
PROMPT = "$ "
CTRL_C = "^C"
_ANY_NUMBER = re.compile(r"\d+(?:\\?[.:]\d+)*")
_ANY_BAR = re.compile("[█░·]+")
_OPEN_TERMINAL = 'PS1="\\$ " exec bash --norc --noprofile -i <"$0" >"$0" 2>&1'


class Terminal:
    """Shell in a pseudo-terminal, whose session ends with it.

    :ivar screen: what it shows, with the lines that have scrolled away.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.screen = pyte.HistoryScreen(WIDTH, HEIGHT, history=10_000, ratio=0.001)
        self._stream = pyte.ByteStream(self.screen)
        self._from, self._ready = 0, False
        self._terminal, child = pty.openpty()
        variables = {
            **environment, "TERM": "xterm-256color", "COLUMNS": str(WIDTH), "LINES": str(HEIGHT),
        }  # fmt: skip
        # The leader of a session that opens a terminal gets it as its own, so that Ctrl-C and job control work.
        self._shell = subprocess.Popen(
            ["bash", "-c", _OPEN_TERMINAL, os.ttyname(child)],  # noqa: S607 - the reader's shell
            cwd=folder, env=variables, start_new_session=True,
            # A shell cannot undo that SIGINT is ignored, as it is where the tests run in the background.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - it starts no thread
        )  # fmt: skip
        self._child = child

    def type(self, block: str) -> None:
        """Type the lines of a block that start with ``$``, and wait for those below; ``^C`` is the key.

        Numbers and progress bars of the block stand for any, ``…`` for any text.
        """
        if not self._ready:
            self.read_until(re.escape(PROMPT.strip()))
            self._ready = True
        for part in re.split(rf"^(?=\$ |{re.escape(CTRL_C)}$)", block, flags=re.MULTILINE):
            command, *expected = part.splitlines() or [""]
            if command == CTRL_C:
                os.write(self._terminal, b"\x03")
            elif command.startswith(PROMPT):
                self._from = len(self.lines) - 1
                os.write(self._terminal, command.removeprefix(PROMPT).encode() + b"\n")
            else:
                expected = part.splitlines()
            if shown := [_pattern(line) for line in expected if line.strip()]:
                self.read_until(".*".join(shown))

    @property
    def lines(self) -> list[str]:
        """Lines shown until now; the last is that of the cursor."""
        gone = ["".join(line[column].data for column in range(WIDTH)) for line in self.screen.history.top]
        shown = [line.rstrip() for line in (*gone, *self.screen.display)]
        return shown[: len(gone) + self.screen.cursor.y + 1]

    @property
    def text(self) -> str:
        """Text since the latest command; of a program that fills the screen, all of the screen."""
        fills = any(line.startswith(" harness ") for line in self.screen.display[:1])
        lines = [line.rstrip() for line in self.screen.display] if fills else self.lines[self._from :]
        return "\n".join(lines)

    def read_until(self, pattern: str) -> None:
        """Read until the text has what a pattern describes.

        :raises AssertionError: if it never does.
        """
        until = time.monotonic() + PATIENCE
        while not re.search(pattern, self.text, re.DOTALL):
            remaining = until - time.monotonic()
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, remaining))
            assert ready, f"never shown: {pattern}\nthe terminal shows:\n{self.text}"
            self._stream.feed(os.read(self._terminal, 65536))

    def close(self) -> None:
        """End the shell, and everything that it started."""
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, ValueError):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == self._shell.pid:  # its session
                    os.kill(int(process.name), signal.SIGKILL)
        self._shell.wait(PATIENCE)
        os.close(self._terminal)
        os.close(self._child)


def _pattern(line: str) -> str:
    """Return what a line may look like in a terminal of another width, at another time."""
    words = [re.escape(word).replace("…", ".*?") for word in line.split()]
    numbers = _ANY_NUMBER.sub(r"\\d+(?:[.:]\\d+)*", r"\s+".join(words))
    return _ANY_BAR.sub(r"\\s*[█░·]+", numbers)
