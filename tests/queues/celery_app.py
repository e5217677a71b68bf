"""A Celery app whose servers are in the environment, as a worker of the tests imports it."""

from __future__ import annotations

import os
import time

from celery import Celery

from harness.lab.queue_jobs import Count
from harness.lab.queue_jobs import note as note_line
from harness.queues import celery as harness_celery

app = Celery("tests", broker=os.environ["TEST_BROKER"], backend=os.environ["TEST_BACKEND"])
app.conf.update(
    broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1, result_expires=3600,
    broker_channel_error_retry=True,
    broker_transport_options={"visibility_timeout": float(os.environ.get("TEST_VISIBILITY", "3600"))},
)  # fmt: skip
harness_celery.install(app, redis=os.environ["TEST_REDIS"])
if "TEST_BEAT" in os.environ:
    app.conf.beat_schedule = {
        "nightly": {
            "task": "harness.job", "schedule": 0.5, "options": {"task_id": "nightly"},
            "args": [Count.path(), [os.environ["TEST_BEAT"], 60, 0.1], {}],
        }
    }  # fmt: skip


@app.task(shared=False)  # type: ignore[untyped-decorator]  # one process of the tests makes several apps
def note(path: str, line: str = "noted") -> str:
    """Append a line to a file."""
    with open(path, "a", encoding="utf-8") as file:  # noqa: PTH123 - as short as a tutorial's task
        file.write(line + "\n")
    return line


@app.task(shared=False)  # type: ignore[untyped-decorator]  # Celery has no types
def stamp(path: str) -> None:
    """Note the time when it starts."""
    note_line(path, time.time())
