"""Queue backends: enqueue jobs and run them to completion.

* :mod:`harness.queues.inline`: immediately, in this thread; for tests, scripts and trying a job.
* :mod:`harness.queues.rq`: on RQ, with its workers, registries, retries and dashboards.
"""
