"""Plain jobs of the benchmarks: a module that imports next to nothing, as a work horse imports it for each job."""

import time


def note(key: str) -> None:
    """Note the time of the start."""
    from rq import get_current_job  # noqa: PLC0415 - loaded in a worker, not in a benchmark

    job = get_current_job()
    assert job is not None
    job.connection.rpush(key, time.time())
