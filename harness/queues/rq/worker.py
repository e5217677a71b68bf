"""RQ's three worker classes, with jobs that stop at a shutdown and survive their workers.

::

    rq worker --worker-class harness.queues.rq.Worker
    rq worker-pool --worker-class harness.queues.rq.Worker

They override these methods of ``rq.worker.BaseWorker`` and its subclasses, only for jobs of this package
unless stated otherwise:

* ``__init__``: JSON instead of pickle, for all jobs.
* ``work``: refuses a Redis that is too old, restores the signal handlers afterwards, and sweeps for crashed workers
  in a thread.
* ``dequeue_job_and_maintain_ttl``, ``check_for_suspension``, ``prepare_job_execution``, ``_shutdown``: a
  worker of several queues loses no dequeued job (:mod:`harness.queues.rq.taking`) and exits immediately, for
  all jobs.
* ``execute_job``: a job that was just dequeued goes back to the front of its queue, and an unreadable one
  fails without being run, for all jobs.
* ``handle_warm_shutdown_request``, ``fork_work_horse``, ``main_work_horse``, ``setup_work_horse_signals``:
  the job gets SIGTERM and SIGINT.
* ``request_force_stop``: requeues the job of a horse killed by a second signal.
* ``prepare_execution``, ``perform_job``, ``cleanup_execution``: hold a lease on the job.
* ``handle_job_retry``: an interruption is no retry. ``_finalize_failure``: nor is being superseded a failure.
* ``monitor_work_horse``: the lease is renewed here too. ``wait_for_horse``: the children of a crashed horse
  are killed.
* ``kill_horse``, ``handle_work_horse_killed``, ``handle_job_failure``: requeue the job of a horse that crashed.
* ``clean_registries``: requeues jobs of crashed workers before RQ would fail them.
* ``check_for_suspension``, ``run_maintenance_tasks``, ``heartbeat``, ``set_state``, ``maintain_heartbeats``,
  ``execute_job``, ``register_birth``, ``subscribe``, ``teardown``, ``prepare_job_execution``, ``_finalize_success``,
  ``_pubsub_exception_handler``: an outage of Redis ends neither the worker nor its job, for all jobs.

They are in :mod:`harness.queues.rq.signals`, :mod:`harness.queues.rq.horses`, :mod:`harness.queues.rq.endings`,
:mod:`harness.queues.rq.outages` and :mod:`harness.queues.rq.pickles`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rq

from harness.queues.rq.endings import Endings
from harness.queues.rq.horses import Horses
from harness.queues.rq.outages import Outages
from harness.queues.rq.passwords import hidden_passwords
from harness.queues.rq.pickles import Reading
from harness.queues.rq.signals import HorseSignals, Signals

if TYPE_CHECKING:
    from rq import Queue
    from rq.job import Job as RQJob


class Worker(Outages, HorseSignals, Horses, Endings, Reading, rq.Worker):
    """RQ's ``Worker``, which forks a work horse for each job."""


class SpawnWorker(Outages, HorseSignals, Horses, Endings, Reading, rq.SpawnWorker):
    """RQ's ``SpawnWorker``, which starts a fresh interpreter for each job."""

    def fork_work_horse(self, job: RQJob, queue: Queue) -> None:
        """Start the horse, with the passwords of the Redis connection out of its command line."""
        with hidden_passwords(self.connection):
            super().fork_work_horse(job, queue)


class SimpleWorker(Outages, Signals, Endings, Reading, rq.SimpleWorker):
    """RQ's ``SimpleWorker``, which works in its own process.

    ``work()`` must be called in the main thread, for signals.

    :param commands: whether it listens to RQ's commands, which takes a thread.
    """

    def __init__(self, queues: Any, name: str | None = None, *, commands: bool = True, **kwargs: Any) -> None:
        super().__init__(queues, name, **kwargs)
        self._commands = commands

    def subscribe(self) -> None:
        """Open the command channel, if it has one."""
        if self._commands:
            super().subscribe()
