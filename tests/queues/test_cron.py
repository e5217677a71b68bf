"""Cron entries of ``rq cron``: what they enqueue is JSON, and a job that is unfinished is not enqueued once more."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import rq.cron
from redis import Redis
from rq import Queue
from rq.cron import CronScheduler, get_cron_job_ids
from rq.job import Job as RQJob
from rq.job import JobStatus

from harness import CursorError, UsageError
from harness.queues.rq import SimpleWorker, cron, enqueue
from harness.queues.rq.cron import register
from tests.documents import ROOT
from tests.jobs import CountByIteration
from tests.worker_jobs import Numbers, plain
from tests.workers import PATIENCE, Workers, told

CONFIG = """
import rq.cron
from harness.queues.rq import cron
from tests.worker_jobs import Numbers, plain

cron.register(Numbers, "test", args=(3,), interval=3600, job_id="nightly", job_timeout=600)
cron.register(plain, "test", kwargs={"numbers": 2}, interval=3600, name="of-a-function")
rq.cron.register(plain, "pickles", args=(1,), interval=3600)
"""


@pytest.fixture
def rq_cron(
    redis_url: str, broker: Redis, tmp_path: Path
) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Yield a starter of ``rq cron`` with a configuration; it ends them after the test."""
    del broker
    started: list[subprocess.Popen[bytes]] = []

    def start(config: str) -> subprocess.Popen[bytes]:
        path = tmp_path / "cron_config.py"
        path.write_text(config)
        with (tmp_path / f"cron-{len(started)}.log").open("wb") as output:
            line = [sys.executable, "-m", "rq.cli", "cron", "-u", redis_url, str(path)]
            started.append(subprocess.Popen(line, cwd=ROOT, stdout=output, stderr=output))
        return started[-1]

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait(PATIENCE)


@pytest.fixture
def scheduler(real_redis: Redis) -> Iterator[CronScheduler]:
    """Yield RQ's scheduler in this process; what the tests replaced in RQ is as before afterwards."""
    before = rq.cron.CronJob.enqueue
    yield CronScheduler(connection=real_redis)
    rq.cron.CronJob.enqueue = before  # type: ignore[method-assign]
    cron._original = None
    rq.cron._job_data_registry.clear()


def data_of(connection: Redis, job_id: str) -> bytes:
    """Return the data of a job as it is stored."""
    found: Any = connection.hget(RQJob.key_for(job_id), "data")
    return zlib.decompress(found)


def wait_for_jobs(connection: Redis, queue: str, count: int) -> list[str]:
    """Wait until a queue has *count* jobs, and return their ids."""
    connection.config_set("notify-keyspace-events", "Kl")
    key = Queue(queue, connection=connection).key
    with connection.pubsub() as events:
        events.psubscribe(f"__keyspace@0__:{key}")
        while connection.llen(key) < count:
            assert events.get_message(timeout=PATIENCE), f"queue {queue} has not got {count} jobs"
    found: list[bytes] = connection.lrange(key, 0, -1)  # type: ignore[assignment]
    return [each.decode() for each in found]


def test_rq_cron_feeds_our_workers(
    broker: Redis, rq_cron: Callable[[str], subprocess.Popen[bytes]], rq_workers: Workers
) -> None:
    """A real ``rq cron``: a job class and a function run under our worker, and RQ's own entries stay pickled."""
    process = rq_cron(CONFIG)
    (pickled,) = wait_for_jobs(broker, "pickles", 1)
    ids = wait_for_jobs(broker, "test", 2)
    assert "nightly" in ids
    (of_function,) = set(ids) - {"nightly"}
    assert json.loads(data_of(broker, "nightly"))[0] == "harness.queues.rq.perform"
    assert json.loads(data_of(broker, of_function))[0] == "tests.worker_jobs.plain"
    assert data_of(broker, pickled)[:1] == b"\x80"
    rq_workers.finish()
    assert (told(broker, "nightly"), told(broker, of_function)) == ([0, 1, 2], [0, 1])
    assert get_cron_job_ids("of-a-function", broker) == [of_function]
    assert get_cron_job_ids("tests.worker_jobs.Numbers", broker) == ["nightly"]
    seen = RQJob.fetch("nightly", connection=broker, serializer="json")
    assert (seen.timeout, seen.get_status()) == (600, JobStatus.FINISHED)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0


def load(scheduler: CronScheduler) -> None:
    """Give RQ's scheduler the entries that were registered, as it does with a configuration."""
    for data in rq.cron._job_data_registry:
        scheduler.register(**data)
    rq.cron._job_data_registry.clear()


def tick(scheduler: CronScheduler) -> None:
    """Have the time of all entries come."""
    for each in scheduler.get_jobs():
        each.enqueue(scheduler.connection)


def test_an_entry_with_an_id_does_not_double_the_work(scheduler: CronScheduler) -> None:
    """While the job waits, the next time joins it; when it is over, the next time begins a new round."""
    register(CountByIteration, "test", args=(3,), interval=60, job_id="nightly")
    load(scheduler)
    queue = Queue("test", connection=scheduler.connection, serializer="json")
    for _ in range(2):
        tick(scheduler)
        tick(scheduler)
        assert queue.job_ids == ["nightly"]
        SimpleWorker([queue], connection=queue.connection, commands=False).work(
            burst=True, logging_level="ERROR"
        )
        assert queue.job_ids == []


def test_an_entry_without_an_id_makes_another_job_each_time(scheduler: CronScheduler) -> None:
    """Such an entry enqueues a new job each time, as RQ's own entries do."""
    register(CountByIteration, "test", args=(3,), cron="0 3 * * *")
    load(scheduler)
    tick(scheduler)
    tick(scheduler)
    assert Queue("test", connection=scheduler.connection).count == 2


def test_a_job_in_the_way_does_not_end_rq_cron(
    scheduler: CronScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    """An unfinished job with other arguments under the id is named in the log, and the other entries go on."""
    queue = Queue("test", connection=scheduler.connection, serializer="json")
    enqueue(queue, CountByIteration, 99, options={"job_id": "nightly"})
    register(CountByIteration, "test", args=(3,), interval=60, job_id="nightly")
    register(plain, "test", args=(1,), interval=60)
    load(scheduler)
    assert len(scheduler.enqueue_jobs()) == 2
    assert queue.count == 2
    assert re.search("not enqueued: job 'nightly' has other arguments", caplog.text)


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        (int, {}, UsageError, "takes a ContinuableJob or an IterationJob"),
        ("shop.jobs.f", {}, UsageError, "register a ContinuableJob, an IterationJob or a function"),
        (Numbers, {"args": (object(),)}, CursorError, "argument 0"),
        (Numbers, {"kwargs": {"numbers": {1}}}, CursorError, "argument 'numbers'"),
        (Numbers, {"args": (1, 2)}, UsageError, "cannot be called with these arguments"),
        (lambda: None, {}, UsageError, "no worker finds it"),
    ],
)
def test_an_entry_that_cannot_work_is_refused_when_it_is_registered(
    scheduler: CronScheduler, target: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """An entry that cannot work is refused when it is registered, not when its time comes."""
    del scheduler
    with pytest.raises(error, match=message):
        register(target, "test", interval=60, **options)
    assert rq.cron._job_data_registry == []
