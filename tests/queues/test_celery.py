"""Celery alone: revocation, Beat's schedule, cold shutdown, and the parts of Celery that are not public."""

from __future__ import annotations

import inspect
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import signals
from celery.exceptions import TaskRevokedError
from celery.worker.request import Request
from kombu.connection import Connection

from harness.errors import UsageError
from harness.lab.queue_jobs import Count
from harness.lab.queue_suite import wait_until
from harness.queues.celery.task import JobRequest, Perform
from tests.queues.fleet import PATIENCE, Fleet, lines, wait_for_lines


@pytest.mark.parametrize("name", ["on_failure", "on_timeout", "cancel"])
def test_the_request_still_has_what_is_overridden(name: str) -> None:
    """Celery's Request has the methods that this package overrides, with the same parameters."""
    theirs, ours = getattr(Request, name), getattr(JobRequest, name)
    assert list(inspect.signature(theirs).parameters) == list(inspect.signature(ours).parameters)


@pytest.mark.parametrize("name", ["on_success", "on_failure"])
def test_the_task_still_has_its_handlers(name: str) -> None:
    """Celery's Task has the handlers that close a ticket, with the same parameters."""
    theirs, ours = getattr(Perform.__mro__[1], name), getattr(Perform, name)
    assert list(inspect.signature(theirs).parameters) == list(inspect.signature(ours).parameters)


@pytest.mark.parametrize(
    "name",
    [
        "before_task_publish", "after_task_publish", "task_received", "task_revoked", "worker_init", "worker_ready",
        "worker_shutting_down", "worker_shutdown", "task_postrun",
    ],
)  # fmt: skip
def test_celery_still_has_the_signals(name: str) -> None:
    """Celery has each signal that an app is connected to."""
    assert hasattr(signals, name)


def test_a_job_that_beat_sends_again_runs_once(fleets: Callable[..., Fleet], tmp_path: Path) -> None:
    """A time of Celery Beat's schedule that comes while the job is not over joins it."""
    path, log = tmp_path / "lines", tmp_path / "beat"
    fleet = fleets("celery", "redis", TEST_BEAT=str(path))
    fleet.start()
    beat = fleet.spawn(
        log, "celery", "-A", "tests.queues.celery_app", "beat", "-l", "INFO", "--pidfile=",
        "-s", str(tmp_path / "schedule"), "--max-interval", "1",
    )  # fmt: skip

    def sent(number: int) -> bool:
        assert beat.poll() is None, log.read_text()
        return log.read_text().count("Sending due task") >= number and len(lines(path)) > 0

    try:
        wait_until(lambda: sent(1), PATIENCE)
        before = log.read_text().count("Sending due task")
        wait_until(lambda: sent(before + 2), PATIENCE)
    finally:
        beat.terminate()
        beat.wait(PATIENCE)
    assert fleet.state("nightly") == "running"
    wait_until(lambda: fleet.state("nightly") == "over", PATIENCE)
    fleet.result(fleet.enqueue(Count, str(tmp_path / "after"), 1, job_id="after"))
    assert lines(path) == [str(number) for number in range(60)]
    assert fleet.queue.store.load("nightly").epoch == 1


def test_a_revoked_job_is_cancelled(fleets: Callable[..., Fleet], tmp_path: Path) -> None:
    """A revoked job that runs stops at its next checkpoint for good, and its caller gets TaskRevokedError."""
    path, fleet = tmp_path / "lines", fleets("celery", "redis")
    handle = fleet.enqueue(Count, str(path), 2000, 0.05, job_id="job")
    fleet.start()
    wait_for_lines(path, 3)
    fleet.app.control.revoke("job", terminate=True)
    with pytest.raises(TaskRevokedError):
        fleet.result(handle)
    wait_until(lambda: fleet.state("job") == "over", PATIENCE)
    assert fleet.queue.tickets.read("job")["outcome"] == "cancelled"


def test_another_job_under_the_same_id_is_refused(fleets: Callable[..., Fleet], tmp_path: Path) -> None:
    """An enqueue of another job under the id of one that is not over is refused."""
    fleet = fleets("celery", "redis")
    fleet.enqueue(Count, str(tmp_path), 2, job_id="job")
    with pytest.raises(UsageError, match="job 'job' has another class or other arguments, and is waiting"):
        fleet.enqueue(Count, str(tmp_path), 3, job_id="job")


@pytest.mark.full
def test_a_worker_waits_for_the_control_queue_of_its_predecessor(
    fleets: Callable[..., Fleet], rabbitmq_url: str, tmp_path: Path
) -> None:
    """A worker that retries channel errors starts once RabbitMQ has heard of the death of the one before."""
    fleet = fleets("celery", "rabbitmq")
    handle = fleet.enqueue(Count, str(tmp_path / "lines"), 3, job_id="job")
    with Connection(rabbitmq_url) as dead:
        name = f"celery@{socket.gethostname()}.celery.pidbox"
        dead.default_channel.queue_declare(name, exclusive=True, auto_delete=True)
        fleet.start()
        wait_until(lambda: fleet.log.exists() and "RESOURCE_LOCKED" in fleet.log.read_text(), PATIENCE)
    assert fleet.result(handle)["done"] == 3


@pytest.mark.parametrize("pool", ["threads", pytest.param("solo", marks=pytest.mark.full)])
def test_other_pools_stop_and_resume(pool: str, fleets: Callable[..., Fleet], tmp_path: Path) -> None:
    """A job in a pool of threads, or without a pool, is back before its worker leaves."""
    path, fleet = tmp_path / "lines", fleets("celery", "redis")
    handle = fleet.enqueue(Count, str(path), 60, 0.05, job_id="job")
    fleet.start("--pool", pool)
    wait_for_lines(path, 3)
    fleet.signal(signal.SIGTERM)
    fleet.wait()
    assert fleet.state("job") in {"waiting", "reserved"}
    fleet.start("--pool", pool)
    assert fleet.result(handle)["done"] == 60
    assert lines(path) == [str(number) for number in range(60)]
