"""The behaviour suite of queues, for each queue of this package."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from harness.lab.queue_suite import Backend, QueueSuite
from tests.queues.backends import backend_named


class TestQueues(QueueSuite):
    """Each rule, on each queue."""

    @pytest.fixture(params=["inline", "rq", "celery", "dramatiq"])
    def backend(self, request: pytest.FixtureRequest, real_redis: Redis) -> Iterator[Backend]:
        """Yield a queue."""
        with backend_named(request.param, real_redis) as backend:
            yield backend
