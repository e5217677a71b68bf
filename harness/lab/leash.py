"""What ties the processes of a trial to its lab: a pair of sockets, of which they all inherit one end.

The system closes the lab's end however the lab ends, also by SIGKILL or by Ctrl-C in the middle of a start; whoever
holds the other end is then gone at once. And the lab reads the end of its own when the last holder is gone: a worker,
its work horse, or an orphan whose worker was killed.
"""

from __future__ import annotations

import os
import signal
import socket
from threading import Thread

from harness.errors import HarnessError

END_SECONDS = 120.0
"""How long the processes of a trial may take to be gone; they kill themselves, and a busy machine takes its time."""


class Leash:
    """The lab's end.

    :ivar theirs: the file descriptor that a worker gets as its standard input.
    """

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self.theirs = self._theirs.fileno()

    def close(self) -> None:
        """End all who hold it; return when they are gone.

        :raises HarnessError: if they stay.
        """
        self._theirs.close()
        with self._ours as ours:
            ours.shutdown(socket.SHUT_WR)
            ours.settimeout(END_SECONDS)
            try:
                ours.recv(1)  # nothing is ever written
            except TimeoutError:
                raise HarnessError(
                    f"a process of the trial is still there {END_SECONDS:g} s after its end"
                ) from None


def obey() -> None:
    """End this process with its lab; for standard input, and anew in each process that was forked."""
    Thread(target=_obey, name="harness-leash", daemon=True).start()


def _obey() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGKILL)
