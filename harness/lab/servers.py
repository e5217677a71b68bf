"""Private servers for tests and trials: a Redis and a PostgreSQL, each in a temporary folder.

They listen on Unix sockets in that folder and on no port, so they cannot conflict with another server. They
end with the process that started them, after any kind of exit: see :mod:`harness.lab.supervisor`. A forked
process that still runs keeps them alive.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from harness.errors import HarnessError, UsageError
from harness.lab import supervisor

REDIS_PROGRAMS = ("redis-server", "valkey-server")
POSTGRESQL_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
"""Folders of ``initdb`` and ``postgres`` in distributions that do not put them on the path."""


class Server:
    """A server of this process, running from construction until :meth:`close`.

    :ivar url: URL for clients; the same after :meth:`restart`.
    :ivar folder: the server's folder; its log is the file ``log`` in it.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        command: Sequence[str],
        *,
        ready: str,
        stop: signal.Signals,
        end: signal.Signals,
        prepare: Sequence[str] = (),
        user: str | None = None,
    ) -> None:
        self.url, self.folder = url, folder
        settings = {
            "folder": str(folder), "prepare": prepare, "command": command, "user": user, "ready": ready, "stop": stop,
            "end": end,
        }  # fmt: skip
        launcher = subprocess.Popen(  # noqa: S603 - our own program
            # -I: neither the environment nor the folder affects its imports.
            [sys.executable, "-I", supervisor.__file__, json.dumps(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/", start_new_session=True,
        )  # fmt: skip
        launcher.wait()  # the supervisor is its child, and an orphan from here on
        assert launcher.stdin is not None  # noqa: S101 - asked for
        assert launcher.stdout is not None  # noqa: S101 - asked for
        self._orders: IO[str] = launcher.stdin
        self._answers: IO[str] = launcher.stdout
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Start it again after :meth:`stop`; return when it takes connections.

        :raises HarnessError: if it does not start, with its output.
        """
        self._order("start")

    def stop(self) -> None:
        """Shut it down and keep its folder; return when it has exited."""
        self._order("stop")

    def restart(self) -> None:
        """Stop and start it; its durable data is kept."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End it permanently and remove its folder; return when both are gone."""
        self._orders.close()
        self._answers.read()  # ends when the supervisor does
        self._answers.close()

    def _order(self, order: str) -> None:
        self._orders.write(order + "\n")
        self._orders.flush()
        answer = self._answers.readline()
        if answer != "ok\n":
            output = json.loads(answer).strip() if answer else "nothing, because its supervisor has ended"
            raise HarnessError(f"the server for {self.url} did not {order}; it said: {output}")


def find_redis() -> Path | None:
    """Return the program of Redis or Valkey, if one is on the path."""
    return next((Path(found) for each in REDIS_PROGRAMS if (found := shutil.which(each))), None)


def find_postgresql() -> Path | None:
    """Return the folder of the newest PostgreSQL programs from a distribution's folder or the path."""
    folders = [folder for pattern in POSTGRESQL_FOLDERS for folder in Path("/").glob(pattern[1:])]
    folders.sort(key=lambda folder: float(re.findall(r"\d+(?:\.\d+)?", str(folder))[-1]))
    if on_path := shutil.which("initdb"):
        folders.insert(0, Path(on_path).parent)
    return next((each for each in reversed(folders) if (each / "initdb").exists()), None)


@contextmanager
def redis_server(*, appendonly: bool = False, more: Sequence[str] = ()) -> Iterator[Server]:
    """Run a Redis server until the block ends.

    :param appendonly: write the data to a file, and read it again after :meth:`Server.restart`; without it a
        restarted Redis is empty.
    :param more: arguments of ``redis-server``.
    :raises UsageError: if none is installed.
    """
    program = find_redis()
    if program is None:
        raise UsageError(
            f"Redis is not installed: neither {' nor '.join(REDIS_PROGRAMS)} is on the path; install one"
        )
    folder = _new_folder("redis-")
    socket = folder / "redis.sock"
    options = {
        "port": "0", "unixsocket": socket, "unixsocketperm": "600", "dir": folder, "save": "",
        "appendonly": "yes" if appendonly else "no", "daemonize": "no", "logfile": "",
    }  # fmt: skip
    command = [
        str(program),
        *more,
        *(str(part) for name, value in options.items() for part in (f"--{name}", value)),
    ]
    server = Server(
        f"unix://{socket}",
        folder,
        command,
        ready="ready to accept connections",
        stop=signal.SIGTERM,
        end=signal.SIGKILL,
    )
    try:
        yield server
    finally:
        server.close()


@contextmanager
def postgresql_server(*, fsync: bool = False) -> Iterator[Server]:
    """Run a PostgreSQL server until the block ends.

    PostgreSQL refuses to run as root; then it runs as the user ``postgres``, which its package creates.

    :param fsync: let each commit wait for the disk, as production does. Without it committed data survives a kill of
        the server's processes, but not a power failure.
    :raises UsageError: if none is installed.
    """
    programs = find_postgresql()
    if programs is None:
        places = ", ".join(POSTGRESQL_FOLDERS)
        raise UsageError(f"PostgreSQL is not installed: no initdb in {places} nor on the path; install it")
    folder = _new_folder("pg-")
    user = "postgres" if os.geteuid() == 0 else None
    if user is not None:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    data = str(folder / "data")
    # Time limit for a client to log in; a busy machine is slow.
    settings = {
        "authentication_timeout": "120s",
        "listen_addresses": "",
        "unix_socket_directories": folder,
        "fsync": "on" if fsync else "off",
        "lc_messages": "C",
    }
    server = Server(
        f"postgresql+psycopg://harness@/postgres?host={folder}",
        folder,
        [str(programs / "postgres"), "-D", data, *(f"--{name}={value}" for name, value in settings.items())],
        prepare=[
            str(programs / "initdb"), "-D", data, "--username=harness", "--auth=trust", "--no-sync",
            "--encoding=UTF8", "--locale=C",
        ],
        user=user,
        ready="database system is ready to accept connections",
        stop=signal.SIGINT,  # its fast mode: it disconnects clients and writes committed data
        end=signal.SIGQUIT,  # its immediate mode: it writes nothing
    )  # fmt: skip
    try:
        yield server
    finally:
        server.close()


def _new_folder(prefix: str) -> Path:
    # Not pytest's folder: the path of a socket has at most 103 bytes, and PostgreSQL's user must have access.
    return Path(tempfile.mkdtemp(prefix=prefix))
