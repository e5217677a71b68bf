"""Runs jobs on RQ, under RQ's own job ids, registries and dashboards.

::

    queue = Queue("default", connection=redis, serializer="json")
    enqueue(queue, Import, 17)
    # rq worker --worker-class harness.queues.rq.Worker

RQ calls :func:`perform`. It ends an interrupted execution by returning an :class:`InterruptedResult`, which
is an ``rq.Retry``: so even RQ's stock worker puts the job back into its queue, under the same id. Our workers do
the same without counting a failure or writing a result for it.
"""

from harness.queues.rq.copies import fork
from harness.queues.rq.instances import scale
from harness.queues.rq.jobs import InterruptedResult, perform
from harness.queues.rq.recovery import keep_recovering, recover
from harness.queues.rq.requests import Requests, cancel, pause, request_stop, resume
from harness.queues.rq.requeuing import requeue, rewind
from harness.queues.rq.submit import enqueue, enqueue_at, enqueue_in
from harness.queues.rq.worker import SimpleWorker, SpawnWorker, Worker

__all__ = [
    "InterruptedResult", "Requests", "SimpleWorker", "SpawnWorker", "Worker", "cancel", "enqueue", "enqueue_at",
    "enqueue_in", "fork", "keep_recovering", "pause", "perform", "recover", "request_stop", "requeue", "resume",
    "rewind", "scale",
]  # fmt: skip
