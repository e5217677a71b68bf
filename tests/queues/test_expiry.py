"""Messages that are too old, by Celery's ``expires`` or Dramatiq's ``max_age``, end no job that has started."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from harness import IterationJob, items
from harness.lab.queue_jobs import Count
from harness.lab.queue_suite import wait_until
from harness.queues import celery, dramatiq, requests
from harness.sources.enumerators import Enumerator
from tests.queues.backends import OnCelery, OnDramatiq
from tests.queues.fleet import lines

QUEUES = pytest.mark.parametrize("kind", [OnCelery, OnDramatiq])
SECONDS = 2.0


class Outlasts(IterationJob):
    """Is interrupted when its message is too old."""

    done: list[int] = []  # noqa: RUF012 - of the test
    stop: Any = None

    def build_enumerator(self, *, cursor: Any) -> Enumerator[int]:
        """Go through four numbers."""
        return items(range(4), cursor=cursor)

    def each_iteration(self, item: int) -> None:
        """Do one number."""
        type(self).done.append(item)
        if item == 1:
            sent = time.monotonic()
            wait_until(lambda: time.monotonic() - sent > SECONDS)
            type(self).stop()


def enqueue(backend: Any, job_class: Any, *args: Any, seconds: float = SECONDS) -> None:
    """Enqueue a job whose message becomes too old."""
    if isinstance(backend, OnCelery):
        celery.enqueue(backend.app, job_class, *args, options={"task_id": "job", "expires": seconds})
    else:
        options = {"message_id": "job", "max_age": int(seconds * 1000) + 1}
        dramatiq.enqueue(backend.broker, job_class, *args, options=options)


def over(backend: Any) -> bool:
    """Return whether the job is over."""
    return bool(backend.queue.tickets.read("job").get("state") == "over")


@QUEUES
def test_a_job_that_has_started_does_not_expire(
    kind: Any, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is interrupted after its message's time goes on to its end."""
    backend = kind(real_redis)
    monkeypatch.setattr(Outlasts, "done", [])
    monkeypatch.setattr(Outlasts, "stop", lambda: requests.request_stop(real_redis, "job"))
    enqueue(backend, Outlasts)
    backend.work(lambda: over(backend))
    assert backend.queue.tickets.read("job")["outcome"] == "completed"
    assert Outlasts.done == [0, 1, 2, 3]


@QUEUES
def test_a_job_that_was_never_started_expires_once(kind: Any, real_redis: Redis, tmp_path: Path) -> None:
    """A message that is too old ends its job, which is over then; the next round of the id runs."""
    backend, path = kind(real_redis), tmp_path / "lines"
    enqueue(backend, Count, str(path), 2, seconds=0.001)
    sent = datetime.now(UTC)
    wait_until(lambda: (datetime.now(UTC) - sent).total_seconds() > 0.1)
    backend.work(lambda: over(backend))
    assert backend.queue.tickets.read("job")["outcome"] in {"cancelled", "failed"}
    assert not path.exists()
    backend.enqueue(Count, str(path), 2, job_id="job")
    backend.work(lambda: over(backend))
    assert lines(path) == ["0", "1"]


def test_a_message_that_joins_a_job_does_not_end_it_when_it_is_too_old(
    real_redis: Redis, tmp_path: Path
) -> None:
    """A time of a schedule that joins a waiting job, and expires before it is delivered, is dropped alone."""
    backend, path = OnCelery(real_redis), tmp_path / "lines"
    celery.enqueue(backend.app, Count, str(path), 2, options={"task_id": "job", "countdown": 1})
    ticket = backend.queue.tickets.read("job")
    call = [Count.path(), [str(path), 2], {}]
    backend.app.send_task(
        "harness.job", call, task_id="job", expires=0.001, queue=backend.app.main, ignore_result=True
    )
    backend.work(lambda: over(backend))
    assert ticket["n"] == "1"
    assert backend.queue.tickets.read("job")["outcome"] == "completed"
    assert lines(path) == ["0", "1"]
