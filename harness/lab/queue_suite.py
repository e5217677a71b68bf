"""Behaviour suite for queues.

Inherit :class:`QueueSuite` in a test module, and add a fixture ``backend``::

    class TestMyQueue(QueueSuite):
        @pytest.fixture
        def backend(self): ...

``backend`` is a :class:`Backend`. Each test enqueues a job of :mod:`harness.lab.queue_jobs`, runs workers,
and checks the progress and the file that the job wrote. The page *Add a queue* explains the rules.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.lab import queue_jobs as jobs

if TYPE_CHECKING:
    from harness.job import Job
    from harness.progress import Progress

SECONDS = 60
"""Time limit of a wait in a test, in seconds."""


class Backend(Protocol):
    """A queue under test, with its workers."""

    def enqueue(self, job_class: type[Job], *args: Any, job_id: str, retries: int = 0) -> object:
        """Enqueue a job under an id, with a number of retries without a delay."""
        ...

    def work(self, until: Callable[[], bool]) -> None:
        """Run a worker until the condition holds; it may continue for a moment."""
        ...

    def progress(self, job_id: str) -> Progress | None:
        """Return the stored progress of a job."""
        ...

    def request_stop(self, job_id: str) -> object:
        """Ask a job to stop once."""
        ...

    def pause(self, job_id: str) -> object:
        """Ask a job to stop until it is resumed."""
        ...

    def resume(self, job_id: str) -> object:
        """End a pause, and enqueue the job."""
        ...

    def cancel(self, job_id: str) -> object:
        """Ask a job to stop permanently."""
        ...


def wait_until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Return once the condition holds.

    :raises AssertionError: if it does not in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"the condition did not hold within {seconds} s")
        time.sleep(0.01)


class QueueSuite:
    """Rules that every queue follows."""

    def test_a_job_does_each_item_once(self, backend: Backend, tmp_path: Path) -> None:
        """A job runs to its end, and does each item once."""
        path = _file(tmp_path)
        backend.enqueue(jobs.Count, path, 5, job_id="count")
        self._finish(backend, "count")
        assert _lines(path) == ["0", "1", "2", "3", "4"]

    def test_steps_run_in_order(self, backend: Backend, tmp_path: Path) -> None:
        """A job in steps does its steps in order."""
        path = _file(tmp_path)
        backend.enqueue(jobs.InSteps, path, 2, job_id="steps")
        self._finish(backend, "steps")
        assert _lines(path) == ["first 0", "first 1", "second 0", "second 1"]

    def test_an_interrupted_job_goes_on_at_its_cursor(self, backend: Backend, tmp_path: Path) -> None:
        """A job that stops continues automatically, under the same id, after the last item that was done."""
        path = _file(tmp_path)
        backend.enqueue(jobs.Yields, path, 3, job_id="yields")
        progress = self._finish(backend, "yields")
        assert _lines(path) == ["0", "1", "2"]
        assert progress.interruptions >= 2
        assert progress.errors == progress.crashes == 0

    def test_an_async_job_goes_on_at_its_cursor(self, backend: Backend, tmp_path: Path) -> None:
        """An ``async def`` is awaited, and its interruptions are those of any job."""
        path = _file(tmp_path)
        backend.enqueue(jobs.Awaits, path, 3, job_id="awaits")
        progress = self._finish(backend, "awaits")
        assert _lines(path) == ["0", "1", "2"]
        assert progress.interruptions >= 2
        assert progress.errors == progress.crashes == 0

    def test_arguments_keep_their_types(self, backend: Backend, tmp_path: Path) -> None:
        """Arguments arrive equal and of the same type."""
        path = _file(tmp_path)
        backend.enqueue(jobs.Typed, path, date(2031, 5, 1), job_id="typed")
        self._finish(backend, "typed")
        assert _lines(path) == ["date 2031-05-01"]

    def test_hooks_run_once(self, backend: Backend, tmp_path: Path) -> None:
        """A job starts and completes once."""
        path = _file(tmp_path)
        backend.enqueue(jobs.Ends, path, 1, job_id="ends")
        self._finish(backend, "ends")
        assert _lines(path) == ["0", "complete after 1"]

    def test_a_retried_job_goes_on_at_its_cursor(self, backend: Backend, tmp_path: Path) -> None:
        """A retry after an error starts at the item that failed."""
        path = _file(tmp_path)
        backend.enqueue(jobs.Fails, path, 4, job_id="retried", retries=1)
        progress = self._finish(backend, "retried")
        assert _lines(path) == ["0", "1", "2", "3"]
        assert progress.errors == 1

    def test_a_failed_job_that_is_enqueued_again_goes_on(self, backend: Backend, tmp_path: Path) -> None:
        """A job without retries fails, keeps its progress, and continues from it when it is enqueued again."""
        path = _file(tmp_path)
        backend.enqueue(jobs.Fails, path, 4, job_id="failed")
        backend.work(lambda: self._state(backend, "failed") == "failed")
        assert _lines(path) == ["0", "1"]
        backend.enqueue(jobs.Fails, path, 4, job_id="failed")
        self._finish(backend, "failed")
        assert _lines(path) == ["0", "1", "2", "3"]

    def test_a_job_that_is_enqueued_twice_runs_once(self, backend: Backend, tmp_path: Path) -> None:
        """Two enqueues of the same job under one id are one job while it is not over."""
        path = _file(tmp_path)
        backend.enqueue(jobs.Count, path, 3, job_id="twice")
        backend.enqueue(jobs.Count, path, 3, job_id="twice")
        backend.enqueue(jobs.Count, path, 1, job_id="after")
        self._finish(backend, "twice")
        self._finish(backend, "after")
        assert sorted(_lines(path)) == ["0", "0", "1", "2"]

    def test_an_enqueue_after_the_end_begins_again(self, backend: Backend, tmp_path: Path) -> None:
        """An enqueue under the id of a completed job starts a new round."""
        path = _file(tmp_path)
        backend.enqueue(jobs.Count, path, 2, job_id="rounds")
        self._finish(backend, "rounds")
        backend.enqueue(jobs.Count, path, 2, job_id="rounds")
        backend.work(lambda: len(_lines(path)) == 4)
        self._finish(backend, "rounds")
        assert _lines(path) == ["0", "1", "0", "1"]

    def test_a_stop_that_was_requested_happens_once(self, backend: Backend, tmp_path: Path) -> None:
        """A job that was asked to stop stops at a checkpoint, and continues later."""
        path = _file(tmp_path)
        backend.enqueue(jobs.Count, path, 3, 0.2, job_id="stopped")
        backend.request_stop("stopped")
        progress = self._finish(backend, "stopped")
        assert _lines(path) == ["0", "1", "2"]
        assert progress.interruptions == 1

    def test_a_paused_job_waits_for_its_resumption(self, backend: Backend, tmp_path: Path) -> None:
        """A job that is paused does not run before it is resumed."""
        path = _file(tmp_path)
        backend.enqueue(jobs.Count, path, 3, job_id="paused")
        backend.pause("paused")
        backend.work(lambda: self._state(backend, "paused") == "paused")
        assert _lines(path) == []
        backend.resume("paused")
        self._finish(backend, "paused")
        assert _lines(path) == ["0", "1", "2"]

    def test_a_cancelled_job_ends_for_good(self, backend: Backend, tmp_path: Path) -> None:
        """A job that is cancelled runs its on_cancel, and no item."""
        path = _file(tmp_path)
        backend.enqueue(jobs.Ends, path, 3, job_id="cancelled")
        backend.cancel("cancelled")
        backend.work(lambda: self._state(backend, "cancelled") == "cancelled" and bool(_lines(path)))
        assert _lines(path) == ["cancelled"]

    def test_a_parallel_run_does_each_item_once(self, backend: Backend, tmp_path: Path) -> None:
        """The instances of a parallel run together do each item once."""
        path = _file(tmp_path)
        backend.enqueue(jobs.Shared, path, 8, job_id="shared")
        backend.work(
            lambda: all(
                self._state(backend, each) == "completed" for each in ("shared", "shared-0", "shared-1")
            )
        )
        assert sorted(_lines(path)) == [str(number) for number in range(8)]

    def _finish(self, backend: Backend, job_id: str) -> Progress:
        backend.work(lambda: self._state(backend, job_id) == "completed")
        progress = backend.progress(job_id)
        assert progress is not None
        return progress

    def _state(self, backend: Backend, job_id: str) -> str | None:
        progress = backend.progress(job_id)
        return None if progress is None else progress.state


def _file(folder: Path) -> str:
    return str(folder / "lines")


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text("utf-8").split("\n")[:-1] if file.exists() else []
