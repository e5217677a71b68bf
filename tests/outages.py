"""Redis that cannot be used for a while, workers whose log a test reads, and a job that a test leads step by step."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from redis import Redis
from redis.exceptions import ConnectionError as Refused

from harness.lab.servers import Server
from tests.workers import PATIENCE, processes_of_session

AWAY = "Redis cannot be used"
SLOW_LOAD = (
    "--enable-debug-command", "local", "--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024",
)  # fmt: skip
"""Arguments of a Redis server that loads a key in a millisecond, and answers its clients every few keys."""
KEYS = 60_000
"""Number of keys that a slow load loads, in a minute unless it is ended."""

Outage = Callable[[Server, Redis], Callable[[], object]]
"""Begins an outage, and returns what ends it."""


class Listened:
    """A worker process whose log the test reads line by line."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "HARNESS_RECOVER_SECONDS": "6"},
        )  # fmt: skip
        self.lines: list[str] = []
        self._rest = b""

    def hear(self, text: str) -> str:
        """Wait for a line of the log with this text, and return it."""
        assert self.process.stdout is not None
        while True:
            ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
            got = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
            assert got, f"{text!r} was not logged, but {self.lines}"
            *lines, self._rest = (self._rest + got).split(b"\n")
            new = [line.decode() for line in lines]
            self.lines += new
            for line in new:
                if text in line:
                    return line

    def hear_all(self) -> None:
        """Read the rest of the log of a worker that has ended."""
        assert self.process.stdout is not None
        self.lines += (self._rest + self.process.stdout.read()).decode().splitlines()
        self._rest = b""

    def said(self, text: str) -> int:
        """Return the number of lines with this text so far."""
        return sum(text in line for line in self.lines)

    def shown(self) -> str:
        """Return the command lines of the worker and its work horse."""
        found = []
        for pid in processes_of_session(self.process.pid):
            with suppress(OSError):
                found.append(Path(f"/proc/{pid}/cmdline").read_text())
        return "\n".join(found)

    def close(self) -> None:
        """Kill it and its horse."""
        for pid in processes_of_session(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Steps:
    """Leads a :class:`tests.outage_jobs.Steady` job through its numbers one by one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pipes = []
        for name in ("go", "said"):
            os.mkfifo(folder / name)
            self._pipes.append(os.open(folder / name, os.O_RDWR))

    def allow(self, numbers: int) -> None:
        """Let the job do *numbers* more numbers."""
        os.write(self._pipes[0], b"g" * numbers)

    def do(self, numbers: int) -> None:
        """Let the job do *numbers* more numbers, and wait until it has."""
        self.allow(numbers)
        for _ in range(numbers):
            self.hear("")

    def hear(self, text: str) -> None:
        """Wait until the job says this."""
        said = None
        while said is None or text not in said:
            ready, _, _ = select.select([self._pipes[1]], [], [], PATIENCE)
            assert ready
            said = os.read(self._pipes[1], 2).decode()

    def done(self) -> list[int]:
        """Return all the numbers that were done."""
        return [int(line) for line in (self._folder / "done").read_text().split()]

    def close(self) -> None:
        """Close the pipes."""
        for each in self._pipes:
            os.close(each)


def no_memory(_: Server, connection: Redis) -> Callable[[], object]:
    """Let no memory be left."""
    connection.config_set("maxmemory", 1)
    end_waits(connection)  # an idle worker writes next at the end of its wait, a minute later
    return lambda: connection.config_set("maxmemory", 0)


def no_replicas(_: Server, connection: Redis) -> Callable[[], object]:
    """Let it refuse writes because it has fewer replicas than it needs, as in a failover."""
    connection.config_set("min-replicas-to-write", 1)
    end_waits(connection)  # an idle worker writes next at the end of its wait, a minute later
    return lambda: connection.config_set("min-replicas-to-write", 0)


def replica(_: Server, connection: Redis) -> Callable[[], object]:
    """Make it a replica, as a failover does: clients that wait are unblocked, and writes are refused."""
    connection.config_set("replica-serve-stale-data", "yes")
    connection.execute_command("REPLICAOF", "127.0.0.1", "1")
    return lambda: connection.execute_command("REPLICAOF", "NO", "ONE")


def gone(server: Server, _: Redis) -> Callable[[], object]:
    """Stop it: connections are refused."""
    server.stop()
    return server.start


def loading(server: Server, connection: Redis) -> Callable[[], object]:
    """Let it load its data again, slowly, and keep its connections: it answers LOADING."""
    _fill(connection)
    loader = Redis.from_url(server.url, socket_timeout=None)
    thread = threading.Thread(target=lambda: loader.execute_command("DEBUG", "RELOAD"))
    thread.start()
    return _ending(connection, thread, loader)


def restarted(server: Server, connection: Redis) -> Callable[[], object]:
    """Stop it and start it: connections are refused, and then it answers LOADING for long."""
    _fill(connection)
    server.stop()
    thread = threading.Thread(target=server.start)  # returns when all is loaded
    thread.start()
    return _ending(connection, thread)


def _fill(connection: Redis) -> None:
    connection.mset({f"filler:{number}": "x" * 100 for number in range(KEYS)})


def _ending(connection: Redis, thread: threading.Thread, loader: Redis | None = None) -> Callable[[], object]:
    """Wait until it loads; return what waits until a worker has heard so, and then lets the load end."""
    while not section(connection, "persistence").get("loading"):
        pass
    end_waits(connection)

    def end() -> None:
        # Only a worker asks for data now; INFO and CONFIG are answered.
        while not section(connection, "errorstats").get("errorstat_LOADING"):
            assert thread.is_alive(), "all is loaded, and no worker has asked for anything"
        connection.config_set("key-load-delay", 0)
        thread.join(PATIENCE)
        assert not thread.is_alive()
        if loader is not None:
            loader.close()

    return end


def section(connection: Redis, name: str) -> dict[str, object]:
    """Return a section of what Redis says of itself; nothing while it is not there."""
    try:
        return dict(connection.info(name))
    except Refused:  # not there yet
        return {}


def wait_until_idle(connection: Redis) -> None:
    """Wait until a worker waits for a job."""
    while not any("b" in client["flags"] for client in connection.client_list()):
        pass


def end_waits(connection: Redis, how: str = "TIMEOUT") -> int:
    """End the waits of all clients that wait for a list, as after a timeout or with an error; return their number."""
    ended = 0
    for client in connection.client_list():
        if "b" in client["flags"]:
            ended += connection.client_unblock(int(client["id"]), error=how == "ERROR")
    return ended
