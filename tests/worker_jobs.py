"""Toy jobs for real workers: what they do is a list in Redis, which a test can wait on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from redis import Redis
from rq import Queue, Retry
from rq.job import Job, get_current_job

from harness import ContinuableJob, Enumerator, IterationJob, Step, every, items
from harness.queues.rq import SpawnWorker, Worker, leases
from harness.queues.rq.recovery import put_back, queue_of


def _note(what: object, where: str = "done") -> None:
    """Tell the test what happens, in a list of the job that is running."""
    job = get_current_job()
    assert job is not None
    job.connection.rpush(f"{where}:{job.id}", str(what))


class Traceable:
    """Tells the pid of each execution."""

    def on_start(self) -> None:
        """Tell."""
        _note(os.getpid(), "pid")

    def on_resume(self) -> None:
        """Tell."""
        _note(os.getpid(), "pid")


class Paced(Traceable, IterationJob):
    """Does numbers, each of which takes a while, and tells of each."""

    durability = every(items=1)

    def build_enumerator(self, numbers: int, pace: float = 0.01, *, cursor: Any) -> Enumerator[int]:
        """Go through the numbers."""
        return items(range(numbers), cursor=cursor)

    def each_iteration(self, item: int, numbers: int, pace: float = 0.01) -> None:
        """Do one number."""
        time.sleep(pace)
        _note(item)


class PacedInSteps(Traceable, ContinuableJob):
    """The same in a step."""

    durability = every(items=1)

    def perform(self, numbers: int, pace: float = 0.01) -> None:
        """Call the step."""

        @self.step("count", start=0)
        def count(step: Step) -> None:
            for number in range(step.cursor, numbers):
                time.sleep(pace)
                _note(number)
                step.advance()


class Stubborn(Paced):
    """Hangs in its third item, until its process is told to go on."""

    def each_iteration(self, item: int, numbers: int, pace: float = 0.01) -> None:
        """Do one number, or hang."""
        super().each_iteration(item, numbers, pace)
        job = get_current_job()
        if item == 2 and job is not None:
            job.connection.blpop([f"go:{os.getpid()}"], 60)


class TakenOver(Paced):
    """Is put back by somebody else in its third item, and then ends somehow."""

    resume_errors_after_advancing = False

    def each_iteration(self, item: int, numbers: int, pace: float = 0.0) -> None:
        """Do one number; a pace below 0 means to fail after the third."""
        super().each_iteration(item, numbers, 0.0)
        lease = leases.current
        job = get_current_job()
        if item == 2 and lease is not None and job is not None:
            put_back(job.connection, queue_of(job), lease.entry, died=True)
            if pace < 0:
                raise RuntimeError("cannot do that")


class Delayed(Paced):
    """Goes on a second after each interruption."""

    resume_delay = 1


class Dies(Paced):
    """Is killed by its third item, whenever it comes to it."""

    max_crashes = 2

    def each_iteration(self, item: int, numbers: int, pace: float = 0.01) -> None:
        """Do one number, or die."""
        if item == 2:
            _note("dies")
            os.kill(os.getpid(), signal.SIGKILL)
        super().each_iteration(item, numbers, pace)


def plain(numbers: int, pace: float = 0.01) -> int:
    """Do numbers in a function that knows nothing of this package."""
    for number in range(numbers):
        time.sleep(pace)
        _note(number)
    return numbers


def fails() -> None:
    """Fail."""
    _note("tried")
    raise RuntimeError("cannot do that")


def again(times: int) -> Retry | None:
    """Ask to be run again, until it was run so often."""
    _note("run")
    job = get_current_job()
    assert job is not None
    return Retry(max=5) if job.connection.llen(f"done:{job.id}") < times else None


def dies() -> None:
    """Take the process down."""
    os.kill(os.getpid(), signal.SIGKILL)


def succeeded(job: Job, connection: Redis, result: object) -> None:
    """Tell: RQ's callback for a success."""
    connection.rpush(f"called:{job.id}", "success")


def failed(job: Job, connection: Redis, *exc_info: object) -> None:
    """Tell: RQ's callback for a failure."""
    connection.rpush(f"called:{job.id}", "failure")


def stopped(job: Job, connection: Redis) -> None:
    """Tell: RQ's callback for a job that was stopped on command."""
    connection.rpush(f"called:{job.id}", "stopped")


# Workers that are signalled at the worst of moments.


def _signal_myself() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class SignalledBefore(Worker):
    """Is asked to leave when it is about to fork."""

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Fork."""
        os.register_at_fork(before=_signal_myself)
        super().fork_work_horse(job, queue)


class SignalledInWorker(Worker):
    """Is asked to leave when it has just forked."""

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Fork."""
        os.register_at_fork(after_in_parent=_signal_myself)
        super().fork_work_horse(job, queue)


class SignalledInHorse(Worker):
    """Has a horse that gets the signal before it can do anything; it alone, so that --max-jobs ends the worker."""

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Fork."""
        os.register_at_fork(after_in_child=_signal_myself)
        super().fork_work_horse(job, queue)


class SignalledSpawn(SpawnWorker):
    """Is asked to leave when it is about to start the horse, which gets the signal as well."""

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Start the horse."""
        _signal_myself()
        super().fork_work_horse(job, queue)
        if self.horse_pid:
            os.kill(self.horse_pid, signal.SIGTERM)


class SignalledAtDequeue(Worker):
    """Is asked to leave when a job has just left its queue."""

    def _dequeued(self, timeout: int | None) -> tuple[Job, Queue] | None:
        taken = super()._dequeued(timeout)
        _signal_myself()
        return taken


class Endless(IterationJob):
    """Has no last item; makes a file when it has begun."""

    def build_enumerator(self, path: str, *, cursor: Any) -> Enumerator[int]:
        """Go through more numbers than anybody waits for."""
        return items(range(10**9), cursor=cursor)

    def each_iteration(self, item: int, path: str) -> None:
        """Do one number."""
        time.sleep(0.01)
        if item == 3:
            Path(path).touch()
