"""Fixtures for all tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import fakeredis
import pytest
from redis import Redis
from rq import Queue

from harness.errors import UsageError
from harness.lab.fork_server import ForkServer
from harness.lab.servers import Server, postgresql_server, redis_server
from tests import jobs
from tests.browser import Browser
from tests.workers import PATIENCE, PRELOADED, Workers

MISSING = [
    name
    for name in (
        "hypothesis",
        "jinja2",
        "opentelemetry",
        "prometheus_client",
        "psycopg",
        "pyte",
        "starlette",
        "uvicorn",
    )
    if find_spec(name) is None
]
"""Packages of the dev group that tests import and that are not installed."""

THIRD_PARTY = [
    name for name in ("alembic", "dataset", "pandas", "redis_lock") if find_spec(name) is None
]  # fmt: skip
"""Packages of the third-party group that are not installed: ``tox run -e full`` has them all."""
PACKAGES = "explore/test_third_party_packages.py"

collect_ignore = ["userproject", *([PACKAGES] if THIRD_PARTY else [])]
"""A separate project, whose tests run in the folder that it is copied to; and tests whose packages are missing."""


def pytest_configure(config: pytest.Config) -> None:
    """Say what to install instead of failing in each module that imports it, and set the number of examples."""
    if MISSING:
        raise pytest.UsageError(
            f"tests/ needs {', '.join(MISSING)}, which the extra test does not install; "
            "run: python -m pip install --group dev, or run the scenarios alone: pytest scenarios"
        )
    from tests import examples  # noqa: PLC0415 - it needs hypothesis

    examples.load_profile(full=config.getoption("--full"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say what was left out."""
    from tests import examples  # noqa: PLC0415 - it needs hypothesis

    if line := examples.said():
        terminalreporter.write_line(line)
    if THIRD_PARTY:
        missing = ", ".join(THIRD_PARTY)
        terminalreporter.write_line(f"tests/{PACKAGES}: needs {missing}; tox run -e full runs it")


@pytest.fixture(autouse=True)
def _pytest_alone(request: pytest.FixtureRequest) -> None:
    """Keep hypothesis's plugin out of what pytester runs: it takes half of the time that pytest takes to start."""
    if "pytester" in request.fixturenames:
        request.getfixturevalue("pytester").plugins.append("no:hypothesispytest")


@pytest.fixture(autouse=True)
def done() -> list[object]:
    """Empty the toy jobs' list of what was done, and return it."""
    jobs.DONE.clear()
    return jobs.DONE


@pytest.fixture
def redis() -> Iterator[Redis]:
    """Yield a Redis of the test's own."""
    with fakeredis.FakeRedis(server=fakeredis.FakeServer()) as connection:
        yield connection


@pytest.fixture
def queue(redis: Redis) -> Queue:
    """Return an RQ queue as our jobs need it."""
    return Queue("test", connection=redis, serializer="json")


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """Yield the URL of a PostgreSQL of this process; without one installed skip, or fail where it is required."""
    with _required(postgresql_server()) as server:
        yield server.url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Yield the URL of a Redis server of this process; without one installed skip, or fail where it is required."""
    with _required(redis_server()) as server:
        yield server.url


@pytest.fixture
def real_redis(redis_url: str) -> Iterator[Redis]:
    """Yield a connection to the Redis server of this process, which is empty before and after the test."""
    with Redis.from_url(redis_url, socket_timeout=PATIENCE) as connection:
        connection.flushdb()
        yield connection
        connection.flushdb()


@pytest.fixture
def broker(redis_url: str) -> Iterator[Redis]:
    """Yield a connection to the Redis server of this process, empty, on which tests may wait for long."""
    with Redis.from_url(redis_url, socket_timeout=None) as connection:
        connection.flushdb()
        yield connection
        connection.flushdb()


@pytest.fixture
def jobs_queue(broker: Redis) -> Queue:
    """Return an RQ queue on the Redis server."""
    return Queue("test", connection=broker, serializer="json")


@pytest.fixture(scope="session")
def worker_processes() -> Iterator[ForkServer]:
    """Yield what forks the workers of all tests of this process."""
    with ForkServer(*PRELOADED) as processes:
        yield processes


@pytest.fixture
def rq_workers(
    broker: Redis, redis_url: str, worker_processes: ForkServer, tmp_path: Path
) -> Iterator[Workers]:
    """Yield a starter of real workers; it ends them after the test."""
    started = Workers(worker_processes, redis_url, tmp_path)
    try:
        yield started
    finally:
        started.close()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Run one browser for all tests of this process; without one skip, or fail where it is required."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        _missing("no chromium found; install it to see pages as their readers do")
    with Browser(found, tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def _missing(reason: str) -> NoReturn:
    (pytest.fail if os.environ.get("HARNESS_REQUIRE_SERVICES") == "1" else pytest.skip)(reason)
    raise AssertionError  # both raise


@contextmanager
def _required(starting: AbstractContextManager[Server]) -> Iterator[Server]:
    with ExitStack() as stack:
        try:
            server = stack.enter_context(starting)
        except UsageError as missing:
            _missing(str(missing))
        yield server
