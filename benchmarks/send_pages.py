"""Runs the job of the guide *many pages of an API at a time* to its end, with its progress in a SQLite file.

``python -m benchmarks.send_pages HOST PAGES FILE JOB CONCURRENCY``; it can be killed and started again.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import sqlalchemy as sa

from harness import InlineRun
from harness.stores.sql import SqlStore


def main(host: str, pages: str, file: str, job_id: str, concurrency: str) -> None:
    """Run the job until it is completed."""
    store = SqlStore(sa.create_engine(f"sqlite:///{file}"))
    store.create()
    job: Any = importlib.import_module("shop.pages").SendPages
    job.concurrency = int(concurrency)
    InlineRun(job, host, int(pages), job_id=job_id, store=store).drain()


if __name__ == "__main__":
    main(*sys.argv[1:])
