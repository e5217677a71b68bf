"""A Django project with django-rq, made of the files that docs/adopting.md shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job as RQJob
from rq.job import JobStatus

from harness import UsageError
from harness.queues.rq import enqueue
from tests.documents import ROOT
from tests.jobs import CountByIteration
from tests.workers import PATIENCE

needs_django = pytest.mark.skipif(
    find_spec("django_rq") is None, reason="needs django-rq, which the dev group installs"
)

FILE = re.compile(r"^```(?:py|python) ([\w/]+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

SETUP = """
import django
django.setup()
from django.db import transaction
from django_rq import get_queue
from harness import UsageError
from harness.queues.rq import enqueue
from shop.jobs import SendReminders
from shop_site.reminders import remind
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with the files of the page."""
    for name, text in FILE.findall((ROOT / "docs" / "adopting.md").read_text(encoding="utf-8")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def run(project: Path, url: str, *arguments: str) -> str:
    """Run Python in the project, and return its output."""
    environment = {**os.environ, "HARNESS_REDIS_URL": url, "DJANGO_SETTINGS_MODULE": "shop_site.settings"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=project, env={**environment, "PYTHONPATH": str(project)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@needs_django
def test_the_project_of_the_page_works(project: Path, redis_url: str, broker: Redis) -> None:
    """Enqueued at the commit, not at a rollback, and done by ``manage.py rqworker`` with our worker."""
    script = SETUP + (
        "with transaction.atomic():\n"
        "    remind(['ada', 'bob'], 'kept')\n"
        "    print('before the commit:', get_queue('long').job_ids)\n"
        "try:\n"
        "    with transaction.atomic():\n"
        "        remind(['cleo'], 'rolled-back')\n"
        "        raise KeyError\n"
        "except KeyError:\n"
        "    print('after it:', get_queue('long').job_ids)\n"
    )
    said = run(project, redis_url, "-c", script)
    assert "before the commit: []\nafter it: ['kept']\n" in said
    said = run(project, redis_url, "-m", "django", "rqworker", "long", "--burst")
    assert "long: SendReminders(['ada', 'bob']) (kept)" in said
    job = RQJob.fetch("kept", connection=broker, serializer="json")
    assert job.get_status() == JobStatus.FINISHED
    assert broker.hget(job.key, "continuation") is not None


@needs_django
def test_a_queue_that_enqueues_later_is_refused_by_name(project: Path, redis_url: str, broker: Redis) -> None:
    """In a transaction the queue is refused, with what to use; outside of one, django-rq's default works."""
    script = SETUP + (
        "queue = get_queue('long')\n"
        "try:\n"
        "    with transaction.atomic():\n"
        "        enqueue(queue, SendReminders, ['ada'])\n"
        "except UsageError as error:\n"
        "    print(error, queue.job_ids)\n"
        "enqueue(queue, SendReminders, ['bob'], options={'job_id': 'outside'})\n"
    )
    said = run(project, redis_url, "-c", script)
    assert "queue 'long' (DjangoRQ) enqueues later" in said
    assert "commit_mode='auto'), and call enqueue() in transaction.on_commit() []" in said
    assert broker.lrange("rq:queue:long", 0, -1) == [b"outside"]


class Later(Queue):
    """A queue that enqueues its jobs at another time."""

    def enqueue_call(self, *_: object, **__: object) -> None:  # type: ignore[override]
        """Return no job."""


def test_any_queue_class_that_returns_no_job_is_refused(redis: Redis) -> None:
    """Such a queue class is refused, and the attempt leaves nothing behind."""
    with pytest.raises(UsageError, match=r"queue 'test' \(Later\) enqueues later"):
        enqueue(Later("test", connection=redis, serializer="json"), CountByIteration, 3)
    assert redis.dbsize() == 0
