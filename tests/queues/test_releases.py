"""Releases that take turns: a class that moved, and workers that do not know a job or its steps."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job as RQJob
from rq.job import JobStatus

from harness import (
    ContinuableJob,
    InlineRun,
    IterationJob,
    JobDefinitionError,
    UnsupportedProgress,
    every,
    items,
)
from harness.job import Job
from harness.progress import Progress
from harness.queues.rq import SimpleWorker, enqueue
from harness.queues.rq.requests import PERFORM
from harness.stores.memory import MemoryStore
from harness.stores.rq_meta import FIELD, RQMetaStore
from tests.jobs import DONE
from tests.meddling import recover_at_once
from tests.queues.test_rq import Stock, work


class Numbers(IterationJob, abstract=True):
    """Does five numbers."""

    durability = every(items=1)
    stops = False

    def build_enumerator(self, *, cursor: Any) -> Any:
        """Go through the numbers."""
        return items(range(5), cursor=cursor)

    def each_iteration(self, item: int) -> None:
        """Do one."""
        DONE.append(item)

    def should_stop(self) -> bool:
        """Return True in the middle of the work, if the class asks for a stop."""
        return self.stops and DONE[-1:] == [2]


@pytest.fixture
def shop() -> Iterator[ModuleType]:
    """Yield a module that a release is deployed into."""
    module = ModuleType("shop_jobs")
    sys.modules["shop_jobs"] = module
    yield module
    for name in [name for name in sys.modules if name.startswith("shop_")]:
        del sys.modules[name]


def deploy(module: ModuleType, name: str, base: Any = Numbers, **members: Any) -> Any:
    """Define a job class in a module, instead of its present contents."""
    for each in [each for each in vars(module) if not each.startswith("_")]:
        delattr(module, each)
    found = type(base)(name, (base,), {"__module__": module.__name__, "__qualname__": name, **members})
    setattr(module, name, found)
    return found


def moved(shop: ModuleType, job: type[Job]) -> None:
    """Leave an alias under the old name."""
    new = ModuleType("shop_new")
    sys.modules["shop_new"] = new
    shop.Moved = deploy(new, "Moved")  # type: ignore[attr-defined]


def renamed(shop: ModuleType, job: type[Job]) -> None:
    """Give the class another name, and declare the former one."""
    deploy(shop, "Synchronise", former_paths=("shop_jobs:Moved",))


@pytest.mark.parametrize("change", [moved, renamed])
def test_a_job_goes_on_when_its_class_has_another_name(
    queue: Queue, shop: ModuleType, done: list[Any], change: Callable[[ModuleType, type[Job]], None]
) -> None:
    """Moved with an alias left behind, or renamed with the former name declared: it goes on at its cursor."""
    old = deploy(shop, "Moved", stops=True)
    job = enqueue(queue, old)
    work(queue, max_jobs=1)
    assert (done, job.get_status()) == ([0, 1, 2], JobStatus.QUEUED)
    change(shop, old)
    work(queue)
    assert (done, job.get_status()) == ([0, 1, 2, 3, 4], JobStatus.FINISHED)


def test_a_class_that_was_renamed_has_its_jobs_under_its_former_name_too(shop: ModuleType) -> None:
    """Progress under the old and the new name is accepted; an unknown class is left to a release that has it."""
    new = deploy(shop, "Synchronise", former_paths=("shop_gone:Sync",))
    store = MemoryStore()
    for path in ("shop_gone:Sync", "shop_jobs:Synchronise"):
        store._texts["7"] = Progress("7", job=path, epoch=1, ended=1, state="interrupted").to_json()
        assert InlineRun(new, job_id="7", store=store).execute().outcome == "completed"
    store._texts["7"] = Progress("7", job="shop_none:Sync", epoch=1, ended=1, state="interrupted").to_json()
    with pytest.raises(UnsupportedProgress, match="belongs to shop_none:Sync, which this code does not have"):
        InlineRun(new, job_id="7", store=store).execute()


@pytest.mark.parametrize("paths", ["shop:Sync", ["shop:Sync"], ("Sync",), (3,)])
def test_former_names_are_checked_when_the_class_is_defined(paths: Any) -> None:
    """The error says what is allowed."""
    with pytest.raises(
        JobDefinitionError, match=r"former_paths takes a tuple of names such as \('shop.jobs:Import',\)"
    ):
        type("Wrong", (Numbers,), {"former_paths": paths})


class Import(ContinuableJob, abstract=True):
    """Takes the steps that it has."""

    names: tuple[str, ...] = ()

    def perform(self) -> None:
        """Take them."""
        for name in self.names:
            self.step(name, isolated=True)

    def load(self) -> None:
        """Take a step."""
        DONE.append("load")

    def price(self) -> None:
        """Take a step."""
        DONE.append("price")

    def mail(self) -> None:
        """Take a step."""
        DONE.append("mail")


def new_class(queue: Queue, shop: ModuleType) -> tuple[RQJob, Callable[[], object]]:
    """Enqueue a job of a class that the old release does not have."""
    job = enqueue(queue, deploy(shop, "Sync"))
    deploy(shop, "Other")
    return job, lambda: deploy(shop, "Sync")


def new_step(queue: Queue, shop: ModuleType) -> tuple[RQJob, Callable[[], object]]:
    """Have the new release take a step that the old one does not have."""
    job = enqueue(queue, deploy(shop, "Imports", Import, names=("load", "mail", "price")))
    work(queue, max_jobs=2)
    deploy(shop, "Imports", Import, names=("load", "price"))
    return job, lambda: deploy(shop, "Imports", Import, names=("load", "mail", "price"))


def new_format(queue: Queue, shop: ModuleType) -> tuple[RQJob, Callable[[], object]]:
    """Have progress in a format of the future."""
    job = enqueue(queue, deploy(shop, "Sync"))
    queue.connection.hset(job.key, FIELD, '{"version": 99}')
    return job, lambda: queue.connection.hdel(job.key, FIELD)


@pytest.mark.parametrize("worker", [SimpleWorker, Stock], ids=["ours", "RQ's"])
@pytest.mark.parametrize("deployed", [new_class, new_step, new_format])
def test_a_worker_that_does_not_know_a_job_leaves_it_to_others(
    real_redis: Redis, shop: ModuleType, deployed: Any, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown job waits for a worker that knows it, and counts as neither failed nor retried."""
    queue = Queue("test", connection=real_redis, serializer="json")
    job, new_release = deployed(queue, shop)
    real_redis.set("harness:sweep", "1")  # a key of a harness worker that sweeps
    work(queue, worker)
    job.refresh()
    assert (job.get_status(), job.retries_left) == (JobStatus.SCHEDULED, None)
    assert queue.scheduled_job_registry.get_job_ids() == [job.id]
    new_release()
    due(real_redis, queue)
    work(queue)
    assert job.get_status() == JobStatus.FINISHED
    assert not queue.failed_job_registry.get_job_ids()


def due(connection: Redis, queue: Queue) -> None:
    """Have the delays of all jobs be over."""
    members: list[Any] = connection.zrange(queue.scheduled_job_registry.key, 0, -1)
    for member in members:
        connection.zadd(queue.scheduled_job_registry.key, {member: 1})
        connection.zadd("harness:delayed", {member: 1})
    recover_at_once(connection)


@pytest.mark.parametrize(
    ("deployed", "reason"),
    [
        (new_class, "UsageError: 'shop_jobs:Sync' cannot be found: shop_jobs has no 'Sync'"),
        (new_step, "StepsChanged: Step 'price' found, expected to see 'mail'"),
        (new_format, "UnsupportedProgress: the progress of job .* was written in format version 99"),
    ],
)
def test_a_job_that_no_worker_knows_fails_by_name(
    real_redis: Redis, shop: ModuleType, deployed: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job fails after the maximum number of tries in a row; a requeue allows as many again."""
    monkeypatch.setenv("HARNESS_UNKNOWN_TRIES", "2")
    queue = Queue("test", connection=real_redis, serializer="json")
    job, new_release = deployed(queue, shop)
    for _ in range(3):
        assert job.get_status() in {JobStatus.QUEUED, JobStatus.SCHEDULED}
        work(queue)
        due(real_redis, queue)
    result = job.latest_result()
    assert result is not None
    assert job.get_status() == JobStatus.FAILED
    text = str(result.exc_string)
    assert re.search(reason, text)
    assert "3 workers in a row did not know it; the limit is 2, see HARNESS_UNKNOWN_TRIES" in text
    new_release()
    job.refresh()
    job.requeue()
    work(queue)
    assert job.get_status() == JobStatus.FINISHED


def test_what_can_never_work_fails_at_once(queue: Queue) -> None:
    """A name that is found and is no job is no matter of releases."""
    job = queue.enqueue_call(PERFORM, args=("tests.jobs:plain", [3], {}))
    work(queue)
    assert job.get_status() == JobStatus.FAILED


@pytest.mark.parametrize("text", ["many", "-1", "1.5", ""])
def test_the_number_of_tries_is_checked(queue: Queue, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The job fails with what is allowed."""
    monkeypatch.setenv("HARNESS_UNKNOWN_TRIES", text)
    job = queue.enqueue_call(PERFORM, args=("shop_none:Sync", [], {}))
    work(queue)
    result = job.latest_result()
    assert result is not None
    assert f"HARNESS_UNKNOWN_TRIES takes a number of 0 or more, such as 60; got '{text}'" in str(
        result.exc_string
    )


def test_a_stock_worker_alone_tries_again_by_itself(
    queue: Queue, shop: ModuleType, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If nothing would enqueue a delayed job, it goes back into the queue immediately, and the log says why."""
    monkeypatch.setattr("harness.queues.rq.jobs.UNAVAILABLE_SECONDS", 0.0)
    job = enqueue(queue, deploy(shop, "Sync"))
    deploy(shop, "Other")
    with caplog.at_level(logging.WARNING, "harness.rq"):
        work(queue, Stock, max_jobs=2)
    assert job.get_status() == JobStatus.QUEUED
    assert "no process will enqueue it then: start a worker of harness.queues.rq" in caplog.text
    deploy(shop, "Sync")
    work(queue, Stock)
    assert job.get_status() == JobStatus.FINISHED


def test_progress_of_an_older_release_goes_on(queue: Queue, done: list[Any]) -> None:
    """Such progress has neither the enqueue nor the arguments; completed work stays completed."""
    job = enqueue(queue, Stopping)
    work(queue, max_jobs=1)
    progress = RQMetaStore(queue.connection).load(job.id)
    assert progress is not None
    progress.digest = progress.enqueued = progress.round_id = ""
    job.refresh()
    job.meta[FIELD] = progress.to_json()
    job.save_meta()
    queue.connection.hdel(job.key, FIELD)
    work(queue)
    assert (done, job.get_status()) == ([0, 1, 2, 3, 4], JobStatus.FINISHED)
    queue._enqueue_job(RQJob.fetch(job.id, connection=queue.connection, serializer="json"))
    work(queue)
    assert done == [0, 1, 2, 3, 4]


class Stopping(Numbers):
    """Stops in the middle."""

    stops = True


def test_completed_progress_of_an_older_release_is_another_round_of_a_new_enqueue(
    queue: Queue, done: list[Any]
) -> None:
    """A nightly job that the older release skipped each night works from the first night on."""
    old = Progress(
        "7", job="tests.queues.test_releases:Stopping", epoch=3, ended=3, state="completed", done=5
    )
    enqueue(queue, Stopping, options={"job_id": "7"})
    queue.connection.hset("rq:job:7", FIELD, old.to_json())
    work(queue)
    assert done == [0, 1, 2, 3, 4]
