"""The four queues of this package as the behaviour suite needs them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery, signals
from celery.contrib.testing.worker import start_worker
from celery.worker import state
from dramatiq import Worker
from dramatiq.brokers.stub import StubBroker
from redis import Redis
from rq import Queue as RQQueue
from rq import Retry

from harness import overrides
from harness.job import Job
from harness.lab.queue_suite import SECONDS, wait_until
from harness.progress import Progress
from harness.queues import celery, dramatiq, rq
from harness.queues import requests as queue_requests
from harness.queues.inline import InlineRun
from harness.stops import CANCEL, PAUSE, Flag
from harness.stores.memory import MemoryStore
from harness.stores.rq_meta import RQMetaStore


class Inline:
    """Jobs that are run here and now."""

    def __init__(self) -> None:
        self._store, self._runs = MemoryStore(), dict[str, InlineRun]()
        self._flags, self._retries, self._waiting = dict[str, Flag](), dict[str, int](), list[str]()

    def enqueue(self, job_class: type[Job], *args: Any, job_id: str, retries: int = 0) -> None:
        """Keep it for :meth:`work`."""
        if job_id in self._waiting:
            return
        flag = self._flags[job_id] = Flag()
        store = self._store
        progress = store.load(job_id)
        if progress is not None and progress.state == "completed":
            store.delete(job_id)  # inline has no enqueue to tell rounds apart
        self._runs[job_id] = InlineRun(job_class, *args, job_id=job_id, store=store, stops=[_Asked(flag)])
        self._retries[job_id] = retries
        self._waiting.append(job_id)

    def work(self, until: Callable[[], bool]) -> None:
        """Run one execution after the other."""
        while not until():
            job_id = self._waiting.pop(0)
            run = self._runs[job_id]
            try:
                outcome = run.execute().outcome
            except RuntimeError:
                if self._retries[job_id]:
                    self._retries[job_id] -= 1
                    self._waiting.append(job_id)
                continue
            for instance in run.instances.values():
                if instance.job_id not in self._runs:
                    self._runs[instance.job_id] = instance
                    self._waiting.append(instance.job_id)
            if outcome == "interrupted":
                self._waiting.append(job_id)

    def progress(self, job_id: str) -> Progress | None:
        """Return the stored progress."""
        return self._store.load(job_id)

    def request_stop(self, job_id: str) -> None:
        """Set the flag; the source takes it back."""
        self._flags[job_id].set("requested")

    def pause(self, job_id: str) -> None:
        """Set the flag."""
        self._flags[job_id].set(PAUSE)

    def resume(self, job_id: str) -> None:
        """Take the flag back."""
        self._flags[job_id].clear()
        self._waiting.append(job_id)

    def cancel(self, job_id: str) -> None:
        """Set the flag."""
        self._flags[job_id].set(CANCEL)


class _Asked:
    """Stop source of a run: a pause or a cancellation holds before any work too."""

    def __init__(self, flag: Flag) -> None:
        self._flag = flag

    def at_start(self, _: Any) -> Any:
        asked = self._flag()
        return asked if asked in {PAUSE, CANCEL} else None

    def __call__(self, _: Any) -> Any:
        asked = self._flag()
        if asked == "requested":
            self._flag.clear()
        return asked


class OnRedis:
    """Requests that all queues with a Redis take alike."""

    connection: Redis

    def request_stop(self, job_id: str) -> None:
        """Ask it to stop."""
        queue_requests.request_stop(self.connection, job_id)

    def pause(self, job_id: str) -> None:
        """Ask it to pause."""
        queue_requests.pause(self.connection, job_id)

    def cancel(self, job_id: str) -> None:
        """Ask it to end."""
        queue_requests.cancel(self.connection, job_id)


class OnRQ(OnRedis):
    """RQ with this package's SimpleWorker."""

    def __init__(self, connection: Redis) -> None:
        self.connection = connection
        self._queue = RQQueue("suite", connection=connection, serializer="json")

    def enqueue(self, job_class: type[Job], *args: Any, job_id: str, retries: int = 0) -> None:
        """Enqueue it with RQ's retries."""
        options: dict[str, Any] = {"job_id": job_id}
        if retries:
            options["retry"] = Retry(max=retries)
        rq.enqueue(self._queue, job_class, *args, options=options)

    def work(self, until: Callable[[], bool]) -> None:
        """Run a worker until its queue is empty, again and again."""

        def worked() -> bool:
            rq.SimpleWorker([self._queue], connection=self.connection, commands=False).work(
                burst=True, logging_level="ERROR"
            )
            return until()

        wait_until(worked)

    def progress(self, job_id: str) -> Progress | None:
        """Return the stored progress."""
        return RQMetaStore(self.connection).load(job_id)

    def resume(self, job_id: str) -> None:
        """Resume it."""
        rq.resume(self._queue, job_id)


def leave_logging(**_: Any) -> None:
    """Have a worker in this process leave the level and the handlers of the root logger as they are."""


signals.setup_logging.connect(leave_logging)


class OnCelery(OnRedis):
    """Celery with a worker in a thread of this process, on a broker in memory."""

    def __init__(self, connection: Redis) -> None:
        self.connection = connection
        self.app = Celery(f"suite-{uuid.uuid4().hex}", broker="memory://", backend="cache+memory://")
        self.app.conf.update(
            worker_hijack_root_logger=False, broker_connection_retry_on_startup=True,
            task_default_queue=self.app.main,  # the broker in memory is one for the whole process
            broker_transport_options={"polling_interval": 0.01},
        )  # fmt: skip
        self.queue = celery.install(self.app, redis=connection)

    def enqueue(self, job_class: type[Job], *args: Any, job_id: str, retries: int = 0) -> Any:
        """Enqueue it with retries without a delay."""
        options = {"task_id": job_id, "max_retries": retries, "retry_delay": 0}
        return celery.enqueue(self.app, job_class, *args, options=options)

    def work(self, until: Callable[[], bool]) -> None:
        """Run a worker in a thread."""
        try:
            with start_worker(
                self.app, perform_ping_check=False, pool="solo", loglevel="ERROR", shutdown_timeout=SECONDS
            ):
                self.queue.enrol(
                    "suite", [self.app.main]
                )  # Celery does not say that a worker in a thread is ready
                wait_until(until)
                self._stop_at_once()
        finally:
            self.queue.close()  # nor that it has ended

    def _stop_at_once(self) -> None:
        """End the worker without the two seconds that each of its last two looks for a message would last."""
        state.should_terminate = 0
        for _ in range(2):
            self.app.control.broadcast("ping")

    def progress(self, job_id: str) -> Progress | None:
        """Return the stored progress."""
        return self.queue.store.load(job_id)

    def resume(self, job_id: str) -> None:
        """Resume it."""
        self.queue.resume(job_id)


class OnDramatiq(OnRedis):
    """Dramatiq with a worker of this process, on its stub broker."""

    def __init__(self, connection: Redis) -> None:
        self.connection = connection
        self.broker = StubBroker()
        self.queue = dramatiq.install(self.broker, redis=connection)
        self.broker.emit_after("process_boot")

    def enqueue(self, job_class: type[Job], *args: Any, job_id: str, retries: int = 0) -> Any:
        """Enqueue it with retries after a millisecond."""
        options = {"message_id": job_id, "max_retries": retries, "min_backoff": 1, "max_backoff": 1}
        return dramatiq.enqueue(self.broker, job_class, *args, options=options)

    def work(self, until: Callable[[], bool]) -> None:
        """Run a worker."""
        worker = Worker(self.broker, worker_timeout=20, worker_threads=2)
        worker.start()
        try:
            wait_until(until)
        finally:
            worker.stop()

    def progress(self, job_id: str) -> Progress | None:
        """Return the stored progress."""
        return self.queue.store.load(job_id)

    def resume(self, job_id: str) -> None:
        """Resume it."""
        self.queue.resume(job_id)


@contextmanager
def backend_named(name: str, connection: Redis) -> Iterator[Any]:
    """Yield a queue by name; no job waits before it is resumed, and requests are seen at every checkpoint."""
    settings = overrides.Overrides(poll_seconds=0.0, delay_seconds=0.0, clock=time.monotonic)
    with overrides.overriding(settings):
        if name == "inline":
            yield Inline()
        else:
            yield {"rq": OnRQ, "celery": OnCelery, "dramatiq": OnDramatiq}[name](connection)
