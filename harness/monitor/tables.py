"""Count the rows of the work's database by state, and read the progress of jobs kept there, in one query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from harness.errors import HarnessError
from harness.progress import Progress
from harness.stores.sql import TABLES

PROGRESS = ":progress:"
"""Label of the rows that hold a job's progress."""


class StatusTables:
    """Reader of one database, with one statement for each refresh.

    :param engine: engine of the database. :param statuses: selects of (what, status, number); selects of
        missing tables are ignored.
    """

    def __init__(self, engine: sa.Engine, statuses: Sequence[sa.Select[str, str, int]]) -> None:
        self._engine, self._statuses = engine, statuses
        self._there: set[str] | None = None

    def count(self, job_ids: Sequence[str] = ()) -> tuple[dict[str, dict[str, int]], dict[str, Progress]]:
        """Return the numbers of rows by status, and the progress of the jobs that keep it there.

        If the database is unreachable, return nothing and try again the next time.
        """
        counts: dict[str, dict[str, int]] = {}
        progress: dict[str, Progress] = {}
        try:
            with self._engine.connect() as connection:
                rows = connection.execute(self._query(connection, job_ids)).all()
        except (SQLAlchemyError, _NothingToAsk):
            self._there = None
            return counts, progress
        for what, status, number in rows:
            if what == PROGRESS:
                job_id, _, text = status.partition("\n")
                _keep(progress, job_id, text, number)
            else:
                counts.setdefault(what, {})[status] = int(number)
        return counts, progress

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _query(self, connection: sa.Connection, job_ids: Sequence[str]) -> sa.CompoundSelect[Any]:
        if self._there is None:
            self._there = set(sa.inspect(connection).get_table_names())
        there = self._there
        parts: list[sa.Select[str, str, int]] = [each for each in self._statuses if _tables(each) <= there]
        if job_ids and TABLES.progress.name in there:
            columns = TABLES.progress.c
            text = columns.job_id + sa.literal("\n", sa.String) + columns.progress
            parts.append(
                sa.select(sa.literal(PROGRESS), text, columns.epoch).where(columns.job_id.in_(job_ids))
            )
        if not parts:
            raise _NothingToAsk
        return sa.union_all(*parts)


class _NothingToAsk(Exception):
    """Error if none of the tables exists."""


def _tables(select: sa.Select[str, str, int]) -> set[str]:
    return {str(getattr(each, "name", each)) for each in select.get_final_froms()}


def _keep(progress: dict[str, Progress], job_id: str, text: str, epoch: int) -> None:
    try:
        progress[job_id] = Progress.from_json(job_id, text)
    except HarnessError:
        return  # it cannot be read; the execution of the job reports that
    progress[job_id].epoch = epoch
