"""Commands for tests: in this process, and in a terminal whose screen is read."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pyte
from click.testing import CliRunner, Result

from harness.cli.app import main
from tests.workers import PATIENCE


def harness(*arguments: str, text: str | None = None) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, arguments, input=text)


def one_line(result: Result) -> str:
    """Return the error of a command that was refused: exit code 2, and one line."""
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("harness: ")
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr


HEEDING_CTRL_C = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("harness", run_name="__main__")
"""
"""Code that restores the default SIGINT: a shell starts jobs in the background with SIGINT ignored."""


LAST_READS = 10
"""Number of reads of a terminal that no process has open, until it counts as ended."""


class Terminal:
    """A command in a pseudo-terminal of 80 columns; a context manager that kills it if it still runs.

    :param output: file of standard output, if not the terminal.
    :ivar screen: the current screen.
    """

    def __init__(
        self,
        *arguments: str,
        folder: Path,
        lines: int = 24,
        output: IO[str] | None = None,
        **environment: str,
    ) -> None:
        self.screen = pyte.Screen(80, lines)
        self._stream = pyte.ByteStream(self.screen)
        self._terminal, child = pty.openpty()
        variables = {
            **os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": str(lines), "TMPDIR": str(folder),
            **environment,
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-c", HEEDING_CTRL_C, *arguments],
            stdin=child, stdout=output or child, stderr=child, start_new_session=True, env=variables,
        )  # fmt: skip
        os.close(child)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._terminal)

    @property
    def text(self) -> str:
        """The visible text of the screen, without trailing blanks."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def read_until(self, seen: Callable[[str], bool]) -> str:
        """Read until the screen is as it should be, and return it."""
        until = time.monotonic() + PATIENCE
        while not seen(self.text):
            assert time.monotonic() < until, f"it never came; the screen is:\n{self.text}"
            if not self._read(until):
                break
        assert seen(self.text), f"it has ended; the screen is:\n{self.text}"
        return self.text

    def end(self) -> int:
        """Read to the end, and return the exit code."""
        until = time.monotonic() + PATIENCE
        while self._read(until):
            assert time.monotonic() < until, f"it does not end; the screen is:\n{self.text}"
        return self.process.wait(PATIENCE)

    def press_until(self, key: bytes, seen: Callable[[str], bool]) -> None:
        """Press a key again and again until the screen is as it should be, or the command has ended.

        A command that begins to wait for a key throws those away that were pressed before.
        """
        until = time.monotonic() + PATIENCE
        while not seen(self.text):
            assert time.monotonic() < until, f"it never came; the screen is:\n{self.text}"
            os.write(self._terminal, key)
            # One key at a time: a terminal that always has an echo to show never changes its mode.
            while select.select([self._terminal], [], [], 0.2)[0]:
                if not self._read(until):
                    return

    def ctrl_c(self) -> None:
        """Press Ctrl-C: the terminal shows it as ``^C``."""
        os.write(self._terminal, b"\x03")
        self.process.send_signal(signal.SIGINT)

    def _read(self, until: float) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return True
        # Linux may report the end of a terminal shortly before its last bytes arrive.
        for _ in range(LAST_READS):
            try:
                data = os.read(self._terminal, 65536)
            except OSError:  # no process has it open any more
                select.select([], [], [], 0.01)
            else:
                self._stream.feed(data)
                return bool(data)
        return False
