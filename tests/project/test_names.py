"""Odd entries in RQ's set of queues: all are skipped, and the queues next to them are found."""

from __future__ import annotations

import logging

import pytest
from redis import Redis
from rq import Queue

from harness import UsageError
from harness.queues.rq import enqueue, entries
from harness.queues.rq.entries import Complaints, queues_of
from harness.queues.rq.overview import Watcher
from tests.jobs import CountByIteration
from tests.worker_jobs import Numbers
from tests.workers import ALL, Workers, told


class Prefixed(Queue):
    """A queue of an application that gives its queues a key prefix of their own."""

    redis_queue_namespace_prefix = "app:queue:"


ODD = [
    b"app:queue:test",
    b"\xff\xfe",
    b"",
    b"rq:queues:test",
    "rq\N{FULLWIDTH COLON}queue:test".encode(),
    b"\x1b[2J",
]


def test_odd_entries_are_skipped_and_named_once(
    real_redis: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each odd entry is in one log line of a process, with escapes instead of control characters."""
    Queue("test", connection=real_redis, serializer="json").enqueue(len, ())
    Prefixed("test", connection=real_redis, serializer="json").enqueue(len, ())
    real_redis.sadd(Queue.redis_queues_keys, *ODD)
    monkeypatch.setattr(entries, "complaints", Complaints())  # of a process that has said nothing
    with caplog.at_level(logging.WARNING, "harness.rq"):
        found = [[queue.name for queue in queues_of(real_redis)[0]] for _ in range(2)]
    assert found == [["test"], ["test"]]
    assert len(caplog.records) == len(ODD)
    assert "\x1b" not in caplog.text


def test_the_monitor_shows_the_queues_next_to_odd_entries(real_redis: Redis) -> None:
    """A look at a Redis with odd entries shows the good queue and its job."""
    job = enqueue(Queue("test", connection=real_redis, serializer="json"), CountByIteration, 3)
    real_redis.sadd(Queue.redis_queues_keys, *ODD)
    seen = Watcher(real_redis).look()
    assert list(seen.queues) == ["test"]
    assert [each.id for each in seen.jobs] == [job.id]


def test_a_queue_with_a_key_prefix_of_its_own_is_refused(real_redis: Redis) -> None:
    """A job that no recovery would find is not enqueued."""
    with pytest.raises(UsageError, match=r"'app:queue:test'.*use a queue class without.*RQ_KEY_PREFIX"):
        enqueue(Prefixed("test", connection=real_redis, serializer="json"), CountByIteration, 3)
    assert real_redis.dbsize() == 0


@pytest.mark.parametrize("worker_class", ALL)
def test_odd_entries_end_no_worker(broker: Redis, rq_workers: Workers, worker_class: str) -> None:
    """A real worker does the good job, whatever is in RQ's set of queues."""
    Prefixed("test", connection=broker, serializer="json").enqueue(len, ())
    broker.sadd(Queue.redis_queues_keys, *ODD)
    job = enqueue(Queue("test", connection=broker, serializer="json"), Numbers, 3)
    rq_workers.finish(worker_class)
    assert told(broker, job.id) == [0, 1, 2]
