"""Shutdown signals of a worker, passed on to its job.

Between jobs, RQ's worker raises on SIGTERM and SIGINT at any point of its code. A job that it has just
dequeued is then in no list. During a job it waits, and the job does not get the signal. A SIGTERM that
reaches the work horse too, as under systemd, kills it. Around ``fork()`` one of the two processes loses the
signal.

Here a signal only sets a flag, and:

* a worker that waits for a job exits immediately; it returns a job it has just dequeued to the front of its
  queue;
* during a job, the worker sends SIGTERM to the horse, which sets a flag that the job reads at its
  checkpoints. The signal may come twice, and from any process;
* while the horse starts, it blocks both signals until it can handle them. The worker checks again when it
  knows the horse's pid, so that no order of signal and fork loses a signal.

* a child that the job forks gets the handlers from before the worker: with the job's handlers, SIGTERM would
  not end it, and ``multiprocessing.Pool`` would wait forever.

Plain jobs keep RQ's handlers.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from rq.exceptions import DequeueTimeout, NoSuchJobError, StopRequested
from rq.job import JobStatus
from rq.suspension import is_suspended
from rq.timeouts import BaseDeathPenalty
from rq.worker import BaseWorker, WorkerStatus

from harness.queues.connections import check_server
from harness.queues.rq.entries import complaints, is_outage
from harness.queues.rq.places import is_ours, queue_of
from harness.queues.rq.recovery import put_back
from harness.queues.rq.requests import shutdown
from harness.queues.rq.taking import Taken, Taker
from harness.queues.rq.timeouts import Timeout
from harness.runtime import forks

if TYPE_CHECKING:
    from types import FrameType

    from rq import Queue
    from rq.job import Job as RQJob

ASKED = {signal.SIGTERM, signal.SIGINT}
"""Signals that ask a worker to exit."""

TURN_SECONDS = 60
"""Seconds an idle worker waits for a job before it sends a heartbeat and checks for maintenance."""


class UnreadableJob(Exception):
    """A job was dequeued whose stored data RQ does not write."""

    def __init__(self, job_id: str, queue: Queue) -> None:
        super().__init__(job_id)
        self.job_id, self.queue = job_id, queue


_given_to_children: dict[int, Any] = {}
"""Signal handlers of this process from before it worked, while it works."""


def _handlers() -> dict[int, Any]:
    found = {number: signal.getsignal(number) for number in (*ASKED, signal.SIGALRM)}
    return {number: handler for number, handler in found.items() if handler is not None}


def _ask(*_: object) -> None:
    shutdown.set()


_forking = threading.local()


def _before_fork() -> None:
    # A signal for the child that comes before its handlers are restored waits for them.
    if _given_to_children:
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)


def _after_fork() -> None:
    mask = _forking.__dict__.pop("mask", None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _give_back() -> None:
    """Restore the handlers that a worker replaced in a forked child; keep those that a job has set."""
    for number, handler in _given_to_children.items():
        now = signal.getsignal(number)
        if now is _ask or isinstance(getattr(now, "__self__", None), Signals | Timeout | BaseDeathPenalty):
            signal.signal(number, handler)
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_give_back)


class Signals(BaseWorker):
    """Part of the workers that handles signals."""

    _cold = False
    """True if a second signal has come. (RQ counts two within a second as one: a pool's and the terminal's.)"""

    _pausing = False
    """True if the worker only sleeps, so that it may exit immediately."""

    _ours = False
    """True if the running job belongs to this package."""

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """Work, and restore the previous signal handlers."""
        check_server(self.connection)
        before = _handlers()
        shutdown.clear()
        self._stop_requested = self._cold = False  # a worker may work again after a signal
        _given_to_children.update(before)
        try:
            with forks.guarding():
                return super().work(*args, **kwargs)
        finally:
            _given_to_children.clear()
            shutdown.clear()
            for number, handler in before.items():
                signal.signal(number, handler)

    # In the worker.

    def handle_warm_shutdown_request(self) -> None:
        """Pass the signal to the job."""
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        self._tell()

    def _tell(self) -> None:
        """Pass the signal to the job of this process; workers with a horse pass it to the horse."""
        shutdown.set()

    def _shutdown(self) -> None:
        """Record the request; RQ raises here if no job runs."""
        self._stop_requested = True
        if self._pausing:
            raise StopRequested
        if self.get_state() != WorkerStatus.BUSY:
            return
        try:
            self.set_shutdown_requested_date()  # type: ignore[no-untyped-call]
        except RedisError as error:  # in a signal handler, so anything may be on its way to anywhere
            self.log.warning(
                "Worker %s: its shutdown could not be recorded (%s)", self.name, type(error).__name__
            )
        if self.scheduler:
            self.stop_scheduler()  # type: ignore[no-untyped-call]

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Exit immediately, as RQ does, but requeue a job whose horse is killed for that.

        The code that catches SystemExit requeues a job of this process.
        """
        horse = self.horse_pid
        try:
            super().request_force_stop(signum, frame)
        except SystemExit:
            self._cold = True
            for execution in self.executions.values() if horse and self._ours else ():
                put_back(self.connection, queue_of(execution.job), execution.composite_key, died=False)
            raise

    def check_for_suspension(self, burst: bool) -> None:
        """Wait while all workers are suspended, as RQ does; a signal ends the wait immediately."""
        before = None
        while not self._stop_requested and is_suspended(self.connection, self):
            if burst:
                self.log.info("Worker %s: all workers are suspended; a burst ends here", self.name)
                raise StopRequested
            if before is None:
                self.log.info("Worker %s: suspended; resume with: rq resume", self.name)
                before = self.get_state()
                self.set_state(WorkerStatus.SUSPENDED)
            self._pause(1)
        if before:
            self.set_state(before)

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[RQJob, Queue] | None:
        """Wait for a job in turns, as RQ does. A signal ends the wait immediately and loses no job."""
        self.set_state(WorkerStatus.IDLE)
        self.procline("Listening on " + ",".join(self.queue_names()))  # type: ignore[no-untyped-call]
        idle_since = time.monotonic()
        while not self._stop_requested:
            try:
                self.heartbeat()
                if self.should_run_maintenance_tasks:
                    self.run_maintenance_tasks()  # type: ignore[no-untyped-call]
                if timeout is None:
                    return self._dequeued(None)
                left = (
                    TURN_SECONDS if max_idle_time is None else idle_since + max_idle_time - time.monotonic()
                )
                return self._dequeued(max(0.01, min(left, timeout, TURN_SECONDS)))
            except UnreadableJob as found:
                self._refuse(found)
            except DequeueTimeout:
                if max_idle_time is not None and time.monotonic() - idle_since >= max_idle_time:
                    return None
            except RedisError as error:
                self._sit_out(error)  # type: ignore[attr-defined]  # of Outages
        raise StopRequested

    def _dequeued(self, timeout: float | None) -> tuple[RQJob, Queue] | None:
        """Dequeue a job: wait at most *timeout* seconds; with None, check once.

        :raises DequeueTimeout: if none came in that time.
        """
        taker = Taker(self.connection)
        while True:
            queues = list(self._ordered_queues)
            taken = taker.first(queues)
            if taken is None and timeout is not None:
                taken = taker.wait(queues, timeout, self._interruptible)
                if taken is None:
                    raise DequeueTimeout(timeout, queues)
            if taken is None:
                return None
            job = self._fetched(taken)
            if job is not None:
                break
        self.reorder_queues(reference_queue=taken.queue)
        job.redis_server_version = self.get_redis_server_version()  # type: ignore[no-untyped-call]
        what = f"{job.description} ({job.id})" if self.log_job_description else job.id
        self.log.info("Worker %s: %s: %s", self.name, taken.queue.name, what)
        return job, taken.queue

    def _fetched(self, taken: Taken) -> RQJob | None:
        """Return the dequeued job; None if it was deleted: then no list contains it."""
        try:
            job_id = taken.job_id.decode()
            return self.job_class.fetch(job_id, connection=self.connection, serializer=self.serializer)
        except UnicodeDecodeError as error:
            if error.object != taken.job_id:
                raise UnreadableJob(job_id, taken.queue) from error
            complaints.say("entry of a queue", taken.job_id, error)
        except NoSuchJobError:
            pass
        except Exception as error:
            if is_outage(error):
                raise
            raise UnreadableJob(job_id, taken.queue) from error
        self.connection.lrem(taken.queue.intermediate_queue_key, 1, taken.job_id)  # type: ignore[arg-type]
        return None

    def _refuse(self, found: UnreadableJob) -> None:
        """Remove a job whose hash RQ cannot read from the list, and do not change the hash.

        Such a job ends RQ's worker, and each reader of a registry that contains it, so it is put into none.
        Crash before it: it stays in the intermediate queue, and the next worker to read it does the same.
        """
        with self.connection.pipeline() as pipeline:
            pipeline.lrem(found.queue.intermediate_queue_key, 1, found.job_id)
            pipeline.hset(self.job_class.key_for(found.job_id), "status", JobStatus.FAILED)
            pipeline.execute()
        self.log.error(
            "Worker %s: job %s cannot be read (%r), it was not changed",
            self.name, found.job_id, found.__cause__,
        )  # fmt: skip

    def _pause(self, seconds: float) -> None:
        with self._interruptible():
            time.sleep(seconds)

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let a signal raise StopRequested in the block, in which nothing can be lost."""
        self._pausing = True
        try:
            if self._stop_requested:
                raise StopRequested
            yield
        finally:
            self._pausing = False

    def execute_job(self, job: RQJob, queue: Queue) -> None:
        """Execute the job, unless the worker was asked to exit while it dequeued it."""
        if self._stop_requested:
            Taker(self.connection).give_back(Taken(queue, job.id.encode()))
            return
        self._ours = is_ours(job)
        super().execute_job(job, queue)

    def prepare_job_execution(self, job: RQJob, remove_from_intermediate_queue: bool = False) -> None:  # noqa: ARG002 - always
        """Record that the job has started, and remove it from the intermediate queue in the same transaction.

        RQ removes it only for workers of one queue, because its others do not use that list.
        """
        super().prepare_job_execution(job, remove_from_intermediate_queue=True)


class HorseSignals(Signals):
    """The same for workers whose jobs run in a separate process."""

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """Work, with the current objects hidden from the garbage collector.

        A horse's collector would write to their memory pages, and each page would be copied.
        """
        gc.collect()
        gc.freeze()
        try:
            return super().work(*args, **kwargs)
        finally:
            gc.unfreeze()

    def _tell(self) -> None:
        horse = self.horse_pid
        if horse and self._ours:
            with contextlib.suppress(ProcessLookupError):
                os.kill(horse, signal.SIGTERM)

    def fork_work_horse(self, job: RQJob, queue: Queue) -> None:
        """Start the horse with both signals blocked; it unblocks them when it can handle them."""
        signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)
        try:
            super().fork_work_horse(job, queue)  # type: ignore[misc]  # of RQ's workers that have horses
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
        if self._stop_requested:  # it came before the horse had a pid
            self._tell()

    def main_work_horse(self, job: RQJob, queue: Queue) -> None:
        """Begin the horse's life."""
        self._ours = is_ours(job)  # in a spawned one it is not set yet
        super().main_work_horse(job, queue)

    def setup_work_horse_signals(self) -> None:
        """Pass signals to jobs of this package; other jobs get RQ's handlers."""
        if self._ours:
            shutdown.clear()
            if not _given_to_children:  # in a spawned one
                _given_to_children.update(_handlers())
            for number in ASKED:
                signal.signal(number, _ask)
        else:
            _given_to_children.clear()
            super().setup_work_horse_signals()  # type: ignore[no-untyped-call]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
