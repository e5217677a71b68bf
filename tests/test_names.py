"""Odd entries in RQ's set of queues: all are skipped, and the queues next to them are found."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from harness import UsageError
from harness.queues.rq import enqueue, names
from harness.queues.rq.names import all_queues
from harness.queues.rq.overview import Watcher
from tests.jobs import CountByIteration


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


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test begin as a process that has skipped nothing."""
    monkeypatch.setattr(names, "_skipped", set())


def test_odd_entries_are_skipped_and_named_once(real_redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """Each odd entry is in one log line of a process, with escapes in place of control characters."""
    Queue("test", connection=real_redis, serializer="json").enqueue(len, ())
    Prefixed("test", connection=real_redis, serializer="json").enqueue(len, ())
    real_redis.sadd(Queue.redis_queues_keys, *ODD)
    with caplog.at_level(logging.WARNING, "harness.rq"):
        found = [[queue.name for queue in all_queues(real_redis)] for _ in range(2)]
    assert found == [["test"], ["test"]]
    named: list[Any] = [record.args[1] for record in caplog.records if isinstance(record.args, tuple)]
    assert sorted(named) == sorted(ODD)
    assert "\x1b" not in caplog.text


def test_many_odd_entries_do_not_fill_the_memory(
    real_redis: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the limit, odd entries are skipped without a log line."""
    monkeypatch.setattr(names, "KNOWN_LIMIT", 3)
    real_redis.sadd(Queue.redis_queues_keys, *(b"odd%d" % number for number in range(10)))
    assert all_queues(real_redis) == []
    assert len(caplog.records) == 3


def test_a_set_of_queues_that_is_none_is_empty(real_redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """A key of another type has no queues in it, and the log says so."""
    real_redis.set(Queue.redis_queues_keys, "not a set")
    assert all_queues(real_redis) == []
    assert "it is not a set" in caplog.text


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
