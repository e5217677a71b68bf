"""Jobs for real workers that do several items at a time; each item waits for a token of the test."""

from __future__ import annotations

import asyncio
from typing import Any

from rq.job import Job, get_current_job

from harness import Enumerator, IterationJob, every, items
from tests.worker_jobs import Traceable, _note
from tests.workers import PATIENCE


def _wait_for_token(job: Job) -> None:
    assert job.connection.blpop([f"token:{job.id}"], PATIENCE) is not None


class InThreads(Traceable, IterationJob):
    """Does numbers in threads."""

    concurrency = 3
    durability = every(items=1)

    def build_enumerator(self, numbers: int, *, cursor: Any) -> Enumerator[int]:
        """Go through the numbers."""
        return items(range(numbers), cursor=cursor)

    def each_iteration(self, item: int, numbers: int) -> None:
        """Do one number, once there is a token."""
        job = get_current_job()
        assert job is not None
        _wait_for_token(job)
        _note(item)


class InCoroutines(InThreads):
    """Does numbers in coroutines."""

    async def each_iteration(self, item: int, numbers: int) -> None:  # type: ignore[override]  # async this time
        """Do one number, once there is a token."""
        job = get_current_job()
        assert job is not None
        await asyncio.to_thread(_wait_for_token, job)
        _note(item)
