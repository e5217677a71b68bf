"""Plain jobs that an application has pickled, under our workers: refused without harm, or run where that is allowed."""

from __future__ import annotations

import pickle
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from redis import Redis
from rq import Callback, Queue, Retry
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.serializers import JSONSerializer

from harness import UsageError
from harness.queues.rq import SimpleWorker, enqueue
from harness.queues.rq.pickles import ALLOW
from tests import worker_jobs
from tests.queues.test_worker_safety import Evil
from tests.worker_jobs import Numbers, plain
from tests.workers import ALL, OURS, PATIENCE, SIMPLE, Workers, told

every_worker = pytest.mark.parametrize("worker_class", ALL)


@pytest.fixture
def pickling(broker: Redis) -> Queue:
    """Return the queue as RQ makes it by default: it pickles."""
    return Queue("test", connection=broker)


def reason_of(job: RQJob) -> str:
    """Return why a job has failed."""
    result = job.latest_result()
    assert result is not None
    assert result.exc_string is not None
    return result.exc_string


@every_worker
def test_a_pickled_job_is_refused_without_harm(
    broker: Redis, pickling: Queue, rq_workers: Workers, monkeypatch: pytest.MonkeyPatch, worker_class: str
) -> None:
    """A pickled job fails by name and runs nothing; requeued for a worker that may load it, it does its work."""
    failed = Callback("tests.worker_jobs.failed")
    job = pickling.enqueue(
        plain, 3, retry=Retry(max=2), on_failure=failed, meta={"day": date(2026, 8, 1)}, failure_ttl=-1
    )
    after = pickling.enqueue(plain, 1, depends_on=job)
    good = enqueue(Queue("test", connection=broker, serializer="json"), Numbers, 2)
    rq_workers.finish(worker_class)
    job.refresh()
    assert (job.get_status(), job.retries_left, told(broker, job.id)) == (JobStatus.FAILED, 2, [])
    assert pickling.failed_job_registry.get_job_ids() == [job.id]
    reason = reason_of(job)
    for part in (
        job.id,
        "tests.worker_jobs.plain",
        "was pickled",
        "serializer='json'",
        f"{ALLOW}=1",
        "requeue",
    ):
        assert part in reason
    assert broker.exists(f"called:{job.id}", pickling.intermediate_queue_key) == 0
    assert (after.get_status(), good.get_status()) == (JobStatus.DEFERRED, JobStatus.FINISHED)

    job.requeue()
    monkeypatch.setenv(ALLOW, "1")
    rq_workers.finish(worker_class)
    job.refresh()
    assert (job.get_status(), job.return_value(), told(broker, job.id)) == (JobStatus.FINISHED, 3, [0, 1, 2])
    assert job.meta == {"day": date(2026, 8, 1)}
    assert after.get_status() == JobStatus.FINISHED


@every_worker
def test_where_it_is_allowed_each_job_keeps_its_format(
    broker: Redis, pickling: Queue, rq_workers: Workers, monkeypatch: pytest.MonkeyPatch, worker_class: str
) -> None:
    """Arguments, meta and results of a pickled job stay pickled, those of a JSON job stay JSON."""
    monkeypatch.setenv(ALLOW, "1")
    pickled = pickling.enqueue(worker_jobs.day_after, date(2026, 7, 31), meta={"who": {"a", "b"}})
    json_queue = Queue("test", connection=broker, serializer="json")
    text = json_queue.enqueue(plain, 2, meta={"who": ["a"]})
    ours = enqueue(json_queue, Numbers, 2)
    rq_workers.finish(worker_class)
    pickled = RQJob.fetch(pickled.id, connection=broker)
    assert (pickled.return_value(), pickled.meta) == (date(2026, 8, 1), {"who": {"a", "b"}, "seen": {1, 2}})
    text = RQJob.fetch(text.id, connection=broker, serializer=JSONSerializer)
    assert (text.return_value(), text.meta) == (2, {"who": ["a"]})
    assert (ours.get_status(), told(broker, ours.id)) == (JobStatus.FINISHED, [0, 1])


def test_a_pickled_job_that_was_scheduled_keeps_its_meta(
    broker: Redis, pickling: Queue, rq_workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our worker's scheduler, which reads JSON, moves it to its queue as it is."""
    monkeypatch.setenv(ALLOW, "1")
    job = pickling.enqueue_at(
        datetime(2026, 1, 1, tzinfo=UTC), worker_jobs.day_after, date(2026, 7, 31), meta={"n": {1}}
    )
    assert rq_workers.start(OURS, "--with-scheduler", "--max-jobs", "1").wait(PATIENCE) == 0
    job = RQJob.fetch(job.id, connection=broker)
    assert (job.return_value(), job.meta) == (date(2026, 8, 1), {"n": {1}, "seen": {1, 2}})


@pytest.mark.parametrize("allow", ["0", "1"])
def test_a_pickled_job_of_this_package_is_never_loaded(
    pickling: Queue, rq_workers: Workers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, allow: str
) -> None:
    """The message names what to use, and the pickle is not even opened."""
    monkeypatch.setenv(ALLOW, allow)
    job = pickling.enqueue("harness.queues.rq.perform", Numbers.path(), [Evil(tmp_path / "harm")], {})
    rq_workers.finish(SIMPLE)
    assert job.get_status(refresh=True) == JobStatus.FAILED
    assert "never loaded from a pickle" in reason_of(job)
    assert "harness.queues.rq.enqueue()" in reason_of(job)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    "data", [b"\x80", b"\x80\x05N.", pickle.dumps(list(range(99))), b"\xff\x00", b"{", b"[1, 2]"]
)
def test_data_that_is_no_job_is_refused_without_harm(
    broker: Redis, pickling: Queue, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    """A job with any such data fails by name, keeps its retries, and the next job runs."""
    monkeypatch.setenv(ALLOW, "1")
    job = pickling.enqueue(plain, 3, retry=Retry(max=2))
    broker.hset(job.key, "data", data)
    good = enqueue(Queue("test", connection=broker, serializer="json"), Numbers, 2)
    SimpleWorker([pickling], connection=broker, commands=False).work(burst=True, logging_level="CRITICAL")
    broker.hset(job.key, "data", job.data)
    job.refresh()
    assert (job.get_status(), job.retries_left) == (JobStatus.FAILED, 2)
    assert job.id in reason_of(job)
    assert "it was not run: enqueue it again" in reason_of(job)
    assert good.get_status() == JobStatus.FINISHED


def test_who_asks_for_pickle_is_answered(rq_workers: Workers, pickling: Queue, tmp_path: Path) -> None:
    """``-S pickle`` is followed by a line that says what happens, and what to set; the default is not."""
    del pickling
    rq_workers.finish(OURS, "-S", "pickle")
    rq_workers.finish(OURS)
    asked, silent = ((tmp_path / f"worker-{number}.log").read_text() for number in range(2))
    assert "--serializer pickle is ignored" in asked
    assert f"set {ALLOW}=1" in asked
    assert "pickle" not in silent


def test_an_unclear_wish_is_refused(pickling: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that is neither yes nor no ends the worker before it takes a job."""
    monkeypatch.setenv(ALLOW, "yes")
    with pytest.raises(UsageError, match=f"got {ALLOW}='yes'; use 1 .* or 0"):
        SimpleWorker([pickling], connection=pickling.connection)
