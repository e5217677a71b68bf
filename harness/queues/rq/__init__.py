"""Runs jobs on RQ, under RQ's own job ids, registries and dashboards.

::

    queue = Queue("default", connection=redis, serializer="json")
    enqueue(queue, Import, 17)
    # rq worker --worker-class harness.queues.rq.InProcessWorker --serializer json

What RQ calls is :func:`perform`. It ends an interrupted execution by returning an :class:`Interruption`, which
is an ``rq.Retry``: so even RQ's stock worker puts the job back into its queue, under the same id. Our workers do
the same without counting a failure or writing a result for it.
"""

from harness.queues.rq.instances import scale
from harness.queues.rq.jobs import Interruption, enqueue, perform
from harness.queues.rq.requests import Requests, cancel, pause, request_stop, resume
from harness.queues.rq.worker import InProcessWorker

__all__ = [
    "InProcessWorker", "Interruption", "Requests", "cancel", "enqueue", "pause", "perform", "request_stop", "resume",
    "scale",
]  # fmt: skip
