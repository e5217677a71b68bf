"""Start many Python processes without importing the same modules in each of them.

A :class:`ForkServer` is a process with one thread that has imported what its children need. Each child is a
fork of it, with its own session, environment, folder and standard streams, as if :class:`subprocess.Popen`
had started it. A child costs about 10 ms; a new interpreter that imports the lab costs about a second.

Differences from a new interpreter: modules that the server has imported keep the state from their import, the command
line that ``ps`` shows is the server's, and the parent is the server. Use a new interpreter if one of those matters.

The server ends with the process that started it, after any kind of exit, because it reads the end of its standard
input. Running children then continue without a parent. Use another mechanism to end them with their starter, such as
the lab's parent pipe.
"""

from __future__ import annotations

import array
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from harness.errors import HarnessError

INTERPRETER = ("PYTHON", "COV", "LD_")
"""Prefixes of variables that an interpreter reads when it starts; other values require a new server."""
PROGRAM = "from harness.lab.fork_server import main; main()"
"""Program of the server."""
_HEADER_BYTES = 8
_STREAMS = 3


class Child:
    """Process that a server forked; it has the methods of :class:`subprocess.Popen`.

    :ivar returncode: None until :meth:`poll` or :meth:`wait` saw the end; -N for signal N.
    """

    def __init__(self, pid: int, status: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        """Return the exit code, or None if it still runs."""
        return self._read(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process, and return the exit code.

        :raises subprocess.TimeoutExpired: if it does not end in time.
        """
        code = self._read(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _read(self, timeout: float | None) -> int | None:
        if self.returncode is None and self._readable(timeout):
            with self._status:
                text = self._status.recv(32)
            if not text:
                raise HarnessError(
                    f"the server that forked process {self.pid} has ended; the exit code is unknown"
                )
            self.returncode = int(text)
        return self.returncode

    def _readable(self, timeout: float | None) -> bool:
        waiting = select.poll()
        waiting.register(self._status, select.POLLIN)
        return bool(waiting.poll(None if timeout is None else max(0, round(timeout * 1000))))


class ForkServer:
    """Context manager that starts children. Threads may share it.

    :param modules: modules that the server imports, so that children have them.
    """

    def __init__(self, *modules: str) -> None:
        self._modules = modules
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._settings: dict[str, str] = {}

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server, but not its children."""
        if self._socket is not None:
            with self._socket, suppress(OSError):  # it may have exited
                self._socket.shutdown(socket.SHUT_WR)
                self._socket.recv(1)  # ends with the server
            self._socket = None

    def start(
        self,
        function: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        streams: tuple[int | IO[bytes], int | IO[bytes], int | IO[bytes]],
    ) -> Child:
        """Call a function in a child, as the main program of a new session.

        :param function: ``module:function``; it is called without arguments.
        :param arguments: ``sys.argv[1:]`` of the child.
        :param environment: replaces this process's.
        :param streams: files or descriptors for standard input, output and error.
        """
        variables = dict(os.environ if environment is None else environment)
        request = json.dumps([function, arguments, variables, str(Path.cwd())]).encode()
        ours, theirs = socket.socketpair()
        try:
            with theirs, self._lock:
                server = self._running(variables)
                descriptors = [each if isinstance(each, int) else each.fileno() for each in streams]
                socket.send_fds(
                    server, [len(request).to_bytes(_HEADER_BYTES)], [*descriptors, theirs.fileno()]
                )
                server.sendall(request)
            return Child(int(_exactly(ours, _HEADER_BYTES)), ours)
        except BaseException:
            ours.close()
            raise

    def _running(self, variables: Mapping[str, str]) -> socket.socket:
        """Return the socket of a server whose interpreter was started with these settings."""
        settings = {name: value for name, value in variables.items() if name.startswith(INTERPRETER)}
        if self._socket is None or settings != self._settings:
            self.close()
            ours, theirs = socket.socketpair()
            with theirs:
                launcher = subprocess.Popen(  # noqa: S603 - our own program
                    [sys.executable, "-c", PROGRAM, *self._modules],
                    stdin=theirs.fileno(), env=dict(variables), start_new_session=True,
                )  # fmt: skip
                launcher.wait()  # the server is its child, not a child of this process
            self._socket, self._settings = ours, settings
        return self._socket


class _Server:
    """Serves requests until they end; in a child, :meth:`serve` returns the function to call."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._own = (requests, *socket.socketpair())
        self._children: dict[int, socket.socket] = {}

    def serve(self) -> Callable[[], Any] | None:
        """Fork until the other end of the request pipe is closed."""
        woken, waker = self._own[1:]
        woken.setblocking(False)
        waker.setblocking(False)
        signal.set_wakeup_fd(waker.fileno())
        # The system reports exits of children only if a handler exists; the handler does nothing.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            ready, _, _ = select.select([self._requests, woken], [], [])
            if woken in ready:
                woken.recv(4096)
                self._reap()
            if self._requests in ready:
                header, descriptors, _, _ = socket.recv_fds(self._requests, _HEADER_BYTES, _STREAMS + 1)
                if not header:
                    signal.set_wakeup_fd(-1)  # from here on, there is no socket for the end of a child
                    return None
                request = json.loads(_exactly(self._requests, int.from_bytes(header)))
                pid = os.fork()
                if pid == 0:
                    for each in (*self._own, *self._children.values()):
                        each.close()
                    return _become(request, descriptors)
                for descriptor in descriptors[:_STREAMS]:
                    os.close(descriptor)
                status = socket.socket(fileno=descriptors[_STREAMS])
                status.sendall(f"{pid:{_HEADER_BYTES}}".encode())
                self._children[pid] = status

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                # The starter, which has the other end, may have exited.
                with self._children.pop(ended[0]) as status, suppress(OSError):
                    status.sendall(str(os.waitstatus_to_exitcode(ended[1])).encode())


def _become(request: list[Any], descriptors: Sequence[int]) -> Callable[[], Any]:
    """Make this fork look like a new process, and return the function that it has to call."""
    function, arguments, variables, folder = request
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for number, descriptor in enumerate(descriptors[:_STREAMS]):
        os.dup2(descriptor, number)
    for descriptor in descriptors:
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    os.chdir(folder)
    sys.path[0] = folder
    module, _, name = function.partition(":")
    sys.argv = [module, *arguments]
    task: Callable[[], Any] = getattr(import_module(module), name)
    return task


def _exactly(source: socket.socket, size: int) -> bytes:
    parts = array.array("B")
    while len(parts) < size:
        part = source.recv(size - len(parts))
        if not part:
            raise HarnessError("the fork server has ended; see its standard error")
        parts.frombytes(part)
    return parts.tobytes()


def main() -> None:
    """Import and serve; in each child, call its function and exit like any program."""
    if os.fork():
        os._exit(0)  # the starter waits only for this process
    for name in sys.argv[1:]:
        import_module(name)
    task = _Server(socket.socket(fileno=os.dup(0))).serve()
    if task is not None:
        task()
