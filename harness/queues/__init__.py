"""Queue backends: enqueue jobs and run them to completion.

* :mod:`harness.queues.inline`: here and now, in this thread; for tests, scripts and trying a job out.
* :mod:`harness.queues.rq`: on RQ, with its workers, registries, retries and dashboards.
"""
