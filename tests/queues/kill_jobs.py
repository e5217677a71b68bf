"""A job whose work and progress are committed together, for workers that are killed at any moment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from harness import Enumerator, IterationJob, items, with_transaction
from harness.stores.sql import SqlStore

DONE = sa.Table(
    "done", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("job", sa.String(80)),
    sa.Column("item", sa.Integer),
)  # fmt: skip


@cache
def engine(_pid: int) -> sa.Engine:
    """Return the engine of a process."""
    return sa.create_engine(os.environ["TEST_DATABASE"])


class Entries(IterationJob):
    """Writes a row for each number."""

    durability = with_transaction()
    max_crashes = 1000
    error_delay = 0

    @classmethod
    def progress_store(cls) -> SqlStore:
        """Keep the progress where the rows are."""
        return SqlStore(engine(os.getpid()))

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Hold a session."""
        with Session(engine(os.getpid())) as self.session:
            yield

    def build_enumerator(self, numbers: int, *, cursor: Any) -> Enumerator[int]:
        """Go through the numbers."""
        return items(range(numbers), cursor=cursor)

    def each_iteration(self, item: int, numbers: int) -> None:
        """Write one row."""
        self.session.execute(DONE.insert().values(job=self.execution.job_id, item=item))
