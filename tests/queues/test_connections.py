"""Connections to Redis: which are refused, which server is too old, and which access rules are enough."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.command import send_shutdown_command
from rq.defaults import RQ_KEY_PREFIX
from rq.job import Job as RQJob
from rq.job import JobStatus

from harness import UsageError
from harness.lab.fork_server import ForkServer
from harness.lab.servers import redis_server
from harness.queues.history import history
from harness.queues.rq import (
    Requests,
    SimpleWorker,
    Worker,
    cancel,
    enqueue,
    keep_recovering,
    pause,
    recover,
    request_stop,
    resume,
    scale,
)
from harness.queues.rq.keys import LEASES
from harness.queues.rq.overview import Watcher
from harness.stores.redis import RedisStore
from harness.stores.rq_meta import RQMetaStore
from tests import access
from tests.jobs import CountByIteration
from tests.worker_jobs import Numbers, UntilReleased, again, plain
from tests.workers import OURS, PATIENCE, Workers, pid_of, release, told, wait_for

ENTRIES: dict[str, Callable[[Redis, Queue], object]] = {
    "cancel": lambda redis, _: cancel(redis, "1"),
    "enqueue": lambda _, queue: enqueue(queue, CountByIteration, 1),
    "history": lambda redis, _: history(redis, "1"),
    "keep_recovering": lambda redis, _: keep_recovering(redis, Event()),
    "pause": lambda redis, _: pause(redis, "1"),
    "recover": lambda redis, _: recover(redis),
    "request_stop": lambda redis, _: request_stop(redis, "1"),
    "Requests": lambda redis, _: Requests(redis),
    "resume": lambda _, queue: resume(queue, "1"),
    "scale": lambda redis, _: scale(redis, "1", 2),
    "SimpleWorker": lambda redis, queue: SimpleWorker([queue], connection=redis),
    "Watcher": lambda redis, _: Watcher(redis),
    "Worker": lambda redis, queue: Worker([queue], connection=redis),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_connection_that_decodes_is_refused(redis_url: str, real_redis: Redis, entry: str) -> None:
    """The connection is refused by name, the error says what to do, and nothing is written."""
    with Redis.from_url(redis_url, decode_responses=True) as decoding:
        queue = Queue("test", connection=decoding, serializer="json")
        with pytest.raises(UsageError, match=r"decode_responses=True.*make another one without it"):
            ENTRIES[entry](decoding, queue)
    assert real_redis.dbsize() == 0


def test_a_worker_refuses_a_connection_of_one_socket(redis_url: str) -> None:
    """Its threads and its work horse would share it."""
    with (
        Redis.from_url(redis_url, single_connection_client=True) as single,
        pytest.raises(UsageError, match="single_connection_client=True"),
    ):
        Worker([Queue("test", connection=single, serializer="json")], connection=single)


@pytest.mark.parametrize("data", [pickle.dumps(("f", None, (), {})), b"\xff\x00"], ids=["pickle", "noise"])
def test_what_cannot_be_read_is_not_given_up(
    broker: Redis, jobs_queue: Queue, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    """The sweep keeps a job that it cannot read, and requeues it as soon as it can be read."""
    monkeypatch.setenv("HARNESS_RECOVER_SECONDS", "0.000001")
    job = enqueue(jobs_queue, Numbers, 3)
    broker.lmove(jobs_queue.key, jobs_queue.intermediate_queue_key)
    SimpleWorker([jobs_queue], connection=broker, commands=False).prepare_execution(job)
    readable = broker.hget(job.key, "data")
    broker.hset(job.key, "data", data)
    assert [recover(broker) for _ in range(3)] == [[], [], []]
    leases: list[Any] = broker.zrange(LEASES, 0, -1, withscores=True)
    assert leases
    assert math.inf not in dict(leases).values()
    broker.hset(job.key, "data", readable)
    assert recover(broker) == [job.id]


def test_a_redis_that_is_too_old_is_refused() -> None:
    """A worker refuses an old Redis when it starts, not in the middle of a job, and names the oldest that works."""
    with redis_server(more=("--rename-command", "GETDEL", "")) as server, Redis.from_url(server.url) as old:
        worker = SimpleWorker([Queue("test", connection=old, serializer="json")], connection=old)
        with pytest.raises(UsageError, match=r"does not know GETDEL; use Redis 6\.2 or newer, or Valkey"):
            worker.work(burst=True)
        environment = {**os.environ, "HARNESS_REDIS_URL": server.url}
        told_by = [sys.executable, "-m", "harness", "verify"]
        said = subprocess.run(told_by, env=environment, capture_output=True, text=True, check=False).stdout
        assert "too old" in said


@pytest.fixture
def users(redis_url: str, broker: Redis) -> Iterator[dict[str, str]]:
    """Yield the URLs of the three users that the Redis guide describes, with its rules and no others."""
    broker.acl_log_reset()
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(access.user(broker, name, rule, redis_url))
            for name, rule in access.rules(RQ_KEY_PREFIX).items()
        }


def command(url: str, *arguments: str) -> str:
    """Return the output of a harness command for a Redis."""
    line = [sys.executable, "-m", "harness", *arguments]
    done = subprocess.run(
        line, env={**os.environ, "HARNESS_REDIS_URL": url}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_access_rules_of_the_guide_are_enough(
    broker: Redis, users: dict[str, str], worker_processes: ForkServer, tmp_path: Path
) -> None:
    """A worker works, recovers and listens to commands; an operator watches and steers; a web process enqueues."""
    workers = Workers(worker_processes, users["worker"], tmp_path)
    try:
        with Redis.from_url(users["web"]) as web, Redis.from_url(users["operator"]) as operator:
            queue = Queue("test", connection=web, serializer="json")
            jobs = as_a_web_process(queue)
            worker = workers.start(OURS, "--with-scheduler", seconds=2)
            wait_for(broker, jobs[0].id, 3)
            as_an_operator(operator, users["operator"], jobs[0].id)
            worker.kill()
            os.kill(pid_of(broker, jobs[0].id), 9)
            second = workers.start(OURS, "--with-scheduler", "--name", "second", seconds=2)
            pid_of(broker, jobs[0].id)  # recovered
            release(broker, jobs[0].id)
            wait_for(broker, jobs[5].id, 1)  # by the scheduler
            workers.finish()
            send_shutdown_command(operator, "second")
            assert second.wait(PATIENCE) == 0
            assert RQMetaStore(web).load(jobs[0].id) is not None
    finally:
        workers.close()
    assert access.denied(broker) == []
    assert {broker.hget(job.key, "status") for job in jobs} == {JobStatus.FINISHED.value.encode()}
    assert told(broker, jobs[2].id) == [0, 1]


def as_a_web_process(queue: Queue) -> list[RQJob]:
    """Enqueue, look, ask for a stop."""
    jobs = [
        enqueue(queue, UntilReleased),
        enqueue(queue, Numbers, 2),
        enqueue(queue, Numbers, 2),
        queue.enqueue_call(again, args=(2,)),
    ]
    jobs += [
        queue.enqueue_call(plain, args=(1,), depends_on=jobs[2]),
        queue.enqueue_in(timedelta(seconds=1), plain, 1),
    ]
    request_stop(queue.connection, jobs[1].id)
    store = RedisStore(queue.connection)
    store.save(store.claim("1"))
    store.delete("1")
    assert [job.get_status() for job in jobs[:2]] == [JobStatus.QUEUED] * 2
    return jobs


def as_an_operator(connection: Redis, url: str, job_id: str) -> None:
    """Watch and steer."""
    Watcher(connection).look()
    history(connection, job_id)
    recover(connection)
    pause(connection, "none")
    assert not resume(Queue("test", connection=connection, serializer="json"), "none")
    cancel(connection, "none")
    with pytest.raises(UsageError, match="not in RQ"):
        scale(connection, "none", 2)
    for arguments in (["status"], ["monitor", "--once"], ["explain", job_id], ["recover"]):
        assert command(url, *arguments) is not None
