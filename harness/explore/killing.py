"""Run the same trial in a process that is really killed, to check the simulated crash.

A child process runs the job from the start and sends itself SIGKILL at the crash point. Its changes of files
are then in the files. It reports changes of resources in this process, such as sent mails, through a pipe
before it continues.
"""

from __future__ import annotations

import ast
import os
import select
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.explore.trials import Watch, run_to_end

if TYPE_CHECKING:
    from harness.explore.crash import Lost, SimulatedProcess
    from harness.explore.external_state import ExternalState
    from harness.explore.targets import Target


@dataclass
class KillAtPoint(Watch):
    """Kills its process at the point of its trial, and reports changes of resources that are lost with it.

    :ivar pipe: file descriptor that states are written to, one per line.
    """

    pipe: int = -1
    _reported: str = ""

    def look(self, kind: str, label: str) -> object:
        """Report changes."""
        del kind, label
        self.report()
        return None

    def report(self) -> None:
        """Write the state if it has changed."""
        state = repr(self.external.mortal())
        if state != self._reported:
            self._reported = state
            os.write(self.pipe, state.encode() + b"\n")

    def _interrupt(self, simulated: SimulatedProcess, lost: Lost | None) -> object:
        del simulated, lost
        self.report()
        os.kill(os.getpid(), signal.SIGKILL)
        return None


def run_and_kill(target: Target, external: ExternalState, watch: KillAtPoint, seconds: float) -> None:
    """Run the job in a child process until it kills itself, and take its external state.

    :raises UsageError: if it ended differently, or not in time.
    """
    with external.let_go():
        reading, watch.pipe = os.pipe()
        pid = os.fork()
        if pid == 0:
            with suppress(BaseException):
                run_to_end(target, external, watch, seconds)
            os._exit(0)
        os.close(watch.pipe)
        try:
            reported = _read_all(reading, time.monotonic() + seconds)
        finally:
            os.close(reading)
            os.kill(pid, signal.SIGKILL)  # harmless after its end, before waitpid()
            _, status = os.waitpid(pid, 0)
    if reported is None or not os.WIFSIGNALED(status):
        raise UsageError(f"{watch.trial}: the process was not killed there: it did not reach that point")
    external.take_over(reported)


def _read_all(pipe: int, deadline: float) -> Any:
    """Return the last state received before the pipe was closed; None after a timeout."""
    data = b""
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        chunk = os.read(pipe, 1 << 16)
        if not chunk:
            lines = data.splitlines()
            return ast.literal_eval(lines[-1].decode()) if lines else {}
        data += chunk
