"""Time and place of a job's next execution in RQ, after an interruption and after an error, and the stored texts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus
from rq.scheduler import RQScheduler

from harness import Enumerator, IterationJob, RetryLater, items
from harness.errors import JobDefinitionError
from harness.queues.history import history
from harness.queues.rq import SimpleWorker, enqueue
from harness.queues.rq.keys import SWEEP_LOCK
from harness.stops import Every
from tests.jobs import CountByIteration, FailAt
from tests.queues.test_rq import Stock, work
from tests.workers import progress_of

AWKWARD = "\0\ud800" + "x" * 140_000


class Elsewhere(CountByIteration):
    """Goes on in another queue."""

    resume_queue = "slow"


class ElsewhereLater(Elsewhere):
    """Goes on in another queue, before all others, after a minute."""

    resume_delay = timedelta(minutes=1)
    resume_at_front = True


class First(CountByIteration):
    """Goes on before all others."""

    resume_at_front = True


class Waits(CountByIteration):
    """Waits before its third number, for a reason that is hard to store."""

    def each_iteration(self, item: int, numbers: int) -> None:
        """Do one number, or wait."""
        if item == 2:
            raise RetryLater(timedelta(minutes=2), AWKWARD)
        super().each_iteration(item, numbers)


class FailsLoudly(CountByIteration):
    """Fails with a message that is hard to store."""

    def each_iteration(self, item: int, numbers: int) -> None:
        """Fail."""
        raise ValueError(AWKWARD)


class Misset(CountByIteration):
    """Has a policy that is set wrongly after the class is defined."""


@pytest.fixture
def no_log() -> Iterator[None]:
    """Log nothing: RQ logs messages as they are, and what captures them may not be able to."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def slow(redis: Redis) -> Queue:
    """Return the queue that jobs go on in."""
    return Queue("slow", connection=redis, serializer="json")


def waits_s(queue: Queue, job: Any) -> float:
    """Return for how many seconds a job is scheduled."""
    due: datetime = queue.scheduled_job_registry.get_scheduled_time(job)
    return (due - datetime.now(UTC)).total_seconds()


def test_an_error_waits_five_seconds_in_rqs_schedule(queue: Queue, done: list[object]) -> None:
    """By default an error waits, so that an outage of one second does not affect two executions."""
    job = enqueue(queue, FailAt, 5, 3)
    work(queue)
    assert (done, job.get_status()) == ([0, 1, 2, "failed"], JobStatus.SCHEDULED)
    assert waits_s(queue, job) <= 5
    assert progress_of(queue.connection, job.id).state == "interrupted"


def test_a_delay_that_a_job_asks_for_is_kept(queue: Queue, done: list[object]) -> None:
    """The delay is kept, and a reason that cannot be stored as it is does no harm in progress and history."""
    job = enqueue(queue, Waits, 5)
    work(queue)
    assert (done, job.get_status()) == ([0, 1], JobStatus.SCHEDULED)
    assert 5 < waits_s(queue, job) <= 120
    entries, _ = history(queue.connection, job.id)
    for reason in (progress_of(queue.connection, job.id).reason, entries[-1].reason):
        assert reason is not None
        assert reason.startswith("\\x00\\ud800xxx")
        assert len(reason) <= 2_000


@pytest.mark.parametrize("key", [RQScheduler.get_locking_key("test"), SWEEP_LOCK])
def test_under_rqs_own_worker_an_error_waits_if_somebody_ends_that(
    queue: Queue, done: list[object], key: str
) -> None:
    """The delay ends by RQ's scheduler or by a harness worker that sweeps."""
    queue.connection.set(key, "1")
    job = enqueue(queue, FailAt, 5, 3)
    work(queue, Stock)
    assert (done, job.get_status()) == ([0, 1, 2, "failed"], JobStatus.SCHEDULED)


def test_under_rqs_own_worker_without_a_scheduler_an_error_goes_on_at_once(
    queue: Queue, done: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    """A delayed job would wait for ever, so it is resumed without its delay, and the log says so."""
    job = enqueue(queue, FailAt, 5, 3)
    with caplog.at_level(logging.WARNING, "harness.rq"):
        work(queue, Stock)
    assert (done, job.get_status()) == ([0, 1, 2, "failed", 3, 4], JobStatus.FINISHED)
    assert "resumed without its error_delay" in caplog.text


def test_a_job_may_go_on_in_another_queue(queue: Queue, slow: Queue, done: list[object]) -> None:
    """All its records move with it: it is one job, in one queue."""
    job = enqueue(queue, Elsewhere, 5)
    work(queue, stops=[Every(2)])
    assert (queue.get_job_ids(), slow.get_job_ids()) == ([], [job.id])
    assert queue.started_job_registry.get_job_and_execution_ids() == []
    job.refresh()
    assert (job.origin, job.get_status()) == ("slow", JobStatus.QUEUED)
    work(slow, stops=[Every(2)])
    assert (done, job.get_status()) == ([0, 1, 2, 3, 4], JobStatus.FINISHED)
    assert job.id in slow.finished_job_registry


def test_a_delay_is_kept_by_the_other_queue(queue: Queue, slow: Queue) -> None:
    """Workers of the other queue enqueue the job when it is due, at the front if the job's policy says so."""
    job = enqueue(queue, ElsewhereLater, 5)
    work(queue, stops=[Every(2)])
    assert (queue.scheduled_job_registry.count, slow.scheduled_job_registry.count) == (0, 1)
    assert 30 < waits_s(slow, job) <= 60
    job.refresh()
    assert (job.origin, job.should_enqueue_at_front()) == ("slow", True)


@pytest.mark.parametrize("worker_class", [SimpleWorker, Stock])
def test_a_job_may_go_on_before_the_others(queue: Queue, done: list[object], worker_class: Any) -> None:
    """RQ's own worker knows that too."""
    enqueue(queue, First, 4)
    enqueue(queue, CountByIteration, 1)
    work(queue, worker_class, stops=[Every(3)])
    assert done == [0, 1, 2, 3, 0]


def test_by_default_a_job_goes_on_behind_the_others(queue: Queue, done: list[object]) -> None:
    """By default a job goes on behind the others, so that they get their turn."""
    enqueue(queue, CountByIteration, 4)
    enqueue(queue, CountByIteration, 1)
    work(queue, stops=[Every(3)])
    assert done == [0, 1, 2, 0, 3]


@pytest.mark.usefixtures("no_log")
def test_a_failure_whose_message_rq_cannot_encode_is_stored(queue: Queue) -> None:
    """A failure whose message RQ cannot encode is stored, so that the job does not stay started."""
    job = enqueue(queue, FailsLoudly, 5)
    work(queue)
    assert job.get_status() == JobStatus.FAILED
    result = job.latest_result()
    assert result is not None
    assert "\\x00\\ud800xxx" in (result.exc_string or "")
    assert len(progress_of(queue.connection, job.id).reason or "") <= 2_000


class LongNamed(IterationJob):
    """Takes a list."""

    def build_enumerator(self, names: list[int], *, cursor: Any) -> Enumerator[int]:
        """Go through the list."""
        return items(names, cursor=cursor)

    def each_iteration(self, item: int, names: list[int]) -> None:
        """Do nothing."""


def test_long_arguments_are_cut_in_the_description_only(queue: Queue) -> None:
    """They arrive as they are."""
    job = enqueue(queue, LongNamed, list(range(10_000)))
    assert len(job.description or "") < 600
    assert job.args[1] == [list(range(10_000))]


def test_a_policy_that_was_set_wrongly_later_is_refused_when_the_job_is_enqueued(queue: Queue) -> None:
    """The policy is refused by the enqueue, and the queue stays empty."""
    Misset.max_runtime = "soon"  # type: ignore[assignment]  # the mistake under test
    with pytest.raises(JobDefinitionError, match=r"Misset\.max_runtime: got 'soon'"):
        enqueue(queue, Misset, 5)
    assert queue.count == 0
