"""A worker imports only modules that ``HARNESS_JOB_MODULES`` allows, whatever Redis names."""

from __future__ import annotations

import sys

import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus

from harness.boundary.allowed import SETTING, is_allowed
from harness.errors import JobNotAllowed, UnsupportedProgress, UsageError
from harness.job import find_stored
from harness.progress import Progress
from harness.queues.rq import SimpleWorker, enqueue, scale
from harness.queues.rq.places import PERFORM
from harness.runtime.rounds import Call, join
from harness.stores.rq_meta import RQMetaStore
from tests import jobs
from tests.jobs import CountByIteration

UNWANTED = "this"
"""Module of the standard library that nothing imports, so that an import would be visible."""


def work(queue: Queue) -> None:
    """Do all there is to do."""
    SimpleWorker([queue], connection=queue.connection, commands=False).work(
        burst=True, logging_level="CRITICAL"
    )


@pytest.mark.parametrize(
    ("setting", "path", "allowed"),
    [
        ("", "shop.jobs:Import", True), ("shop", "shop.jobs:Import", True), ("shop", "shop:Import", True),
        ("shop", "shopping:Import", False), ("shop.jobs", "shop:Import", False), ("shop.jobs", "shop.jobs.x:J", True),
        ("billing, shop", "shop.jobs:Import", True), ("billing shop", "shop.jobs:Import", True),
        ("shop", "os:system", False), ("shop", "", False), ("shop", ":shop", False), ("shop", "shop\n:x", False),
    ],
)  # fmt: skip
def test_a_name_allows_the_module_and_its_package(
    monkeypatch: pytest.MonkeyPatch, setting: str, path: str, allowed: bool
) -> None:
    """The names in the setting end at a dot or at the end of the module's name."""
    monkeypatch.setenv(SETTING, setting)
    assert is_allowed(path) == allowed


@pytest.mark.parametrize("setting", ["shop-jobs", "shop.*", "shop:Import", "shop..jobs", "1shop"])
def test_a_setting_that_names_no_module_is_refused(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    """A pattern or a class is no module; a setting that allowed nothing by mistake would stop all jobs."""
    monkeypatch.setenv(SETTING, setting)
    with pytest.raises(UsageError, match="HARNESS_JOB_MODULES takes module names"):
        is_allowed("shop.jobs:Import")


def test_a_job_of_another_module_fails_before_its_import(
    queue: Queue, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job of another module fails by name and keeps its progress; nothing is imported, and the next job runs."""
    monkeypatch.setenv(SETTING, "tests.jobs")
    monkeypatch.delitem(sys.modules, UNWANTED, raising=False)
    odd = queue.enqueue_call(PERFORM, args=(f"{UNWANTED}:Import", [], {}), job_id="odd")
    store = RQMetaStore(redis)
    store.claim("odd")
    before = redis.hget(odd.key, "continuation")
    good = enqueue(queue, CountByIteration, 3)
    work(queue)
    assert odd.get_status() == JobStatus.FAILED
    result = odd.latest_result()
    assert result is not None
    assert "JobNotAllowed: the job names the module 'this'" in (result.exc_string or "")
    assert UNWANTED not in sys.modules
    assert redis.hget(odd.key, "continuation") == before
    assert (good.get_status(), jobs.DONE) == (JobStatus.FINISHED, [0, 1, 2])


def test_progress_that_names_another_module_is_refused_before_its_import(
    redis: Redis, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored progress and the job that `scale` copies name a class too."""
    monkeypatch.setenv(SETTING, "tests.jobs")
    monkeypatch.delitem(sys.modules, UNWANTED, raising=False)
    with pytest.raises(UnsupportedProgress, match="may not import"):
        join(Progress("7", job=f"{UNWANTED}:Import", epoch=2, state="interrupted"), CountByIteration, Call())
    queue.enqueue_call(PERFORM, args=(f"{UNWANTED}:Import", [], {}), job_id="odd")
    with pytest.raises(JobNotAllowed, match="allowed modules are tests"):
        scale(redis, "odd", 2)
    assert UNWANTED not in sys.modules


class Moved(CountByIteration):
    """A class that had another name."""

    former_paths = ("shop.gone:Import",)


def test_a_former_name_needs_no_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class is imported already, so its former module need not be allowed."""
    monkeypatch.setenv(SETTING, "tests")
    assert find_stored("shop.gone:Import") is Moved
