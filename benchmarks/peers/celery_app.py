"""The orders as a task of Celery that acknowledges late."""

from __future__ import annotations

import os

from celery import Celery

from benchmarks.peers import work

app = Celery("peers", broker=os.environ[work.BROKER])
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
)
orders = app.task(work.plain, name="orders")
