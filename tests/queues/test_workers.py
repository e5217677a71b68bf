"""Real workers of Celery and Dramatiq: signals, kills, late deliveries, and what starts after a job."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.lab.queue_jobs import Count, Fails
from harness.lab.queue_suite import wait_until
from harness.queues.tickets import Sending
from tests.queues.fleet import PATIENCE, Fleet, lines, wait_for_lines

NUMBERS, PACE = 30, 0.05
FULL = pytest.mark.full
KINDS = pytest.mark.parametrize("kind", ["celery", "dramatiq"])
SIGNALS = [
    ("celery", signal.SIGTERM), pytest.param("celery", signal.SIGINT, marks=FULL),
    pytest.param("celery", signal.SIGQUIT, marks=FULL),
    ("dramatiq", signal.SIGTERM), pytest.param("dramatiq", signal.SIGINT, marks=FULL),
]  # fmt: skip


def started(fleet: Fleet, path: Path, job_id: str = "job") -> object:
    """Start a worker and a job, and return the job's result handle once a few items are done."""
    handle = fleet.enqueue(Count, str(path), NUMBERS, PACE, job_id=job_id)
    fleet.start()
    wait_for_lines(path, 3)
    return handle


def finished(fleet: Fleet, handle: object, path: Path, *, executions: int) -> None:
    """Check that a job has done each item once, and that its first caller gets the result of the whole job.

    Another process of the same Dramatiq worker may run the job for a moment before it leaves too.
    """
    result = fleet.result(handle)
    assert (result["done"], result["total"]) == (NUMBERS, NUMBERS)
    assert executions <= result["executions"] <= executions + (executions > 1 and fleet.kind == "dramatiq")
    assert lines(path) == [str(number) for number in range(NUMBERS)]


@pytest.mark.parametrize(("kind", "number"), SIGNALS)
def test_a_worker_that_leaves_gives_its_job_back(
    kind: str, number: signal.Signals, fleets: Callable[..., Fleet], tmp_path: Path
) -> None:
    """A job whose worker is asked to leave is back in its queue before the worker has left, and is no failure."""
    path, fleet = tmp_path / "lines", fleets(kind, "redis")
    handle = started(fleet, path)
    fleet.signal(number)
    fleet.wait()
    assert fleet.state("job") in {"waiting", "reserved"}
    progress = fleet.queue.store.load("job")
    assert (progress.state, progress.errors, progress.crashes) == ("interrupted", 0, 0)
    fleet.start()
    finished(fleet, handle, path, executions=2)
    assert fleet.queue.tickets.read("job").get("retries") is None


@KINDS
@pytest.mark.parametrize("victim", ["process", "all"])
def test_a_killed_worker_gives_its_job_back(
    kind: str, victim: str, fleets: Callable[..., Fleet], tmp_path: Path
) -> None:
    """A job whose process is killed goes on at its cursor, and at most the item in progress is done again."""
    path, fleet = tmp_path / "lines", fleets(kind, "redis")
    handle = started(fleet, path)
    if victim == "process":
        owner = fleet.owner("job")
        assert owner is not None
        os.kill(owner, signal.SIGKILL)
    else:
        fleet.kill_all()
    if victim == "all" or kind == "dramatiq":  # Dramatiq's main process leaves when it misses one
        fleet.wait()
        fleet.kill_all()
        fleet.start()
    result = fleet.result(handle)
    assert result["done"] == NUMBERS
    done = lines(path)
    assert sorted(set(done), key=int) == [str(number) for number in range(NUMBERS)]
    assert len(done) <= NUMBERS + 1
    progress = fleet.queue.store.load("job")
    assert (progress.crashes, progress.errors) == (1, 0)


@pytest.mark.sample(1)
@KINDS
def test_a_message_that_comes_again_does_nothing(
    kind: str, fleets: Callable[..., Fleet], tmp_path: Path
) -> None:
    """A second delivery of a message finds the job running or completed, and leaves it alone."""
    path, fleet = tmp_path / "lines", fleets(kind, "redis")
    handle = started(fleet, path)
    ticket = fleet.queue.tickets.read("job")
    copy = Sending("job", int(ticket["n"]), ticket["message"])
    fleet.queue.send(copy)
    finished(fleet, handle, path, executions=1)
    fleet.queue.send(copy)
    after = fleet.enqueue(Count, str(tmp_path / "after"), 1, job_id="after")
    fleet.result(after)
    assert len(lines(path)) == NUMBERS
    assert fleet.queue.store.load("job").epoch == 1


@pytest.mark.sample(1)
@KINDS
def test_what_follows_a_job_starts_once(kind: str, fleets: Callable[..., Fleet], tmp_path: Path) -> None:
    """The next task of a chain or pipeline starts once, after the whole job, and not after a fork of it."""
    path, noted, fleet = tmp_path / "lines", tmp_path / "noted", fleets(kind, "redis")
    if kind == "celery":
        first = fleet.api.signature(fleet.app, Count, str(path), NUMBERS, PACE, options={"task_id": "job"})
        last = (first | fleet.module.note.si(str(noted))).apply_async()
    else:
        first = fleet.api.message(fleet.app, Count, str(path), NUMBERS, PACE, options={"message_id": "job"})
        last = first | fleet.module.note.message_with_options(args=(str(noted),), pipe_ignore=True)
        last.run()
    fleet.start()
    wait_for_lines(path, 3)
    fleet.signal(signal.SIGTERM)
    fleet.wait()
    assert not noted.exists()
    fleet.start()
    wait_until(noted.exists, PATIENCE)
    assert len(lines(path)) == NUMBERS
    wait_until(lambda: fleet.state("job") == "over", PATIENCE)
    fleet.queue.fork("job", cursor=NUMBERS - 2, new_id="fork")
    wait_until(lambda: fleet.state("fork") == "over", PATIENCE)
    assert lines(path)[NUMBERS:] == [str(NUMBERS - 1)]
    fleet.result(fleet.enqueue(Count, str(tmp_path / "after"), 1, job_id="after"))
    assert lines(noted) == ["noted"]


@pytest.mark.parametrize("kind", ["celery", pytest.param("dramatiq", marks=FULL)])
def test_a_delayed_job_waits(kind: str, fleets: Callable[..., Fleet], tmp_path: Path) -> None:
    """A job with a countdown or a delay starts after that time, also if its worker is killed while it waits."""
    path, fleet = tmp_path / "lines", fleets(kind, "redis", HARNESS_RECOVER_SECONDS="3")
    options = {"countdown": 5} if kind == "celery" else {"delay": 5000}
    enqueued = time.time()
    handle = fleet.enqueue(Count, str(path), 2, job_id="job", **options)
    before = fleet.enqueue(Count, str(tmp_path / "before"), 1, job_id="before")
    fleet.start()
    fleet.result(before)
    fleet.kill_all()
    fleet.start()
    assert fleet.result(handle)["done"] == 2
    assert lines(path) == ["0", "1"]
    assert path.stat().st_ctime - enqueued > 4.9


@pytest.mark.parametrize("kind", ["celery", pytest.param("dramatiq", marks=FULL)])
def test_a_failure_is_the_queues_own(kind: str, fleets: Callable[..., Fleet], tmp_path: Path) -> None:
    """What a job raises without retries is the result that its caller gets."""
    path, fleet = tmp_path / "lines", fleets(kind, "redis")
    handle = fleet.enqueue(Fails, str(path), 4, job_id="job")
    fleet.start()
    with pytest.raises(Exception, match="cannot do 2"):
        fleet.result(handle)
    wait_until(lambda: fleet.state("job") == "over", PATIENCE)
    assert fleet.queue.tickets.read("job")["outcome"] == "failed"


@KINDS
def test_tickets_hold_json(kind: str, fleets: Callable[..., Fleet], tmp_path: Path) -> None:
    """A ticket holds the message as JSON, with the arguments in stored form."""
    fleet = fleets(kind, "redis")
    fleet.enqueue(Count, str(tmp_path / "lines"), 2, job_id="job")
    stored = json.loads(fleet.queue.tickets.read("job")["message"])
    call = stored["body"][0] if kind == "celery" else stored["args"]
    assert call == [Count.path(), [str(tmp_path / "lines"), 2], {}]
