"""A private PostgreSQL for the tests of one process: a folder and a socket of its own, no port."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def find() -> Path | None:
    """Return the folder of the server's programs, where the distribution or the path has one."""
    candidates = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    if on_path := shutil.which("initdb"):
        candidates.append(Path(on_path).parent)
    return next((each for each in candidates if (each / "initdb").exists()), None)


@contextmanager
def server(programs: Path) -> Iterator[str]:
    """Start a server, yield the URL of its database, and end it with its folder.

    PostgreSQL refuses to run as root; there it runs as the user ``postgres``, which its package makes.
    """
    user = "postgres" if os.geteuid() == 0 else None
    # Not pytest's folder: a socket's path may have 107 bytes, and another user must reach it.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        if user:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        data = Path(folder) / "data"

        def run(program: str, *arguments: str) -> None:
            command = [str(programs / program), "--pgdata", str(data), *arguments]
            subprocess.run(command, check=True, user=user, cwd="/", stdout=subprocess.DEVNULL)

        run("initdb", "--username=harness", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        run("pg_ctl", "start", "--wait", "--silent", "--log", f"{folder}/log", "--options", options)
        try:
            yield f"postgresql+psycopg://harness@/postgres?host={folder}"
        finally:
            run("pg_ctl", "stop", "--wait", "--silent", "--mode=immediate")
