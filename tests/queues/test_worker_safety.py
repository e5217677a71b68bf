"""Safety of the workers: no input makes them load a pickle."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus
from rq.serializers import DefaultSerializer, JSONSerializer

from harness.queues.rq import SimpleWorker, SpawnWorker, Worker, enqueue, recover
from tests import jobs
from tests.jobs import CountByIteration
from tests.workers import Workers


class Evil:
    """Object that makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        """Tell pickle what to call."""
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize("field", ["data", "meta", "result", "exc_info"])
def test_no_pickle_is_ever_loaded(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers, tmp_path: Path, field: str
) -> None:
    """RQ's command with a harness worker and its defaults runs no pickle from a job's hash."""
    evil = pickle.dumps(Evil(tmp_path / "harm"))
    victims = [enqueue(jobs_queue, CountByIteration, 3), jobs_queue.enqueue_call(jobs.plain, args=(3,))]
    for victim in victims:
        broker.hset(victim.key, field, evil)
    last = enqueue(jobs_queue, CountByIteration, 3)
    rq_workers.finish()
    assert not (tmp_path / "harm").exists()
    assert last.get_status() == JobStatus.FINISHED
    assert all(broker.exists(victim.key) for victim in victims)


@pytest.mark.parametrize("worker_class", [Worker, SpawnWorker, SimpleWorker])
@pytest.mark.parametrize("asked", [None, "pickle", "rq.serializers.DefaultSerializer", DefaultSerializer])
def test_the_serializer_is_json(redis: Redis, worker_class: Any, asked: Any) -> None:
    """RQ's commands and its pool ask for pickle by default; harness workers do not use it."""
    worker = worker_class([Queue("test", connection=redis)], connection=redis, serializer=asked)
    assert worker.serializer is JSONSerializer
    assert [queue.serializer for queue in worker.queues] == [JSONSerializer]


@pytest.mark.parametrize("field", ["data", "meta", "result", "exc_info"])
def test_recovery_loads_no_pickle_either(
    broker: Redis, jobs_queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    """Recovery is not stopped by a job that it cannot read: it requeues the next one."""
    monkeypatch.setenv("HARNESS_RECOVER_SECONDS", "0.000001")
    victim, last = (enqueue(jobs_queue, CountByIteration, 3) for _ in range(2))
    for _ in range(2):
        broker.lmove(jobs_queue.key, jobs_queue.intermediate_queue_key)
    broker.hset(victim.key, field, pickle.dumps(Evil(tmp_path / "harm")))
    assert recover(broker) == []
    assert last.id in recover(broker)
    assert not (tmp_path / "harm").exists()
    assert broker.exists(victim.key)
