"""Hostile states of Redis: whatever is stored there, the good jobs next to it are done by a real worker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job as RQJob
from rq.job import JobStatus

from harness.queues.periodic import shown
from harness.queues.rq import SimpleWorker, enqueue
from harness.queues.rq import keys as ours
from harness.queues.rq.entries import complaints, is_outage, is_wrong_data
from harness.queues.rq.keys import DELAYED, ENDED, LEASES, OPEN, STRAYS
from harness.queues.rq.recovery import Sweeper
from tests.worker_jobs import Numbers
from tests.workers import OURS, Workers, told

State = Callable[[Redis], object]

BAD_ID = b"\xff\xfe\x00bad"
WIP, MIDDLE, QUEUE = "rq:wip:test", "rq:queue:test:intermediate", "rq:queue:test"
OTHER = "rq:queue:other"
FAR = 4 * 10**9


def other(connection: Redis, *values: tuple[str, bytes | str]) -> object:
    """Register another queue, and store values in its keys."""
    connection.sadd("rq:queues", OTHER)
    for key, value in values:
        connection.set(key, value)
    return OTHER


def hashed(connection: Redis, **fields: Any) -> str:
    """Store a job of this package with some fields replaced, and return its id."""
    job_id = "bad"
    job = RQJob.create("harness.queues.rq.perform", ("tests.worker_jobs:Numbers", [3], {}), id=job_id,
                       connection=connection, serializer="json", origin="test", timeout=60)  # fmt: skip
    job.save()
    changed: dict[Any, Any] = {"status": "started", **fields}
    connection.hset(job.key, mapping=changed)
    return job_id


def dead(connection: Redis, job_id: str) -> object:
    """Make the state that a crashed execution of a job leaves."""
    entry = f"{job_id}:e"
    connection.zadd(WIP, {entry: FAR})
    return connection.zadd(LEASES, {entry: 1})


def dead_job(connection: Redis, **fields: Any) -> object:
    """Make the state that a crashed execution of a job with odd fields leaves."""
    return dead(connection, hashed(connection, **fields))


def dead_string(connection: Redis) -> object:
    """Make the state that a crashed execution of a job leaves, with a string as the job's key."""
    connection.set("rq:job:bad", "text")
    return dead(connection, "bad")


STATES: dict[str, State] = {
    "started: not UTF-8": lambda r: r.zadd(WIP, {BAD_ID: 1}),
    "started: not UTF-8, far": lambda r: r.zadd(WIP, {BAD_ID: FAR}),
    "started: too many colons": lambda r: r.zadd(WIP, {"a:b:c": 1}),
    "started: no colon": lambda r: r.zadd(WIP, {"alone": FAR}),
    "started: only a colon": lambda r: r.zadd(WIP, {":": FAR}),
    "started: empty": lambda r: r.zadd(WIP, {"": FAR}),
    "started: long": lambda r: r.zadd(WIP, {"x" * 100_000 + ":e": FAR}),
    "started: control characters": lambda r: r.zadd(WIP, {"\x1b[31m\n:e\x00:": FAR}),
    "started: no number of seconds": lambda r: r.zadd(WIP, {"gone:e": float("-inf")}),
    "started: the job is gone": lambda r: r.zadd(WIP, {"gone:e": 1}),
    "leases: not UTF-8": lambda r: r.zadd(LEASES, {BAD_ID: 1}),
    "leases: too many colons": lambda r: r.zadd(LEASES, {"a:b:c": 1}),
    "leases: no colon": lambda r: r.zadd(LEASES, {"alone": 1}),
    "leases: a string": lambda r: r.set(LEASES, "text"),
    "leases: a list": lambda r: (r.delete(LEASES), r.rpush(LEASES, "text")),
    "open: not UTF-8": lambda r: r.zadd(OPEN, {BAD_ID: 0}),
    "open: many that are not UTF-8": lambda r: r.zadd(OPEN, {BAD_ID + b"%d" % n: -1 for n in range(1000)}),
    "open: a string": lambda r: r.set(OPEN, "text"),
    "open: a job whose key is a string": lambda r: (r.set("rq:job:bad", "x"), r.zadd(OPEN, {"bad": 0})),
    "open: a job whose origin is not UTF-8": lambda r: r.zadd(OPEN, {hashed(r, origin=BAD_ID): 0}),
    "ended: not UTF-8": lambda r: r.zadd(ENDED, {BAD_ID: FAR}),
    "ended: a hash": lambda r: r.hset(ENDED, "a", "b"),
    "ended: a job whose key is a string": lambda r: (r.set("rq:job:bad", "x"), r.zadd(ENDED, {"bad": FAR})),
    "strays: a string": lambda r: r.set(STRAYS, "text"),
    "delayed: not UTF-8": lambda r: r.zadd(DELAYED, {BAD_ID: 0}),
    "delayed: a string": lambda r: r.set(DELAYED, "text"),
    "delayed: a job whose key is a string": lambda r: (r.set("rq:job:bad", "x"), r.zadd(DELAYED, {"bad": 0})),
    "delayed: the registry is a string": lambda r: (
        other(r, ("rq:scheduled:other", "x")), r.zadd(DELAYED, {hashed(r, origin="other"): 0}),
    ),
    "queues: not UTF-8": lambda r: r.sadd("rq:queues", BAD_ID),
    "queues: not UTF-8 after the prefix": lambda r: r.sadd("rq:queues", b"rq:queue:" + BAD_ID),
    "queues: of another prefix": lambda r: r.sadd("rq:queues", "app:queue:test"),
    "queues: no prefix": lambda r: r.sadd("rq:queues", "test"),
    "queues: empty": lambda r: r.sadd("rq:queues", ""),
    "queues: control characters": lambda r: r.sadd("rq:queues", "rq:queue:\x1b]0;x\x07\n"),
    "queues: many": lambda r: r.sadd("rq:queues", *(f"rq:queue:{n}" for n in range(1000))),
    "other queue: a string": lambda r: other(r, (OTHER, "x")),
    "other queue: its started registry is a string": lambda r: other(r, ("rq:wip:other", "x")),
    "other queue: its dequeued list is a string": lambda r: other(r, (f"{OTHER}:intermediate", "x")),
    "other queue: a dead job, and the queue is a string": lambda r: (
        other(r, (OTHER, "x")), hashed(r, origin="other"), r.zadd("rq:wip:other", {"bad:e": FAR}),
        r.zadd(LEASES, {"bad:e": 1}),
    ),
    "dequeued: not UTF-8": lambda r: r.rpush(MIDDLE, BAD_ID),
    "dequeued: empty": lambda r: r.rpush(MIDDLE, ""),
    "dequeued: with a colon": lambda r: r.rpush(MIDDLE, "a:b"),
    "dequeued: the job is gone": lambda r: r.rpush(MIDDLE, "gone"),
    "dequeued: the key of the job is a string": lambda r: (
        r.set("rq:job:bad", "x"), r.rpush(MIDDLE, "bad"), r.zadd(LEASES, {"bad:dequeued": 1}),
    ),
    "job: a string": dead_string,
    "job: no status": lambda r: (dead_job(r), r.hdel("rq:job:bad", "status")),
    "job: a status of no kind": lambda r: dead_job(r, status="flying"),
    "job: a status that is not UTF-8": lambda r: dead_job(r, status=BAD_ID),
    "job: data that is no JSON": lambda r: dead_job(r, data="{"),
    "job: data that is not UTF-8": lambda r: dead_job(r, data=BAD_ID),
    "job: no data": lambda r: (dead_job(r), r.hdel("rq:job:bad", "data")),
    "job: a time that is none": lambda r: dead_job(r, created_at="soon"),
    "job: a timeout that is none": lambda r: dead_job(r, timeout="soon"),
    "job: a TTL that is no number": lambda r: dead_job(r, result_ttl="soon"),
    "job: meta that is no JSON": lambda r: dead_job(r, meta=BAD_ID),
    "job: a counter that is no number": lambda r: dead_job(r, dead_starts="many"),
    "job: a counter of tries that is no number": lambda r: dead_job(r, unknown_starts="many", taken_over="x"),
    "job: its executions are a string": lambda r: (dead_job(r), r.set("rq:executions:bad", "x")),
    "job: its execution is a string": lambda r: (dead_job(r), r.set("rq:execution:bad:e", "x")),
    "job: its worker's executions are a string": lambda r: (
        dead_job(r), r.hset("rq:execution:bad:e", "worker_name", "w"), r.set("rq:worker:w:executions", "x"),
    ),
    "waiting: not UTF-8": lambda r: r.lpush(QUEUE, BAD_ID),
    "waiting: empty": lambda r: r.lpush(QUEUE, ""),
    "waiting: the key of the job is a string": lambda r: (r.set("rq:job:bad", "x"), r.lpush(QUEUE, "bad")),
    "waiting: data that is no JSON": lambda r: r.lpush(QUEUE, hashed(r, data="{", status="queued")),
    "waiting: a timeout that is none": lambda r: r.lpush(QUEUE, hashed(r, timeout="soon", status="queued")),
    "waiting: its executions are a string": lambda r: (
        r.lpush(QUEUE, hashed(r, status="queued")), r.set("rq:executions:bad", "x"),
    ),
    "waiting: a counter that is no number": lambda r: r.lpush(
        QUEUE, hashed(r, status="queued", unknown_starts="many")
    ),
    "registry: finished is a string": lambda r: r.set("rq:finished:other", "x"),
    "registry: failed holds what is not UTF-8": lambda r: r.zadd("rq:failed:test", {BAD_ID: FAR}),
    "registry: deferred is a list": lambda r: r.rpush("rq:deferred:test", "x"),
    "registry: ready holds what is not UTF-8": lambda r: r.zadd("rq:ready:test", {BAD_ID: 1}),
    "registry: ready is a string": lambda r: r.set("rq:ready:test", "x"),
    "workers of the queue: not UTF-8": lambda r: r.sadd("rq:workers:test", BAD_ID),
    "groups: not UTF-8": lambda r: r.sadd("rq:groups", BAD_ID),
    "groups: a string": lambda r: r.set("rq:groups", "x"),
    "rate limits: not UTF-8": lambda r: r.sadd("rq:rl-keys", BAD_ID),
    "history: a string": lambda r: r.set(ours.history("waiting"), "x"),
    "heartbeat: a list": lambda r: r.rpush(ours.heartbeat("waiting"), "x"),
}  # fmt: skip


def good_jobs(queue: Queue) -> list[RQJob]:
    """Return two jobs: one that waits, and one whose worker crashed."""
    lost = enqueue(queue, Numbers, 3, options={"job_id": "lost"})
    queue.connection.delete(queue.key)
    execution = SimpleWorker([queue], connection=queue.connection, commands=False).prepare_execution(lost)
    queue.connection.hset(lost.key, "status", "started")
    queue.connection.zadd(LEASES, {execution.composite_key: 1})
    return [enqueue(queue, Numbers, 3, options={"job_id": "waiting"}), lost]


@pytest.mark.sample(20)
@pytest.mark.parametrize("name", STATES)
def test_good_jobs_are_done(
    broker: Redis, jobs_queue: Queue, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A waiting job and that of a crashed worker finish, whatever else is stored; the log has no control characters."""
    jobs = good_jobs(jobs_queue)
    STATES[name](broker)
    if broker.type(LEASES) != b"zset":  # RQ's own time is over, too
        entries: Any = broker.zrange(WIP, 0, -1)
        broker.zadd(WIP, dict.fromkeys(entries, 1))
    with caplog.at_level(logging.INFO, "harness.rq"):
        SimpleWorker([jobs_queue], connection=broker, commands=False).work(
            burst=True, logging_level="CRITICAL"
        )
    assert [job.get_status() for job in jobs] == [JobStatus.FINISHED] * 2
    assert [sorted(set(told(broker, job.id))) for job in jobs] == [[0, 1, 2]] * 2
    assert all(line.getMessage().isprintable() for line in caplog.records if line.name == "harness.rq")


def test_a_worker_with_horses_does_the_good_jobs_next_to_all_of_them(
    broker: Redis, jobs_queue: Queue, rq_workers: Workers
) -> None:
    """A worker with horses finishes the good jobs even if all hostile entries exist together."""
    jobs = good_jobs(jobs_queue)
    for name, state in STATES.items():
        if "a string" not in name and "a list" not in name and "a hash" not in name:
            state(broker)
    rq_workers.finish(OURS)
    assert [job.get_status() for job in jobs] == [JobStatus.FINISHED] * 2


def test_a_bad_entry_is_logged_once(broker: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """A bad entry is logged once by its name, and not at each sweep."""
    broker.sadd("rq:queues", QUEUE)
    broker.zadd(WIP, {b"odd\xff\x1b": 1})
    sweeper = Sweeper(broker)
    with caplog.at_level(logging.ERROR, "harness.rq"):
        for _ in range(3):
            sweeper.sweep()
    assert [each.getMessage().partition(" (")[0] for each in caplog.records] == [
        "started execution odd\\xff\\x1b cannot be used"
    ]
    assert broker.zrange(WIP, 0, -1) == [b"odd\xff\x1b"]


def test_a_key_of_ours_with_other_data_is_renamed(broker: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """The sweep keeps the old data under another key, and the log names that key."""
    broker.set(LEASES, "text")
    with caplog.at_level(logging.ERROR, "harness.rq"):
        Sweeper(broker).sweep()
    assert broker.get(f"{LEASES}:set-aside") == b"text"
    assert "key harness:leases held a string" in caplog.text


def test_wrong_data_is_no_outage(broker: Redis) -> None:
    """Wrong data and outages are distinguished by the text of the Redis error."""
    broker.set("text", "x")
    wrong: list[Callable[[], object]] = [
        lambda: broker.zrange("text", 0, -1), lambda: broker.incr("text"), lambda: broker.hget("text", "a"),
    ]  # fmt: skip
    for command in wrong:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the question
            command()
        assert (is_wrong_data(caught.value), is_outage(caught.value)) == (True, False)
    broker.config_set("maxmemory", 1)
    try:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            broker.set("a", "b")
    finally:
        broker.config_set("maxmemory", 0)
    assert (is_wrong_data(caught.value), is_outage(caught.value)) == (False, True)


def test_names_are_shown_short_and_printable() -> None:
    """Names of any content and length are shown short and printable."""
    assert shown(b"a\x1b[31m\n\xff") == "a\\x1b[31m\\n\\xff"
    assert len(shown("x" * 10**6)) <= 200
    complaints.say("test", "\x00", "\x07")
