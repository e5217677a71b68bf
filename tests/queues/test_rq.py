"""Jobs on RQ: same id, no failure counted, nothing pickled; under our worker and under RQ's own."""

from __future__ import annotations

import os
import signal
from datetime import date
from typing import Any

import pytest
import rq
from redis import Redis
from rq import Queue, Retry
from rq.job import JobStatus, get_current_job
from rq.results import Result
from rq.serializers import JSONSerializer

from harness import CancelJob, RetryLater, every
from harness.errors import CursorError, UsageError
from harness.overrides import Overrides, overriding
from harness.queues.rq import SimpleWorker, cancel, enqueue, pause, perform, request_stop, resume
from harness.queues.rq.requests import PERFORM
from harness.stops import Every
from harness.stores.rq_meta import RQMetaStore
from tests import jobs
from tests.jobs import CountByIteration, CountInSteps, Dates, FailAt
from tests.workers import progress_of


class Stock(rq.SimpleWorker):
    """RQ's own worker, but for its command channel, which takes a thread."""

    def __init__(self, queues: Any, *, connection: Redis) -> None:
        super().__init__(queues, connection=connection, serializer=JSONSerializer)

    def subscribe(self) -> None:
        """Open none."""

    def unsubscribe(self) -> None:
        """Close none."""


def work(
    queue: Queue,
    worker_class: type[rq.SimpleWorker] = SimpleWorker,
    max_jobs: int | None = None,
    **overrides: Any,
) -> rq.SimpleWorker:
    """Work until the queue is empty."""
    worker = worker_class([queue], connection=queue.connection)
    handlers = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    }
    with overriding(Overrides(**overrides)):
        worker.work(burst=True, logging_level="WARNING", max_jobs=max_jobs)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return worker


@pytest.mark.parametrize("worker_class", [SimpleWorker, Stock])
@pytest.mark.parametrize("job_class", [CountInSteps, CountByIteration])
def test_an_interrupted_job_goes_on_under_the_same_id(
    queue: Queue, done: list[object], job_class: Any, worker_class: type[rq.SimpleWorker]
) -> None:
    """A job is back in its queue after each interruption, and finished in the end, with RQ's own worker too."""
    job = enqueue(queue, job_class, 20, options={"job_id": "7"})
    work(queue, worker_class, stops=[Every(7)])
    assert [item for item in done if isinstance(item, int)] == list(range(20))
    assert (job.get_status(), queue.finished_job_registry.get_job_ids()) == (JobStatus.FINISHED, ["7"])
    progress = progress_of(queue.connection, "7")
    assert (progress.state, progress.epoch, progress.interruptions) == ("completed", 3, 2)


def test_an_interruption_is_not_a_failure(queue: Queue) -> None:
    """An interruption changes no count, registry, retry budget or result."""
    job = enqueue(queue, CountByIteration, 20, options={"retry": Retry(max=2)})
    worker = work(queue, stops=[Every(7)])
    worker.refresh()
    job.refresh()
    assert (worker.failed_job_count, worker.successful_job_count) == (0, 1)
    assert (job.retries_left, job.number_of_retries) == (2, None)
    assert len(queue.failed_job_registry) == len(queue.started_job_registry) == 0
    assert [result.type for result in job.results()] == [Result.Type.SUCCESSFUL]


def test_dependents_wait_for_the_end(queue: Queue, done: list[object]) -> None:
    """A job that depends on an interrupted one runs once, after it."""
    first = enqueue(queue, CountByIteration, 10)
    queue.enqueue_call(jobs.plain, args=(100,), depends_on=first)
    work(queue, stops=[Every(3)])
    assert done == [*range(10), *range(100)]


def test_a_delay_goes_through_rqs_schedule(queue: Queue) -> None:
    """A job with resume_delay waits in the scheduled registry."""
    job = enqueue(queue, Delayed, 20)
    work(queue, stops=[Every(7)])
    assert job.get_status() == JobStatus.SCHEDULED
    assert queue.scheduled_job_registry.get_job_ids() == [job.id]


@pytest.mark.parametrize("worker_class", [SimpleWorker, Stock])
@pytest.mark.parametrize("raised", [ValueError("hook"), RetryLater(9), CancelJob()], ids=repr)
@pytest.mark.parametrize(
    ("control", "status"),
    [(None, JobStatus.FINISHED), (pause, JobStatus.SCHEDULED), (cancel, JobStatus.CANCELED)],
)
def test_an_error_of_a_hook_fails_no_job(  # noqa: PLR0917 - one for each thing that varies
    queue: Queue,
    done: list[object],
    monkeypatch: pytest.MonkeyPatch,
    worker_class: type[rq.SimpleWorker],
    raised: BaseException,
    control: Any,
    status: JobStatus,
) -> None:
    """For RQ the job ends as without the error: interrupted and then finished, paused, or cancelled."""
    monkeypatch.setattr(BadHooks, "raised", raised)
    job = enqueue(queue, BadHooks, 6)
    if control is not None:
        control(queue.connection, job.id)
    work(queue, worker_class, stops=[Every(2)], poll_seconds=0.0)
    if worker_class is Stock and control is cancel:
        status = JobStatus.SCHEDULED  # where RQ's own worker parks it
    assert job.get_status() == status
    assert len(queue.failed_job_registry) == 0
    assert done == ([0, 1, 2, 3, 4, 5] if control is None else [])
    assert progress_of(queue.connection, job.id).crashes == 0


class BadHooks(CountByIteration):
    """Raises in every hook of the end."""

    raised: Any = None

    def on_shutdown(self) -> None:
        """Raise."""
        raise self.raised

    def on_cancel(self) -> None:
        """Raise."""
        raise self.raised


def test_an_error_of_on_error_leaves_the_error_as_it_was(queue: Queue, done: list[object]) -> None:
    """Resumed where it is resumed, and RQ's result tells the job's own error where it is not."""
    failing = enqueue(queue, BadOnError, 5, 0)
    work(queue)
    result = failing.latest_result()
    assert result is not None
    assert str(result.exc_string).strip().endswith("RuntimeError: cannot do 0")
    done.clear()
    resumed = enqueue(queue, BadOnError, 5, 3)
    work(queue)
    assert resumed.get_status() == JobStatus.FINISHED
    assert done == [0, 1, 2, "failed", 3, 4]


class BadOnError(FailAt):
    """Cannot handle an error."""

    error_delay = 0

    def on_error(self, error: Exception) -> None:
        """Raise."""
        raise KeyError("hook")


class Delayed(CountByIteration):
    """Waits a minute after each interruption."""

    resume_delay = 60


def test_an_error_is_resumed_and_then_left_to_rq(queue: Queue, done: list[object]) -> None:
    """An error after progress goes on at the item that failed, without using up a retry (I12)."""
    job = enqueue(queue, FailAt, 5, 3)
    work(queue, delay_seconds=0.0)
    assert done == [0, 1, 2, "failed", 3, 4]
    assert job.get_status() == JobStatus.FINISHED


def test_rqs_retry_goes_on_at_the_cursor(queue: Queue, done: list[object]) -> None:
    """An error without progress is RQ's; its retry finds the progress of the executions before."""
    job = enqueue(queue, FailAt, 5, 0, options={"retry": Retry(max=1)})
    work(queue)
    assert done == ["failed", 0, 1, 2, 3, 4]
    assert job.get_status() == JobStatus.FINISHED


def test_a_signal_to_the_process_stops_the_job(queue: Queue, done: list[object]) -> None:
    """SIGTERM ends the execution at its next checkpoint and the worker after it; the job is queued again."""
    job = enqueue(queue, KillsItself, 6)
    work(queue)
    assert (done, job.get_status()) == ([0, 1, 2, 3], JobStatus.QUEUED)
    work(queue)
    assert (done, job.get_status()) == ([0, 1, 2, 3, 4, 5], JobStatus.FINISHED)


class KillsItself(CountByIteration):
    """Is sent SIGTERM while it works on its fourth item."""

    def each_iteration(self, item: int, numbers: int) -> None:
        """Do one item."""
        super().each_iteration(item, numbers)
        if item == 3:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_stop_can_be_requested_from_anywhere(queue: Queue, redis: Redis, done: list[object]) -> None:
    """A request in Redis stops one execution, and is then used up."""
    job = enqueue(queue, CountByIteration, 5)
    request_stop(redis, job.id, "maintenance")
    work(queue, poll_seconds=0.0)
    progress = progress_of(redis, job.id)
    assert done == [0, 1, 2, 3, 4]
    assert progress.interruptions == 1


def test_arguments_arrive_with_their_types(queue: Queue, done: list[object]) -> None:
    """An argument may have any type that a cursor may have; in Redis it is JSON."""
    job = enqueue(queue, Dates, date(2024, 2, 28))
    assert job.description == "Dates(datetime.date(2024, 2, 28))"
    work(queue, stops=[Every(2)])
    assert done[:2] == [date(2024, 2, 28), date(2024, 2, 29)]


def test_what_cannot_be_enqueued_is_refused(queue: Queue, redis: Redis) -> None:
    """A pickling queue, a plain function and an argument without a JSON form each get one clear error."""
    with pytest.raises(UsageError, match=r"serializer='json'"):
        enqueue(Queue("pickles", connection=redis), CountByIteration, 3)
    with pytest.raises(UsageError, match="takes a ContinuableJob or an IterationJob"):
        enqueue(queue, jobs.plain, 3)  # type: ignore[arg-type]
    with pytest.raises(CursorError, match=r"argument 'numbers': builtins\.set"):
        enqueue(queue, CountByIteration, numbers={3})
    assert queue.is_empty()


def test_perform_is_for_workers_and_jobs_only(queue: Queue) -> None:
    """The error says so if perform() is called by hand or with the name of something else."""
    with pytest.raises(UsageError, match="inside an RQ worker only"):
        perform("tests.jobs:CountByIteration", [3], {})
    job = queue.enqueue_call(PERFORM, args=("os:system", ["true"], {}))
    work(queue)
    result = job.latest_result()
    assert result is not None
    assert "use a ContinuableJob" in str(result.exc_string)


def test_durability_can_be_overridden_for_a_run(queue: Queue, redis: Redis) -> None:
    """Progress is saved as the override says, not as the class does."""
    job = enqueue(queue, Peeks, 4)
    work(queue, durability=every(items=1))
    assert job.get_status() == JobStatus.FINISHED
    assert jobs.DONE == [None, 0, 1, 2]


class Peeks(CountByIteration):
    """Notes which cursor is stored while it works."""

    def each_iteration(self, item: int, numbers: int) -> None:
        """Look into the store."""
        current = get_current_job()
        assert current is not None
        assert current.connection is not None
        progress = RQMetaStore(current.connection).load(current.id)
        jobs.DONE.append(progress.cursor if progress else None)


class Cancellable(CountByIteration):
    """Records its end, and runs an action of the test in its third item."""

    ask: Any = None

    def each_iteration(self, item: int, numbers: int) -> None:
        """Do one item."""
        super().each_iteration(item, numbers)
        if item == 2 and self.ask is not None:
            current = get_current_job()
            assert current is not None
            type(self).ask(current.connection, current.id)

    def on_start(self) -> None:
        """Record the call."""
        jobs.DONE.append("start")

    def on_cancel(self) -> None:
        """Record the call."""
        jobs.DONE.append("cancelled")

    def on_complete(self) -> None:
        """Record the call."""
        jobs.DONE.append("complete")


@pytest.mark.parametrize("running", [True, False])
def test_a_paused_job_waits_until_it_is_resumed(
    queue: Queue, redis: Redis, done: list[object], monkeypatch: pytest.MonkeyPatch, running: bool
) -> None:
    """Paused while it runs it stops at its next checkpoint, paused before it does nothing; resumed it goes on."""
    job = enqueue(queue, Cancellable, 5)
    if running:
        monkeypatch.setattr(Cancellable, "ask", staticmethod(pause))
    else:
        pause(redis, job.id)
    work(queue, poll_seconds=0.0)
    assert (done, job.get_status()) == (["start", 0, 1, 2] if running else [], JobStatus.SCHEDULED)
    progress = progress_of(redis, job.id)
    assert (progress.state, progress.reason) == ("paused", "paused")
    monkeypatch.setattr(Cancellable, "ask", None)
    assert resume(queue, job.id)
    assert not resume(queue, job.id)
    work(queue)
    assert (done, job.get_status()) == (["start", 0, 1, 2, 3, 4, "complete"], JobStatus.FINISHED)


@pytest.mark.parametrize("running", [True, False])
def test_a_cancelled_job_stops_for_good(
    queue: Queue, redis: Redis, done: list[object], monkeypatch: pytest.MonkeyPatch, running: bool
) -> None:
    """on_cancel runs and on_complete does not (S4); RQ shows it as canceled, and its dependents do not run."""
    job = enqueue(queue, Cancellable, 5)
    queue.enqueue_call(jobs.plain, args=(9,), depends_on=job)
    if running:
        monkeypatch.setattr(Cancellable, "ask", staticmethod(cancel))
    else:
        cancel(redis, job.id)
    work(queue, poll_seconds=0.0)
    assert done == [*(["start", 0, 1, 2] if running else []), "cancelled"]
    assert job.get_status() == JobStatus.CANCELED
    assert queue.canceled_job_registry.get_job_ids() == [job.id]
    assert len(queue.started_job_registry) == len(queue.failed_job_registry) == 0


def test_a_cancelled_job_does_nothing_when_it_runs_again(
    queue: Queue, redis: Redis, done: list[object]
) -> None:
    """A cancelled job does nothing, even under RQ's own worker, which parks it."""
    job = enqueue(queue, Cancellable, 5)
    cancel(redis, job.id)
    work(queue, Stock, poll_seconds=0.0)
    assert (done, job.get_status()) == (["cancelled"], JobStatus.SCHEDULED)
    resume(queue, job.id)
    work(queue, Stock, poll_seconds=0.0)
    assert (done, job.get_status()) == (["cancelled"], JobStatus.SCHEDULED)
