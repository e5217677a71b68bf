"""Jobs that pay every invoice once, and reach outside in one more way, which no probe may watch."""

from __future__ import annotations

import _thread
import asyncio
import ctypes
import dbm
import ftplib
import imaplib
import logging
import mmap
import os
import poplib
import signal
import socket
import sqlite3
import subprocess
import sys
import syslog
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import psycopg2  # type: ignore[import-untyped]
from redis.exceptions import NoScriptError
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.planted import shop

CLOSED = 9
"""Port at which nothing listens."""
ADDRESS = f"host=127.0.0.1 port={CLOSED} connect_timeout=1"


def pay() -> None:
    """Pay every invoice once."""
    with shop.session() as session:
        for invoice_id in shop.all_ids(session):
            shop.pay_once(session, invoice_id)


def text_file() -> Path:
    """Return a file that is there."""
    path = shop.report().with_name("there.txt")
    if not path.exists():
        path.write_text("there\n")
    return path


def runs_a_shell() -> None:
    """Run a shell."""
    os.system("true")  # noqa: S605, S607


def runs_a_program() -> None:
    """Run a program."""
    subprocess.run(["true"], check=True)  # noqa: S607


async def _program() -> None:
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()


def runs_a_program_by_asyncio() -> None:
    """Run one in a loop."""
    asyncio.run(_program())


def spawns() -> None:
    """Run a program by the system's own call."""
    os.waitpid(os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {}), 0)


def signals() -> None:
    """Send a signal that nothing hears."""
    os.kill(os.getppid(), signal.SIGURG)


def connects() -> None:
    """Connect."""
    with socket.socket() as client, suppress(OSError):
        client.connect(("127.0.0.1", CLOSED))


def sends_a_datagram() -> None:
    """Send a datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"1", ("127.0.0.1", CLOSED))


async def _open() -> None:
    with suppress(OSError):
        await asyncio.open_connection("127.0.0.1", CLOSED)


def connects_by_asyncio() -> None:
    """Connect in a loop."""
    asyncio.run(_open())


def uses_ftp() -> None:
    """Connect to a server of files."""
    with suppress(OSError):
        ftplib.FTP("127.0.0.1", timeout=1)  # noqa: S321


def uses_imap() -> None:
    """Connect to a mailbox."""
    with suppress(OSError):
        imaplib.IMAP4("127.0.0.1", CLOSED, timeout=1)


def uses_pop() -> None:
    """Connect to an older kind of mailbox."""
    with suppress(OSError):
        poplib.POP3("127.0.0.1", CLOSED, timeout=1)


def uses_psycopg() -> None:
    """Connect without SQLAlchemy."""
    with suppress(psycopg.OperationalError):
        psycopg.connect(ADDRESS)


def uses_psycopg2() -> None:
    """Connect by the older driver."""
    with suppress(psycopg2.OperationalError):
        psycopg2.connect(ADDRESS)


def uses_the_class_of_connections() -> None:
    """Connect to SQLite by the class, which no probe replaces."""
    connection = sqlite3.Connection(str(shop.report().with_name("other.db")))
    connection.execute("CREATE TABLE IF NOT EXISTS t (id)")
    connection.close()


def attaches_a_database() -> None:
    """Write to another database through the connection to the first."""
    other = str(shop.report().with_name("other.db"))
    with shop.session() as session:
        session.execute(text("ATTACH DATABASE :other AS other"), {"other": other})


def starts_a_thread_apart() -> None:
    """Start a thread that threading knows nothing of."""
    lock = _thread.allocate_lock()
    lock.acquire()
    _thread.start_new_thread(lock.release, ())
    lock.acquire()


_go_on = threading.Event()


def leaves_a_thread_behind() -> None:
    """Start a thread that outlives the job."""
    threading.Thread(target=_go_on.wait, args=(3,), daemon=True).start()


def maps_a_file() -> None:
    """Write through memory."""
    with text_file().open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0:1] = b"T"


def calls_c() -> None:
    """Call a function of the C library."""
    ctypes.CDLL(None).getppid()


def changes_a_mode() -> None:
    """Change who may read a file."""
    text_file().chmod(0o640)


def makes_a_pipe() -> None:
    """Make a named pipe."""
    path = shop.report().with_name("pipe")
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def writes_to_the_log() -> None:
    """Write a line into the system's log."""
    syslog.syslog("paid")


def logs_to_a_file() -> None:
    """Write a message into a file by logging, which an exploration switches off."""
    logger, handler = (
        logging.getLogger("shop.audit"),
        logging.FileHandler(shop.report().with_name("audit.log")),
    )
    logger.addHandler(handler)
    logger.warning("paid")
    logger.removeHandler(handler)
    handler.close()


def publishes_in_a_script() -> None:
    """Publish a message within Redis, where no command shows it."""
    with shop.redis() as redis:
        redis.register_script("return redis.call('PUBLISH', KEYS[1], 'paid')")(keys=["news"])


def runs_a_script_that_was_loaded_before() -> None:
    """Run a script by its hash alone."""
    with shop.redis() as redis, suppress(NoScriptError):
        redis.evalsha("f" * 40, 0)


def copies_to_another_database() -> None:
    """Copy a key of Redis to another database."""
    with shop.redis() as redis:
        redis.set("paid", 1)
        redis.copy("paid", "paid", destination_db=3, replace=True)


def defines_a_view() -> None:
    """Define a view, which is no table."""
    with shop.session() as session:
        session.execute(text("CREATE VIEW IF NOT EXISTS paid AS SELECT * FROM payments"))
        session.commit()


def numbers_its_schema() -> None:
    """Write the number of the schema, which is in no table."""
    with shop.session() as session:
        session.execute(text("PRAGMA user_version = 2"))
        session.commit()


def leaves_files_under_random_names() -> None:
    """Put a file into an outbox, where another program will find it."""
    with tempfile.NamedTemporaryFile("w", dir=shop.report().parent, prefix="mail-", delete=False) as file:
        file.write("paid\n")


def commits_each_row_in_another_thread() -> None:
    """Write rows with aiosqlite, each of which is a commit of its own."""

    async def write() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{shop.engine().url.database}")
        alone = engine.execution_options(isolation_level="AUTOCOMMIT")
        async with alone.connect() as connection:
            rows = [{"invoice_id": number, "cents": 1} for number in range(100, 103)]
            await connection.execute(insert(shop.Archived).prefix_with("OR IGNORE"), rows)
        await engine.dispose()

    asyncio.run(write())


NOT_SEEN: dict[Any, str] = {
    runs_a_shell: "process", runs_a_program: "process", runs_a_program_by_asyncio: "process", spawns: "process",
    signals: "signal", connects: "socket", sends_a_datagram: "socket", connects_by_asyncio: "socket",
    uses_ftp: "ftplib", uses_imap: "imaplib", uses_pop: "poplib", uses_psycopg: "psycopg",
    uses_psycopg2: "psycopg2", uses_the_class_of_connections: "sqlite3", attaches_a_database: "sqlite3",
    starts_a_thread_apart: "thread",
    leaves_a_thread_behind: "thread", maps_a_file: "mmap", calls_c: "ctypes", changes_a_mode: "attributes",
    makes_a_pipe: "device", writes_to_the_log: "syslog", logs_to_a_file: "logging",
    publishes_in_a_script: "redis-server", runs_a_script_that_was_loaded_before: "redis-server",
    copies_to_another_database: "redis-server", defines_a_view: "sqlite3", numbers_its_schema: "sqlite3",
    leaves_files_under_random_names: "tempfile", commits_each_row_in_another_thread: "sqlite3",
}  # fmt: skip
"""What each is reported as."""


def also(name: str) -> None:
    """Pay every invoice, and do one more thing."""
    pay()
    globals()[name]()


KEPT: dict[str, Any] = {}
"""Things that an application has open all the time."""


def writes_through_an_older_connection() -> None:
    """Write through a connection that was open before."""
    KEPT["connection"].execute("INSERT OR IGNORE INTO notes VALUES (1)")
    KEPT["connection"].commit()


def reads_through_an_older_connection() -> None:
    """Read through it."""
    KEPT["connection"].execute("SELECT id FROM notes").fetchall()


def writes_through_an_older_descriptor() -> None:
    """Write through a descriptor that was open before."""
    os.write(KEPT["descriptor"], b"1")


def opens_dbm() -> None:
    """Write a file of keys."""
    with dbm.open(str(shop.report().with_name("keys")), "c") as keys:
        keys["a"] = "1"
