"""Run jobs on Celery, under Celery's own task ids, result backend, retries and chains.

::

    # shop/celery.py
    app = Celery("shop", broker="redis://…", backend="redis://…")
    harness.queues.celery.install(app, redis="redis://…")

    # anywhere
    result = harness.queues.celery.enqueue(app, Import, 17)
    result.get()  # the result of the whole job

    # celery -A shop.celery worker

:func:`install` registers one task, ``harness.job``, and connects to Celery's signals. Every worker, every process that
enqueues, and ``celery beat`` must call it; in the module of the app it is in all of them.
"""

from harness.queues.celery.queue import CeleryQueue, enqueue, install, installed, signature

__all__ = ["CeleryQueue", "enqueue", "install", "installed", "signature"]
