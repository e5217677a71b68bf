"""A Dramatiq broker whose servers are in the environment, as a worker of the tests imports it."""

from __future__ import annotations

import os
import time
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from redis import Redis

from harness.lab.queue_jobs import note as note_line
from harness.queues import dramatiq as harness_dramatiq

URL = os.environ["TEST_BROKER"]


def _broker() -> Any:
    if URL.startswith("amqp"):
        return RabbitmqBroker(url=URL, confirm_delivery=True)
    return RedisBroker(client=Redis.from_url(URL))  # type: ignore[no-untyped-call]


broker = _broker()
results: Any = Results
broker.add_middleware(
    results(backend=RedisBackend(client=Redis.from_url(os.environ["TEST_BACKEND"], socket_timeout=None)))
)
dramatiq.set_broker(broker)
harness_dramatiq.install(broker, redis=os.environ["TEST_REDIS"])


@dramatiq.actor(store_results=True)
def note(path: str, line: str = "noted") -> str:
    """Append a line to a file."""
    with open(path, "a", encoding="utf-8") as file:  # noqa: PTH123 - as short as a tutorial's task
        file.write(line + "\n")
    return line


@dramatiq.actor
def stamp(path: str) -> None:
    """Note the time when it starts."""
    note_line(path, time.time())
