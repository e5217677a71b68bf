"""Processes that are forked from one that has imported what they need."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.lab.fork_server import Child, ForkServer
from tests.workers import PATIENCE

pytestmark = pytest.mark.process

JOB = """
import json, os, signal, sys, time

def tell():
    about = {
        "arguments": sys.argv[1:], "folder": os.getcwd(), "path": sys.path[0], "variable": os.environ.get("ASKED"),
        "session": os.getsid(0) == os.getpid(), "zone": time.tzname[0], "imported": "decimal" in sys.modules,
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],
        "read": sys.stdin.read(),
    }
    print(json.dumps(about))

def fail():
    raise ValueError("it cannot be done")

def end():
    sys.exit(7)

def wait():
    # As in a terminal: a starter in the background has SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print("waiting", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder with a module that children call, and return it."""
    (tmp_path / "forked_job.py").write_text(JOB)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    """Yield a server with a module that children do not import themselves."""
    with ForkServer("decimal") as server:
        yield server


class Pipes:
    """The three streams of a child; a context manager that closes what is left of them."""

    def __init__(self) -> None:
        (self._input, self._to), (self._from, self._output) = os.pipe(), os.pipe()
        self.streams = self._input, self._output, self._output
        self._open = {self._input, self._to, self._from, self._output}

    def __enter__(self) -> Pipes:
        return self

    def __exit__(self, *_: object) -> None:
        self._close(*self._open)

    def started(self) -> None:
        """Close the child's ends, which it has now."""
        self._close(self._input, self._output)

    def end_input(self) -> None:
        """End what the child reads."""
        self._close(self._to)

    def line(self) -> str:
        """Return a line of output."""
        with os.fdopen(os.dup(self._from)) as output:
            return output.readline()

    def rest(self) -> str:
        """Return all output, up to its end."""
        with os.fdopen(os.dup(self._from)) as output:
            return output.read()

    def _close(self, *descriptors: int) -> None:
        for each in descriptors:
            os.close(each)
            self._open.discard(each)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    """Yield streams for one child."""
    with Pipes() as pipes:
        yield pipes


def start(server: ForkServer, pipes: Pipes, name: str, *arguments: str, **variables: str) -> Child:
    """Start a function of the job."""
    environment = {**os.environ, **variables}
    child = server.start(f"forked_job:{name}", *arguments, environment=environment, streams=pipes.streams)
    pipes.started()
    return child


def test_a_child_has_everything_of_its_own(server: ForkServer, folder: Path, pipes: Pipes) -> None:
    """A child has the arguments, environment, folder, session and streams it was given, and no other open file."""
    child = start(server, pipes, "tell", "one", "two", ASKED="this", TZ="Asia/Tokyo")
    pipes.end_input()
    told = json.loads(pipes.rest())
    assert child.wait(PATIENCE) == child.returncode == child.poll() == 0
    assert told == {
        "arguments": ["one", "two"], "folder": str(folder), "path": str(folder), "variable": "this", "session": True,
        "zone": "JST", "imported": True, "descriptors": [0, 1, 2], "read": "",
    }  # fmt: skip


def test_an_exit_code_is_passed_on(server: ForkServer, folder: Path, pipes: Pipes) -> None:
    """A child that exits with a code has that exit code."""
    assert start(server, pipes, "end").wait(PATIENCE) == 7


def test_an_error_ends_a_child_as_it_ends_a_program(server: ForkServer, folder: Path, pipes: Pipes) -> None:
    """An error is exit code 1, with a traceback on standard error."""
    assert start(server, pipes, "fail").wait(PATIENCE) == 1
    assert "ValueError: it cannot be done" in pipes.rest()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_child_is_signalled(server: ForkServer, folder: Path, pipes: Pipes, number: signal.Signals) -> None:
    """A signal that ends a child is its exit code, and a signal to one that has ended does nothing."""
    child = start(server, pipes, "wait")
    assert pipes.line() == "waiting\n"
    assert child.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0)
    child.send_signal(number)
    assert child.wait(PATIENCE) == -number
    child.kill()
    child.terminate()


def test_a_child_hears_of_the_end_of_its_starter_s_pipe_alone(
    server: ForkServer, folder: Path, pipes: Pipes
) -> None:
    """No server or later child holds the streams of another child, so each reads the end of its own input."""
    with Pipes() as others:
        child, other = start(server, pipes, "wait"), start(server, others, "wait")
        assert (pipes.line(), others.line()) == ("waiting\n", "waiting\n")
        pipes.end_input()
        assert child.wait(PATIENCE) == 0
        assert other.poll() is None
        others.end_input()
        assert other.wait(PATIENCE) == 0


def test_settings_of_the_interpreter_hold(server: ForkServer, folder: Path, pipes: Pipes) -> None:
    """A child whose environment changes how Python starts has an interpreter that started with that environment."""
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "forked_elsewhere.py").write_text("def tell():\n    print('found')\n")
    with ForkServer() as own:
        path = os.pathsep.join(filter(None, [str(folder / "elsewhere"), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path}
        child = own.start("forked_elsewhere:tell", environment=environment, streams=pipes.streams)
        pipes.started()
        assert pipes.rest() == "found\n"
        assert child.wait(PATIENCE) == 0


def test_the_server_ends_with_its_starter(folder: Path) -> None:
    """A server whose starter was killed ends, and its child runs to its end."""
    script = (
        "import sys, os, signal\n"
        "from harness.lab.fork_server import ForkServer\n"
        "ForkServer().start('forked_job:wait', streams=(0, 1, 1))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdin is not None
        assert starter.stdout is not None
        assert starter.stdout.readline() == "waiting\n"
        assert starter.wait(PATIENCE) == -signal.SIGKILL
        starter.stdin.close()
        assert starter.stdout.read() == ""  # ends when no process has it open: neither child nor server
