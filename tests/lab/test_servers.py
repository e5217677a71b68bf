"""Private servers start fast, keep durable data through a restart, and end with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from harness.errors import HarnessError, UsageError
from harness.lab import servers
from harness.lab.servers import Server, postgresql_server, redis_server
from tests.workers import PATIENCE


@pytest.fixture(params=["redis", "postgresql"])
def start(request: pytest.FixtureRequest) -> Callable[[], AbstractContextManager[Server]]:
    """Return what starts each kind of server in turn, where it is installed."""
    request.getfixturevalue(f"{request.param}_url")
    return redis_server if request.param == "redis" else postgresql_server


@pytest.fixture
def durable_redis(redis_url: str) -> Iterator[Server]:
    """Yield a Redis that writes what it holds to a file."""
    assert redis_url
    with redis_server(appendonly=True) as server:
        yield server


def connect(url: str) -> Callable[[], None]:
    """Connect to a server; return what waits until the server has ended the connection, and closes it."""
    if url.startswith("unix:"):
        redis = Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=PATIENCE)
        redis.ping()

        def wait_for_redis() -> None:
            with redis, pytest.raises(RedisConnectionError):
                redis.blpop(["never"])

        return wait_for_redis
    connection = psycopg.connect(url.replace("+psycopg", ""))

    def wait_for_postgresql() -> None:
        with closing(connection), pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT pg_sleep(3600)")

    return wait_for_postgresql


def test_a_server_ends_with_its_block(start: Callable[[], AbstractContextManager[Server]]) -> None:
    """Afterwards its connections are closed and its folder is gone."""
    with start() as server:
        wait_for_end = connect(server.url)
    wait_for_end()
    assert not server.folder.exists()


def test_a_server_ends_with_a_process_that_is_killed(
    start: Callable[[], AbstractContextManager[Server]],
) -> None:
    """SIGKILL to the process group of its starter ends it too, and removes its folder."""
    script = (
        f"import sys; from harness.lab.servers import {start.__name__} as start\n"
        "with start() as server: print(server.url, server.folder, flush=True); sys.stdin.read()"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    with starter:
        assert starter.stdout is not None
        assert starter.stderr is not None
        url, folder = starter.stdout.readline().split()
        wait_for_end = connect(url)
        os.killpg(starter.pid, signal.SIGKILL)
        wait_for_end()
        assert starter.wait() == -signal.SIGKILL
        # The supervisor has its standard error from its starter, and ends after it has cleaned up.
        assert starter.stderr.read() == ""
    assert not Path(folder).exists()


def test_a_stopped_server_can_be_started_again(start: Callable[[], AbstractContextManager[Server]]) -> None:
    """No client can connect while the server is stopped, and its URL stays the same."""
    with start() as server:
        wait_for_end = connect(server.url)
        server.stop()
        server.stop()
        wait_for_end()
        with pytest.raises((RedisConnectionError, psycopg.OperationalError)):
            connect(server.url)
        server.start()
        server.start()
        wait_for_end = connect(server.url)
    wait_for_end()


def test_a_restarted_redis_is_empty_unless_it_appends(redis_url: str, durable_redis: Server) -> None:
    """Nothing is kept by default; with appendonly everything is."""
    assert redis_url
    with redis_server() as volatile:
        for server in (volatile, durable_redis):
            with Redis.from_url(server.url) as connection:
                connection.set("order", "17")
            server.restart()
        with Redis.from_url(volatile.url) as connection:
            assert connection.get("order") is None
        with Redis.from_url(durable_redis.url) as connection:
            assert connection.get("order") == b"17"


def test_a_restarted_postgresql_has_what_was_committed(postgresql_url: str) -> None:
    """Connections are cut off, commits are kept."""
    assert postgresql_url
    with postgresql_server() as server:
        engine = sa.create_engine(server.url)
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE orders (id int)"))
        with engine.connect() as connection:
            connection.execute(sa.text("INSERT INTO orders VALUES (17)"))
            server.restart()
            with pytest.raises(sa.exc.OperationalError):
                connection.execute(sa.text("SELECT 1"))
        with engine.connect() as connection:
            assert connection.execute(sa.text("SELECT count(*) FROM orders")).scalar() == 0
        engine.dispose()


@pytest.mark.parametrize("fsync", [False, True])
def test_a_postgresql_waits_for_the_disk_only_on_request(postgresql_url: str, fsync: bool) -> None:
    """A private server is fast by default, and with fsync it commits as in production."""
    assert postgresql_url
    with postgresql_server(fsync=fsync) as server:
        engine = sa.create_engine(server.url)
        with engine.connect() as connection:
            assert connection.scalar(sa.text("SHOW fsync")) == ("on" if fsync else "off")
        engine.dispose()


def test_a_talkative_server_does_not_stand_still(postgresql_url: str) -> None:
    """The server can write more to its log than a pipe holds."""
    assert postgresql_url
    with postgresql_server() as server:
        engine = sa.create_engine(server.url)
        with engine.connect() as connection:
            for _ in range(30):
                with pytest.raises(sa.exc.ProgrammingError):
                    connection.execute(sa.text(f"SELECT {'x' * 4000}"))
                connection.rollback()
        engine.dispose()
        server.stop()
        assert (server.folder / "log").stat().st_size > 30 * 4000


def test_a_server_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    """The error has what it said, or what its preparation said; its folder is removed."""
    quarrel = ["sh", "-c", "echo no disk left; exit 3"]
    for command, prepare in ((quarrel, []), (["true"], quarrel)):
        folder = tmp_path / "server"
        folder.mkdir()
        with pytest.raises(
            HarnessError, match="the server for some://url did not start; it said: no disk left"
        ):
            Server(
                "some://url",
                folder,
                command,
                prepare=prepare,
                ready="ready",
                stop=signal.SIGTERM,
                end=signal.SIGKILL,
            )
        assert not folder.exists()


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A program that is missing, or that cannot be run at all, is named in the error."""
    with pytest.raises(HarnessError, match="No such file or directory: '/nowhere'"):
        Server("some://url", tmp_path, ["/nowhere"], ready="ready", stop=signal.SIGTERM, end=signal.SIGKILL)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says where it was looked for."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(servers, "POSTGRESQL_FOLDERS", ("/nowhere/*/bin",))
    with (
        pytest.raises(UsageError, match="neither redis-server nor valkey-server is on the path"),
        redis_server(),
    ):
        pass
    with (
        pytest.raises(UsageError, match=r"no initdb in /nowhere/\*/bin nor on the path"),
        postgresql_server(),
    ):
        pass


def test_a_newer_postgresql_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The versions are compared as numbers, not as text."""
    for version in ("9.6", "15", "100"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "initdb").touch()
    monkeypatch.setattr(servers, "POSTGRESQL_FOLDERS", (f"{tmp_path}/*",))
    assert servers.find_postgresql() == tmp_path / "100"
