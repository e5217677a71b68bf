"""Ends a trial's processes when the lab exits: they watch an inherited socket pair.

The system closes the lab's end at any exit of the lab, also by SIGKILL or by Ctrl-C during a start. Each
process that holds the other end then kills itself. The lab reads end-of-file from its own end when the last holder has
exited: a worker, its work horse, or an orphan whose worker was killed.
"""

from __future__ import annotations

import os
import signal
import socket
from threading import Thread

from harness.errors import HarnessError

END_SECONDS = 120.0
"""Timeout, in seconds, for the processes of a trial to exit. They kill themselves, which is slow on a busy machine."""


class ParentPipe:
    """The lab's end of the socket pair.

    :ivar theirs: the file descriptor that a worker gets as its standard input.
    """

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self.theirs = self._theirs.fileno()

    def close(self) -> None:
        """End all processes that hold the other end; return when they have exited.

        :raises HarnessError: if they do not exit.
        """
        self._theirs.close()
        with self._ours as ours:
            ours.shutdown(socket.SHUT_WR)
            ours.settimeout(END_SECONDS)
            try:
                ours.recv(1)  # no process writes to the pipe
            except TimeoutError:
                raise HarnessError(
                    f"a process of the trial still runs {END_SECONDS:g} s after the end of the trial"
                ) from None


def obey(pipe: int = 0) -> None:
    """End this process when the lab ends. Call this again in each forked process.

    :param pipe: descriptor of the worker's end: standard input, unless a library closes that in its processes.
    """
    Thread(target=_obey, args=(pipe,), name="harness-parent-pipe", daemon=True).start()


def _obey(pipe: int) -> None:
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGKILL)
