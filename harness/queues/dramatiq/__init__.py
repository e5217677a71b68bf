"""Run jobs on Dramatiq, under Dramatiq's own message ids, results, retries and pipelines.

::

    # shop/broker.py
    broker = RedisBroker(url="redis://…")
    harness.queues.dramatiq.install(broker, redis="redis://…")

    # anywhere
    message = harness.queues.dramatiq.enqueue(broker, Import, 17)

    # dramatiq shop.broker

:func:`install` declares one actor, ``harness_job``, and adds a middleware. Every worker and every process that enqueues
must call it.
"""

from harness.queues.dramatiq.middleware import JobMiddleware
from harness.queues.dramatiq.queue import DramatiqQueue, enqueue, install, installed, message

__all__ = ["DramatiqQueue", "JobMiddleware", "enqueue", "install", "installed", "message"]
