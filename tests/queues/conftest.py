"""Fixtures for tests with real workers of Celery and Dramatiq."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.lab.rabbitmq import rabbitmq_server
from tests.queues.fleet import Fleet


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """Yield the URL of a RabbitMQ of this process; without one installed skip, or fail where it is required."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(rabbitmq_server())
        except UsageError as missing:
            (pytest.fail if os.environ.get("HARNESS_REQUIRE_SERVICES") == "1" else pytest.skip)(str(missing))
        yield server.url


@pytest.fixture
def fleets(redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Fleet]]:
    """Yield a function that makes a fleet: a kind of queue, and ``redis`` or ``rabbitmq``."""
    with ExitStack() as stack:

        def made(kind: str, broker: str, **settings: str) -> Fleet:
            url = request.getfixturevalue("rabbitmq_url") if broker == "rabbitmq" else None
            return stack.enter_context(closing(Fleet(kind, redis_url, tmp_path, broker=url, **settings)))

        yield made
