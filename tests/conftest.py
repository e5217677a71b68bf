"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import fakeredis
import pytest
from redis import Redis
from rq import Queue

from tests import jobs, postgresql

collect_ignore = ["userproject"]
"""A project of its own, whose tests run where it is copied to."""


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
