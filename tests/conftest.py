"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import fakeredis
import pytest
from redis import Redis
from rq import Queue

from tests import jobs, postgresql, workers
from tests.workers import Workers


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
    programs = postgresql.find()
    if programs is None:
        reason = "PostgreSQL is not installed: no initdb in /usr/lib/postgresql/*/bin nor on the path"
        if os.environ.get("HARNESS_REQUIRE_SERVICES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with postgresql.server(programs) as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """Yield the URL of a Redis of this process; without one installed skip, or fail where it is required."""
    with workers.redis_server() as url:
        yield url


@pytest.fixture
def broker(redis_server: str) -> Iterator[Redis]:
    """Yield a connection to the real Redis, which is empty."""
    with Redis.from_url(redis_server, socket_timeout=None) as connection:  # tests wait in it
        connection.flushall()
        yield connection


@pytest.fixture
def jobs_queue(broker: Redis) -> Queue:
    """Return an RQ queue on the real Redis."""
    return Queue("test", connection=broker, serializer="json")


@pytest.fixture
def rq_workers(redis_server: str, tmp_path: Path) -> Iterator[Workers]:
    """Yield what starts real workers; none outlives the test."""
    started = Workers(redis_server, tmp_path)
    try:
        yield started
    finally:
        started.close()
