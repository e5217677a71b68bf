"""Who runs jobs: siblings that enqueue a job and run it until it is done.

* :mod:`harness.queues.inline`: here and now, in this thread; for tests, scripts and trying a job out.
* :mod:`harness.queues.rq`: on RQ, with its workers, registries, retries and dashboards.
"""
