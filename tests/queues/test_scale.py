"""Recovery of many jobs takes time in proportion to their number, and does not keep a good job waiting."""

from __future__ import annotations

import time
from typing import Any

from redis import Redis
from rq import Queue

from harness.queues.rq import enqueue, recover
from harness.queues.rq.keys import LEASES
from harness.queues.rq.recovery import Sweeper
from tests.worker_jobs import Numbers


def die(queue: Queue, number: int) -> None:
    """Enqueue jobs whose execution has crashed."""
    connection, started = queue.connection, queue.started_job_registry.key
    first = enqueue(queue, Numbers, 3, options={"job_id": "dead"})
    stored: dict[Any, Any] = {**connection.hgetall(first.key), b"status": b"started"}
    with connection.pipeline(transaction=False) as pipeline:
        for index in range(number):
            entry = f"dead-{index}:e"
            pipeline.hset(f"rq:job:dead-{index}", mapping=stored)
            pipeline.zadd(started, {entry: time.time() + 1000})
            pipeline.zadd(LEASES, {entry: 1})
        pipeline.delete(queue.key)
        pipeline.execute()


def commands(connection: Redis) -> int:
    """Return how many commands the server has been sent."""
    return int(connection.info("stats")["total_commands_processed"])


def test_the_round_trips_do_not_grow_with_what_waits(broker: Redis, jobs_queue: Queue) -> None:
    """Twice as many crashed jobs take twice as many commands, and each job is requeued once."""
    counts = []
    for number in (200, 400):
        broker.flushdb()
        die(jobs_queue, number)
        before = commands(broker)
        assert len(recover(broker)) == number
        counts.append((commands(broker) - before) / number)
        assert sorted(jobs_queue.job_ids) == sorted(f"dead-{index}" for index in range(number))
    assert counts[1] <= counts[0] * 1.1


def test_a_turn_has_a_limit(broker: Redis, jobs_queue: Queue) -> None:
    """Work over the limit is done in the next turn."""
    die(jobs_queue, 250)
    sweeper = Sweeper(broker)
    back = []
    for expected in (True, True, False):
        back += sweeper.sweep(limit=100)
        assert sweeper.more is expected
    assert len(set(back)) == 250


def test_a_quiet_sweep_is_one_command(broker: Redis) -> None:
    """If no job is at work, a sweep is one command in two intervals, and a few more now and then."""
    sweeper = Sweeper(broker)
    before = commands(broker)
    for _ in range(48):  # two minutes by default
        sweeper.turn()
    assert commands(broker) - before <= 24 + 8 * 2 + 1
