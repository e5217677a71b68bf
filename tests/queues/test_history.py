"""The history of a job and its heartbeat: stored next to the job, bounded, and never in its way."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from harness import on_stop
from harness.overrides import Overrides, overriding
from harness.queues import history
from harness.queues.history import EXECUTIONS, TTL, Heartbeat, read_history
from harness.queues.rq import SimpleWorker, enqueue, pause, resume
from harness.stops import Every
from harness.stores.rq_meta import RQMetaStore
from tests import jobs
from tests.jobs import CountByIteration, FailAt
from tests.worker_jobs import Stubborn, UntilReleased
from tests.workers import OURS, PATIENCE, Workers, pid_of, release, wait_for


def work(queue: Queue, **asked: Any) -> None:
    """Do all there is to do."""
    with overriding(Overrides(**asked)):
        SimpleWorker([queue], connection=queue.connection, commands=False).work(
            burst=True, logging_level="CRITICAL"
        )


def told(connection: Redis, job_id: str) -> list[tuple[Any, ...]]:
    """Return the history in short."""
    return [(e.what, e.epoch, e.done, e.outcome, e.reason) for e in history.history(connection, job_id)[0]]


def test_each_execution_begins_and_ends(queue: Queue, redis: Redis) -> None:
    """The history says how far each execution was, how it ended and why."""
    job = enqueue(queue, CountByIteration, 20)
    work(queue, stops=[Every(8)])
    assert told(redis, job.id) == [
        ("start", 1, 0, "", None), ("end", 1, 8, "interrupted", "every:8"),
        ("start", 2, 8, "", None), ("end", 2, 16, "interrupted", "every:8"),
        ("start", 3, 16, "", None), ("end", 3, 20, "completed", None),
    ]  # fmt: skip
    entries, heartbeat = history.history(redis, job.id)
    assert heartbeat is None
    assert entries[0].job == "tests.jobs:CountByIteration"
    assert entries[0].durability == "every(seconds=1)"
    assert entries[0].enqueued_at is not None
    assert entries[-1].total == 20


def test_an_error_and_a_pause_are_ends_too(queue: Queue, redis: Redis) -> None:
    """Each says what it was."""
    failing, held = enqueue(queue, FailAt, 5, 0), enqueue(queue, CountByIteration, 5)
    pause(redis, held.id)
    work(queue)
    assert told(redis, failing.id)[-1] == ("end", 1, 0, "failed", "RuntimeError: cannot do 0")
    assert told(redis, held.id)[-1] == ("end", 1, 0, "paused", "paused")


class Fragile(CountByIteration):
    """Fails at the first crash: it allows none."""

    max_crashes = 0


def test_the_crash_limit_is_an_end_too(queue: Queue, redis: Redis) -> None:
    """A job that crashed too often has an execution that reports this and does nothing else."""
    job = enqueue(queue, Fragile, 5)
    RQMetaStore(redis).claim(job.id)  # as an execution that crashes immediately does
    work(queue)
    (began, ended) = told(redis, job.id)
    assert (began, ended[:4]) == (("start", 2, 0, "", None), ("end", 2, 0, "failed"))
    assert "CrashLimit: Fragile crashed 1 times" in ended[4]


def test_a_pause_comes_before_the_crash_limit(queue: Queue, redis: Redis, done: list[object]) -> None:
    """A user can pause a job that crashes repeatedly, fix it, and resume it."""
    job = enqueue(queue, Fragile, 3)
    RQMetaStore(redis).claim(job.id)
    pause(redis, job.id)
    work(queue)
    assert told(redis, job.id)[-1] == ("end", 2, 0, "paused", "paused")
    assert resume(queue, job.id)
    work(queue)
    assert (told(redis, job.id)[-1][3], done) == ("completed", [0, 1, 2])


def test_it_is_bounded_and_expires(queue: Queue, redis: Redis) -> None:
    """The last 100 executions are kept; so does the progress not grow with them (C26)."""
    job = enqueue(queue, CountByIteration, EXECUTIONS + 20)
    work(queue, stops=[Every(1)])
    entries, _ = history.history(redis, job.id)
    assert redis.xlen(f"harness:history:{job.id}") == len(entries) == 2 * EXECUTIONS
    assert entries[-1].epoch == EXECUTIONS + 21
    assert 0 < redis.ttl(f"harness:history:{job.id}") <= TTL


def test_what_another_release_wrote_is_left_out(redis: Redis) -> None:
    """Unknown entries of another release are left out, and a duplicate entry counts once."""
    entry = {"what": "start", "epoch": 1, "done": 0}
    for text in (json.dumps(entry), json.dumps(entry), json.dumps({**entry, "colour": "red"}), "no JSON"):
        redis.xadd("harness:history:7", {"entry": text})
    redis.set("harness:pulse:7", '{"colour": "red"}')
    entries, heartbeat = history.history(redis, "7")
    assert ([e.what for e in entries], heartbeat) == (["start"], None)
    assert read_history([]) == []


class Peeks(CountByIteration):
    """Reads its own heartbeat after its fifth number."""

    durability = on_stop()

    def each_iteration(self, item: int, numbers: int) -> None:
        """Do one number."""
        super().each_iteration(item, numbers)
        if item == 5:
            recording: Any = self.execution.observers[0]  # type: ignore[attr-defined]  # not of the job's protocol
            recording._tell()
            jobs.DONE.append(history.history(recording._connection, self.execution.job_id)[1])


def test_the_heartbeat_tells_what_a_kill_would_cost(queue: Queue, done: list[object]) -> None:
    """All that is done and not saved: under on_stop(), everything since the execution began."""
    enqueue(queue, Peeks, 9)
    work(queue)
    heartbeat = next(each for each in done if isinstance(each, Heartbeat))
    assert (heartbeat.done, heartbeat.saved, heartbeat.items, heartbeat.total, heartbeat.durability) == (
        5,
        0,
        5,
        9,
        "on_stop()",
    )
    assert heartbeat.rate is not None
    assert heartbeat.unsaved_s == pytest.approx(heartbeat.elapsed_s)


def test_a_death_is_told_by_whoever_goes_on(rq_workers: Workers, jobs_queue: Queue, broker: Redis) -> None:
    """The next start has the last heartbeat of an execution that never ended."""
    job = enqueue(jobs_queue, Stubborn, 4)
    rq_workers.start()
    wait_for(broker, job.id, 3)  # it hangs
    horse = pid_of(broker, job.id)
    os.kill(horse, signal.SIGKILL)
    assert pid_of(broker, job.id) != horse
    starts = [entry for entry in history.history(broker, job.id)[0] if entry.what == "start"]
    assert [(entry.epoch, entry.died and entry.died.epoch) for entry in starts] == [(1, None), (2, 1)]
    assert starts[1].died is not None
    assert starts[1].died.pid == horse


def test_redis_errors_do_not_reach_the_job(queue: Queue, redis: Redis, done: list[object]) -> None:
    """A history that cannot be written is a line in the log."""
    job = enqueue(queue, CountByIteration, 3)
    redis.set(f"harness:history:{job.id}", "not a stream")
    work(queue)
    assert done == [0, 1, 2]
    bad: list[str] = []
    assert history.history(redis, job.id, bad) == ([], None)
    assert "cannot be read" in bad[0]


def test_a_job_at_work_is_told_of_by_a_thread(rq_workers: Workers, jobs_queue: Queue, broker: Redis) -> None:
    """A job at work has a heartbeat, which goes when it ends."""
    job = enqueue(jobs_queue, UntilReleased)
    worker = rq_workers.start(OURS, "--burst")
    wait_for(broker, job.id, 1)
    heartbeat = history.history(broker, job.id)[1]
    assert heartbeat is not None
    assert (heartbeat.parent, heartbeat.pid) == (worker.pid, pid_of(broker, job.id))
    release(broker, job.id)
    assert worker.wait(PATIENCE) == 0
    assert history.history(broker, job.id)[1] is None
