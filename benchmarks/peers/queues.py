"""Peers: how to start a worker of each, and how to give it the orders."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

import sqlalchemy as sa
from celery import Celery
from redis import Redis
from rq import Queue, Retry

from benchmarks.peers import ours, work
from harness.queues import rq as ours_on_rq
from harness.stores.sql import SqlStore

Enqueue = Callable[["Place", int, float], None]

QUEUE = "peers"
JOB_SECONDS = 3_600


@dataclass(frozen=True)
class Place:
    """Servers of one run.

    :ivar log: file that takes the output of workers.
    """

    database: str
    redis: str
    log: IO[bytes]


@dataclass(frozen=True)
class Peer:
    """Way to run the orders.

    :ivar command: arguments of the interpreter that start a worker, from a place, a number of orders and their time.
    :ivar enqueue: gives the orders to the worker. :ivar broker: URL of its broker.
    """

    name: str
    command: Callable[[Place, int, float], list[str]]
    enqueue: Enqueue
    broker: Callable[[Place], str] = lambda place: place.redis

    def start(self, place: Place, orders: int, seconds: float) -> subprocess.Popen[bytes]:
        """Start a worker."""
        variables = {work.DATABASE: place.database, work.BROKER: self.broker(place)}
        return subprocess.Popen(
            [sys.executable, *self.command(place, orders, seconds)],
            env={**os.environ, **variables, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=place.log,
            stderr=place.log,
            start_new_session=True,
        )


def _rq(worker_class: str) -> Callable[[Place, int, float], list[str]]:
    return lambda place, *_: [
        "-m", "rq.cli", "worker", "-q", "-u", place.redis, "-S", "json", "-w", worker_class, QUEUE
    ]  # fmt: skip


def _on_rq(place: Place, orders: int, seconds: float) -> None:
    with Redis.from_url(place.redis) as connection:
        queue = Queue(QUEUE, connection=connection, serializer="json")
        queue.enqueue(work.plain, orders, seconds, retry=Retry(max=3), job_timeout=JOB_SECONDS)


def _as_job(job_class: type[ours.Orders]) -> Enqueue:
    def enqueue(place: Place, orders: int, seconds: float) -> None:
        with Redis.from_url(place.redis) as connection:
            queue = Queue(QUEUE, connection=connection, serializer="json")
            ours_on_rq.enqueue(
                queue, job_class, orders, seconds, options={"job_id": "orders", "timeout": JOB_SECONDS}
            )

    return enqueue


def _once(place: Place, orders: int, seconds: float) -> None:
    engine = sa.create_engine(place.database)
    SqlStore(engine).create()
    engine.dispose()
    _as_job(ours.OrdersOnce)(place, orders, seconds)


def _celery(*_: object) -> list[str]:
    return ["-m", "celery", "-A", "benchmarks.peers.celery_app", "worker", "-c", "1", "-l", "ERROR"]


def _on_celery(broker: Callable[[Place], str]) -> Enqueue:
    def enqueue(place: Place, orders: int, seconds: float) -> None:
        with Celery("peers", broker=broker(place)) as app:
            app.send_task("orders", [orders, seconds])

    return enqueue


def _socket(place: Place) -> str:
    return place.redis.replace("unix://", "redis+socket://") + "?virtual_host=1"


def _dbos(_: Place, orders: int, seconds: float) -> list[str]:
    return ["-m", "benchmarks.peers.dbos_app", str(orders), str(seconds)]


def _loop(_: Place, orders: int, seconds: float) -> list[str]:
    return ["-c", f"from benchmarks.peers.work import plain; plain({orders}, {seconds})"]


def _nothing(*_: object) -> None:
    """Leave it to the worker, which starts with the orders."""


LOOP = Peer("a plain loop", _loop, _nothing)
PEERS = (
    Peer("this package on RQ, `every(seconds=1)`", _rq("harness.queues.rq.Worker"), _as_job(ours.Orders)),
    Peer("this package on RQ, `with_transaction()`", _rq("harness.queues.rq.Worker"), _once),
    Peer("DBOS, a step an order", _dbos, _nothing),
    Peer("RQ with `Retry`", _rq("rq.Worker"), _on_rq),
    Peer("Celery on Redis, `acks_late`", _celery, _on_celery(_socket), _socket),
)
