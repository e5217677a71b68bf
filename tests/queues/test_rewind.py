"""A job that is over is done again from an earlier place, and only from one that it has reached."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus

from harness.errors import UsageError
from harness.queues.rq import enqueue, rewind
from tests.commands import harness, one_line
from tests.jobs import CountByIteration, ThreeSteps
from tests.queues.test_requeue import work
from tests.workers import progress_of


@pytest.mark.parametrize(
    ("place", "again"),
    [
        ({"step": "load"}, ["load", 0, 1, 2, 3, "send"]),
        ({"step": "count", "cursor": 2}, [2, 3, "send"]),
        ({"step": "count"}, [0, 1, 2, 3, "send"]),
        ({"step": "send"}, ["send"]),
    ],
)
def test_steps_are_done_again_from_the_place(
    queue: Queue, redis: Redis, done: list[Any], place: dict[str, Any], again: list[Any]
) -> None:
    """The step and those after it are done again, those before it are not."""
    job = enqueue(queue, ThreeSteps)
    work(queue)
    assert done == ["load", 0, 1, 2, 3, "send"]
    done.clear()
    rewind(redis, job.id, **place)
    assert queue.get_job_ids() == [job.id]
    assert queue.finished_job_registry.get_job_ids() == []
    work(queue)
    assert done == again
    assert job.get_status() == JobStatus.FINISHED
    assert progress_of(redis, job.id).completed == ["load", "count", "send"]


@pytest.mark.parametrize(("cursor", "first"), [(None, 0), (14, 15)])
def test_an_iteration_goes_on_after_the_cursor(
    queue: Queue, redis: Redis, done: list[Any], cursor: Any, first: int
) -> None:
    """Without a cursor the iteration starts at its beginning."""
    job = enqueue(queue, CountByIteration, 20)
    work(queue)
    done.clear()
    rewind(redis, job.id, cursor=cursor)
    work(queue)
    assert done == list(range(first, 20))
    assert job.get_status() == JobStatus.FINISHED


def test_a_job_that_is_not_over_is_refused(queue: Queue, redis: Redis) -> None:
    """A queued job keeps its place and its progress."""
    job = enqueue(queue, ThreeSteps)
    with pytest.raises(UsageError, match="is not over: queued"):
        rewind(redis, job.id, step="load")
    assert queue.get_job_ids() == [job.id]


@pytest.mark.parametrize(
    ("place", "said"), [({"step": "price"}, "step 'price'"), ({"cursor": 5}, "a cursor without a step")]
)
def test_a_place_that_was_not_reached_is_refused(
    queue: Queue, redis: Redis, done: list[Any], place: dict[str, Any], said: str
) -> None:
    """The error names the steps that the job has reached, and the job stays finished."""
    job = enqueue(queue, ThreeSteps)
    work(queue)
    with pytest.raises(UsageError, match=f"rewound to {said}; steps that it has reached: load, count, send"):
        rewind(redis, job.id, **place)
    assert job.get_status() == JobStatus.FINISHED
    assert done.count("send") == 1


def test_the_command_takes_a_place(jobs_queue: Queue, redis_url: str, done: list[Any]) -> None:
    """The command reads STEP, STEP:CURSOR and :CURSOR; a cursor that is not JSON is an error in one line."""
    job = enqueue(jobs_queue, ThreeSteps)
    work(jobs_queue)
    result = harness("rewind", job.id, "--to", "count:3", "--redis", redis_url)
    assert result.exit_code == 0, result.output
    done.clear()
    work(jobs_queue)
    assert done == [3, "send"]
    assert "is not JSON" in one_line(harness("rewind", job.id, "--to", "count:x", "--redis", redis_url))
