"""Jobs of Celery and Dramatiq on the monitor, for the commands and on the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from harness.errors import UsageError
from harness.lab.queue_jobs import Count, Fails
from harness.lab.queue_suite import wait_until
from harness.monitor import Monitor
from harness.monitor import lines as drawn_lines
from harness.monitor.snapshot import JobRow, Snapshot
from harness.queues import keys
from harness.queues.ticket_jobs import KINDS
from harness.queues.watching import Watcher
from harness.web.actions import act
from tests.commands import harness
from tests.queues.backends import OnCelery, OnDramatiq
from tests.queues.fleet import PATIENCE, Fleet, wait_for_lines

BOTH = pytest.mark.parametrize("kind", [OnCelery, OnDramatiq])


def seen(connection: Redis, *queues: str) -> Snapshot:
    """Look once."""
    return Monitor(Watcher(connection, queues)).refresh()


def rows(connection: Redis) -> dict[str, JobRow]:
    """Return the jobs that a look shows, by id."""
    return {row.id: row for row in seen(connection).jobs}


@BOTH
def test_a_job_is_shown_from_its_enqueue_to_its_end(kind: Any, real_redis: Redis, tmp_path: Path) -> None:
    """A job with a ticket waits, pauses, and is finished or failed on the monitor, as one of RQ."""
    backend, path = kind(real_redis), str(tmp_path / "lines")
    name = KINDS[backend.queue.kind]
    backend.enqueue(Count, path, 3, job_id="job")
    row = rows(real_redis)["job"]
    assert (row.state, row.name, row.done) == ("queued", f'Count("{path}", 3)', None)
    assert seen(real_redis).queues[name]["queued"] == 1
    backend.pause("job")
    backend.work(lambda: backend.queue.tickets.read("job")["state"] == "parked")
    assert rows(real_redis)["job"].state == "paused"
    assert seen(real_redis).queues[name]["scheduled"] == 1
    backend.resume("job")
    backend.enqueue(Fails, path, 4, job_id="bad")
    backend.work(lambda: not backend.queue.tickets.open_jobs())
    ended = rows(real_redis)
    assert (ended["job"].state, ended["job"].done, ended["job"].executions) == ("finished", 3, 2)
    assert ended["bad"].state == "failed"
    counts = seen(real_redis).queues[name]
    assert (counts["queued"], counts["finished"], counts["failed"]) == (0, 1, 1)
    screen = "\n".join(line.plain for line in drawn_lines(seen(real_redis), "redis"))
    assert "Count(" in screen
    assert name in screen
    backend.enqueue(Fails, path, 4, job_id="bad")
    assert seen(real_redis).queues[name]["failed"] == 0


@BOTH
def test_the_page_steers_a_job(kind: Any, real_redis: Redis, tmp_path: Path) -> None:
    """The page pauses, resumes and cancels a job with a ticket, and refuses what does not fit its state."""
    backend = kind(real_redis)
    backend.enqueue(Count, str(tmp_path / "lines"), 3, job_id="job")
    assert "will pause" in act(real_redis, "pause", "job", "ada")
    backend.work(lambda: rows(real_redis)["job"].state == "paused")
    assert "resumes when a worker" in act(real_redis, "resume", "job", "ada")
    assert rows(real_redis)["job"].state == "queued"
    assert "will be cancelled" in act(real_redis, "cancel", "job", "ada")
    backend.work(lambda: rows(real_redis)["job"].state == "canceled")
    with pytest.raises(UsageError, match="job job is over: cancelled"):
        act(real_redis, "pause", "job", "ada")
    assert [event.what for event in seen(real_redis).events if "ada" in event.what]


def test_a_queue_that_is_named_shows_its_jobs_alone(real_redis: Redis, tmp_path: Path) -> None:
    """With the names of queues, jobs of other queues are absent."""
    backend = OnCelery(real_redis)
    backend.enqueue(Count, str(tmp_path / "lines"), 3, job_id="job")
    assert [row.id for row in seen(real_redis, backend.app.main).jobs] == ["job"]
    assert seen(real_redis, "other").jobs == ()
    assert "Celery" not in seen(real_redis, "other").queues


@BOTH
def test_jobs_that_are_not_listed_are_counted(kind: Any, real_redis: Redis, tmp_path: Path) -> None:
    """The monitor lists 60 unfinished jobs of a kind, and says how many others wait, are paused, or are over."""
    backend, path = kind(real_redis), str(tmp_path / "lines")
    for number in range(7):
        backend.enqueue(Count, path, 1, job_id=f"early-{number}")
    backend.pause("early-0")
    backend.pause("early-1")
    backend.work(lambda: set(backend.queue.tickets.open_jobs()) == {"early-0", "early-1"})
    for number in range(61):
        backend.enqueue(Count, path, 1, job_id=f"job-{number}")
    snapshot = seen(real_redis)
    assert len(snapshot.jobs) == 60 + 4
    assert snapshot.unlisted == {"queued": 1, "scheduled": 2, "finished": 1}
    assert snapshot.more["jobs"] == 4
    asked, _ = Monitor(Watcher(real_redis)).look(["early-0"])
    assert asked.unlisted == {"queued": 1, "scheduled": 1, "finished": 1}


def test_tickets_that_cannot_be_read_are_left_out_by_name(real_redis: Redis) -> None:
    """What another program wrote in the place of tickets is left out, and the look says so."""
    real_redis.zadd(keys.due("celery"), {"odd": 1, "gone": 2})
    real_redis.set(keys.ticket("odd"), "text")
    real_redis.set(keys.due("dramatiq"), "text")
    snapshot = seen(real_redis)
    assert snapshot.jobs == ()
    assert any("the ticket of job odd" in each for each in snapshot.left_out)
    assert any("the tickets of Dramatiq" in each for each in snapshot.left_out)


@pytest.mark.parametrize("kind", ["celery", pytest.param("dramatiq", marks=pytest.mark.full)])
def test_a_job_at_work_is_shown_and_its_process_killed(
    kind: str, fleets: Callable[..., Fleet], tmp_path: Path
) -> None:
    """The monitor shows a running job and its worker, and `harness interrupt --kill horse` kills its process."""
    path, fleet = tmp_path / "lines", fleets(kind, "redis")
    url = fleet.settings["TEST_REDIS"]
    fleet.enqueue(Count, str(path), 100_000, 0.05, job_id="job")
    fleet.start()
    wait_for_lines(path, 2)
    wait_until(lambda: rows(fleet.queue.connection)["job"].state == "running", PATIENCE)
    owner = fleet.owner("job")
    assert owner is not None
    assert (
        f"sent SIGKILL to horse {owner}"
        in harness("interrupt", "job", "--kill", "horse", "--redis", url).output
    )
    assert harness("interrupt", "job", "--signal", "TERM", "--redis", url).exit_code == 2
    if kind == "dramatiq":  # its main process leaves with any of its processes
        fleet.wait()
        fleet.start()
    wait_until(lambda: fleet.owner("job") not in {None, owner}, PATIENCE)
    wait_until(lambda: rows(fleet.queue.connection)["job"].crashes == 1, PATIENCE)
    told = harness("status", "--redis", url).output
    assert "running" in told
