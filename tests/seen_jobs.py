"""Jobs that pay every invoice once, and do one thing more that changes nothing outside."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import logging
import os
import platform
import shutil
import socket
import sqlite3
import sys
import tempfile
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tests.planted import shop
from tests.unseen_jobs import CLOSED, pay, text_file


def reads() -> None:
    """Read files, folders and facts about the machine."""
    text_file().read_text()
    os.listdir(shop.report().parent)  # noqa: PTH208
    platform.processor()
    uuid.uuid1()


def imports() -> None:
    """Import a module, which compiles and loads."""
    sys.modules.pop("colorsys", None)
    importlib.import_module("colorsys")


def uses_temporary_files() -> None:
    """Write where only it looks."""
    with tempfile.TemporaryFile() as file, tempfile.NamedTemporaryFile() as named:
        file.write(b"1")
        named.write(b"1")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a").write_text("1")


def prints() -> None:
    """Write to a terminal."""
    sys.stdout.write("")
    sys.stdout.flush()
    with Path("/dev/null").open("w") as nothing:
        nothing.write("1")


async def _other_thread() -> str:
    return await asyncio.to_thread(json.dumps, {})


def uses_a_loop() -> None:
    """Run a loop, with a thread of its own."""
    asyncio.run(_other_thread())


def uses_threads() -> None:
    """Compute in threads."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(json.dumps, [[], {}]))


def asks_for_a_process() -> None:
    """Ask whether a process exists."""
    os.kill(os.getpid(), 0)


def uses_a_database_in_memory() -> None:
    """Compute in a database that nobody else sees."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (id)")
    connection.close()


def copies_a_file() -> None:
    """Copy a file with its attributes."""
    shutil.copy2(text_file(), shop.report())


def knows_its_address() -> None:
    """Look up an address, and sends nothing."""
    socket.getaddrinfo("localhost", 80)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", CLOSED))


def pings_itself() -> None:
    """Talk from one end of a pair to the other."""
    one, other = socket.socketpair()
    with one, other:
        one.sendall(b"1")
        other.recv(1)


def asks_over_http() -> None:
    """Read over HTTP."""
    with suppress(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{CLOSED}/", timeout=1)


def runs_scripts() -> None:
    """Run scripts that change only keys: its own, one that was registered before, and a lock's."""
    with shop.redis() as redis:
        redis.register_script("return redis.call('SET', KEYS[1], 1)")(keys=["paid"])
        redis.eval("return redis.call('SET', KEYS[1], 2)", 1, "paid")
        with redis.lock("pay", timeout=60):
            pass


def logs_to_the_terminal() -> None:
    """Write messages that end on a terminal, or nowhere."""
    logger = logging.getLogger("shop.terminal")
    handlers: list[logging.Handler] = [
        logging.StreamHandler(),
        logging.StreamHandler(io.StringIO()),
        logging.NullHandler(),
    ]
    for handler in handlers:
        logger.addHandler(handler)
    logger.warning("paid")
    for handler in handlers:
        logger.removeHandler(handler)


def prunes_directories() -> None:
    """Remove a directory, and its parents as far as they are empty."""
    folder = shop.report().with_name("parts") / "of it"
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parents[1] / "kept.txt").write_text("kept\n")
    os.removedirs(folder)


SEEN = [
    pay, reads, imports, uses_temporary_files, prints, uses_a_loop, uses_threads, asks_for_a_process,
    uses_a_database_in_memory, copies_a_file, knows_its_address, pings_itself, asks_over_http,
    runs_scripts, logs_to_the_terminal, prunes_directories,
]  # fmt: skip
"""Jobs with nothing to report."""


def also(name: str) -> None:
    """Pay every invoice, and do one more thing."""
    pay()
    globals()[name]()
