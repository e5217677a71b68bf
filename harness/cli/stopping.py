"""Ctrl-C handling: remove temporary resources and print what was kept."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TextIO

from harness.boundary.texts import printable

STOPPED = 130
"""Exit code of a process that Ctrl-C has ended."""


Kept = str | Callable[[], str]
"""Text about what was kept, or a function that returns it."""


class Stopped(Exception):
    """Ctrl-C; the message says what was kept."""


@contextmanager
def saying(kept: Kept) -> Iterator[None]:
    """Print what was kept if the user presses Ctrl-C in the block."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(_words(kept)) from None


def last_line(text: str, stream: TextIO | None = None) -> None:
    """Print the last line of a stopped command to standard error; a terminal shows ``^C`` before it.

    :param stream: used instead of ``sys.stderr``.
    """
    stream = stream or sys.stderr
    begin = "\n" if stream.isatty() else ""
    stream.write(f"{begin}harness: {printable(text)}\n")
    stream.flush()


def _words(kept: Kept) -> str:
    return f"stopped; {kept if isinstance(kept, str) else kept()}"


class HardStop:
    """Ends this process at Ctrl-C, although an RQ worker in this process would handle the signal itself.

    The worker of an embedded trial handles SIGINT like any worker: its job stops, and the trial starts the
    next. So the signal also takes a second path: Python writes its number into a socket that a thread reads.
    The process then ends immediately, like a killed one: it removes the folder, and private servers end by
    themselves.

    :param folder: holds all files that this process has made.
    :param kept: text of the last line. :param leave: called before that line, for example to remove a bar.
    :ivar expected: True if a SIGINT comes from the trial itself.
    """

    def __init__(self, folder: Path, kept: Kept, leave: Callable[[], object]) -> None:
        self._folder, self._kept, self._leave = folder, kept, leave
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._thread = threading.Thread(target=self._watch, name="harness-ctrl-c", daemon=True)
        self._before = -1
        self.expected = False

    def __enter__(self) -> HardStop:
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is KeyboardInterrupt:
            self._thread.join()  # the thread ends the process and prints the reason
        signal.set_wakeup_fd(self._before)
        self._writer.close()
        self._thread.join()
        self._reader.close()

    def _watch(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGALRM})
        while numbers := self._reader.recv(16):
            if signal.SIGINT in numbers and not self.expected:
                self._end()

    def _end(self) -> None:
        self._leave()
        shutil.rmtree(self._folder, ignore_errors=True)
        # While the main thread removes a bar, sys.stderr may still be the bar's stream, and text written there is lost.
        last_line(_words(self._kept), sys.__stderr__)
        sys.stdout.flush()
        os._exit(STOPPED)
