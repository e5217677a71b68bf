"""Supervisor of a private server: a program that cleans up after its starter has exited.

:mod:`harness.lab.servers` starts it with one argument, a JSON object::

    {"folder": "/tmp/x", "prepare": ["initdb", …], "command": ["postgres", …], "user": null,
     "ready": "ready to accept connections", "stop": 2, "end": 3}

``ready`` is part of a line, in lower case, that the server prints when it accepts connections. ``stop`` is the number
of the signal for a clean stop. ``end`` is the number of the signal for an immediate stop.

It reads orders from standard input, a pipe that only its starter holds: ``start`` and ``stop``, one per line. It
answers each with one line: ``ok``, or a JSON string with the error. At the end of the pipe it ends the server and
removes the folder. The system closes the pipe at any exit of the starter, also by SIGKILL, and on every Unix.

Crash of the starter before the answer to ``start``: it does not know the server yet, but the pipe exists from the
start, so the supervisor cleans up. Crash of the supervisor: its server keeps running, because no process watches it.

It needs only the standard library and is run by its path, so it starts fast.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import IO, Any

STOP_SECONDS = 120
"""Time limit for a server to stop, in seconds; then it is killed."""


class Supervisor:
    """One server, from its first start until the end of the pipe."""

    def __init__(self, *, folder: str, prepare: list[str], command: list[str], user: str | None,
                 ready: str, stop: int, end: int) -> None:  # fmt: skip
        self._folder, self._prepare, self._command = folder, prepare, command
        self._user, self._ready, self._signal, self._last_signal = user, ready, stop, end
        self._process: subprocess.Popen[str] | None = None
        self._drain: Thread | None = None

    def serve(self, orders: IO[str], answers: IO[str]) -> None:
        """Execute orders until the pipe ends, then clean up."""
        try:
            for order in orders:
                answers.write(self._obey(order.strip()) + "\n")
                answers.flush()
        except BrokenPipeError:
            pass  # the starter crashed before it got the answer
        finally:
            self._stop(self._last_signal)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _obey(self, order: str) -> str:
        try:
            if order == "start":
                self._start()
            else:
                self._stop(self._signal)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            self._stop(self._last_signal)
            return json.dumps(str(error))
        return "ok"

    def _start(self) -> None:
        if self._process is not None:
            return
        if self._prepare:
            done = subprocess.run(  # noqa: S603 - what harness.lab.servers composed
                self._prepare, check=False, text=True, user=self._user, cwd="/",
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            if done.returncode:
                raise RuntimeError(done.stdout)
            self._prepare = []
        self._process = subprocess.Popen(  # noqa: S603 - what harness.lab.servers composed
            self._command, text=True, errors="replace", user=self._user, cwd="/",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        output = self._process.stdout
        assert output is not None  # noqa: S101 - asked for
        said = []
        for line in output:
            said.append(line)
            if self._ready in line.lower():
                # An unread pipe fills up, and a server that cannot write its log blocks.
                self._drain = Thread(target=self._copy, args=(output,))
                self._drain.start()
                return
        raise RuntimeError("".join(said[-20:]))

    def _copy(self, output: IO[str]) -> None:
        with (Path(self._folder) / "log").open("a") as log:
            log.writelines(output)

    def _stop(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._drain is not None:
            self._drain.join()
            self._drain = None
        if process.stdout is not None:
            process.stdout.close()


def main(settings: dict[str, Any]) -> None:
    """Detach from the parent process and its group, and serve."""
    if os.fork():
        return
    Supervisor(**settings).serve(sys.stdin, sys.stdout)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
