"""pytest for :mod:`pytester` in a fork of one process that has imported what pytest and the harness need.

A new interpreter that imports pytest, SQLAlchemy, RQ and the harness costs a second, and many tests start one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from harness.lab.fork_server import Child, ForkServer

PRELOADED = (
    "aiosmtpd.controller", "click", "fakeredis", "pytest", "redis", "rich.live", "rich.table", "rq", "rq.worker",
    "sqlalchemy.orm", "xml.dom.minidom", "tests.warm_pytest",
)  # fmt: skip
"""Modules that each pytest imports anyway. No plugin is among them: pytest rewrites its ``assert`` at the import."""
PATH = "TESTS_PYTHONPATH"
"""Variable with the ``PYTHONPATH`` of a child: a fork has to add it to its path by itself."""
ROOT = str(Path(__file__).parents[1])
COMMAND = (sys.executable, "-mpytest")


def processes() -> ForkServer:
    """Return what forks them, not yet started."""
    return ForkServer(*PRELOADED)


def popen(server: ForkServer, cold: Any, command: Sequence[str | os.PathLike[str]], **more: Any) -> Any:
    """Start a program as ``pytester.popen`` does: pytest from the fork server, any other by *cold*."""
    words = [os.fspath(each) for each in command]
    streams = more.get("stdout"), more.get("stderr")
    if tuple(words[:2]) != COMMAND or None in streams or set(more) - {"stdin", "stdout", "stderr"}:
        return cold(command, **more)
    before = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, PATH: os.pathsep.join([str(Path.cwd()), *([before] if before else [])])}
    environment["PYTHONPATH"] = ROOT  # where the server finds this module; the same for all children
    with Path(os.devnull).open("rb") as nothing:
        child = server.start(
            "tests.warm_pytest:main",
            *words[2:],
            environment=environment,
            streams=(nothing, _file(streams[0]), _file(streams[1])),
        )
    return _Process(child)


def _file(stream: Any) -> int | IO[bytes]:
    number: int = stream if isinstance(stream, int) else stream.fileno()
    return number


class _Process:
    """Child as ``pytester`` expects it."""

    stdin = None

    def __init__(self, child: Child) -> None:
        self._child = child

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code when it has ended."""
        return self._child.wait(timeout)

    def kill(self) -> None:
        """Kill it."""
        self._child.kill()


def main() -> None:
    """Run pytest in a child; it has imported neither this package of tests nor the harness, as pytest expects."""
    path = os.environ.pop(PATH)
    os.environ["PYTHONPATH"] = path
    sys.path.remove(ROOT)
    sys.path[1:1] = path.split(os.pathsep)
    for name in [each for each in sys.modules if each.partition(".")[0] in {"tests", "harness"}]:
        del sys.modules[name]
    sys.argv[0] = "pytest"
    sys.exit(pytest.console_main())
