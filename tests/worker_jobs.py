"""Toy jobs for real workers: what they do is a list in Redis, which a test can wait on."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from redis import Redis
from rq import Queue, Retry
from rq.job import Job, get_current_job

from harness import CompleteEarly, ContinuableJob, Enumerator, IterationJob, Step, every, items
from harness.queues.rq import SpawnWorker, Worker, leases
from harness.queues.rq.places import queue_of
from harness.queues.rq.recovery import put_back
from harness.queues.rq.requests import shutdown
from tests.workers import PATIENCE

MANY = 1_000_000
"""More numbers than any test waits for."""


def _note(what: object, where: str = "done") -> None:
    """Record an event for the test, in a list of the job that is running."""
    job = get_current_job()
    assert job is not None
    job.connection.rpush(f"{where}:{job.id}", str(what))


def _released() -> bool:
    """Return whether the test has released the job that is running, after a moment that leaves others their turn."""
    job = get_current_job()
    assert job is not None
    return bool(job.connection.xread({f"release:{job.id}": "0"}, block=10))


def _wait_for_the_signal() -> None:
    """Wait until a signal has asked this process to stop, whether it has come already or not."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.settimeout(PATIENCE)
        writer.setblocking(False)
        # Python writes there as soon as a signal comes, so that none is missed between the look and the waiting.
        before = signal.set_wakeup_fd(writer.fileno())
        try:
            while not shutdown():
                reader.recv(1)
        finally:
            signal.set_wakeup_fd(before)


class Traceable:
    """Records the pid of each execution."""

    def on_start(self) -> None:
        """Record the pid."""
        _note(os.getpid(), "pid")

    def on_resume(self) -> None:
        """Record the pid."""
        _note(os.getpid(), "pid")


class Numbers(Traceable, IterationJob):
    """Does numbers, and records each."""

    durability = every(items=1)

    def build_enumerator(self, numbers: int = MANY, *, cursor: Any) -> Enumerator[int]:
        """Go through the numbers."""
        return items(range(numbers), cursor=cursor)

    def each_iteration(self, item: int, numbers: int = MANY) -> None:
        """Do one number."""
        _note(item)


class UntilReleased(Numbers):
    """Does one number after the other until the test releases it, or the numbers are all done."""

    def each_iteration(self, item: int, numbers: int = MANY) -> None:
        """Do one number, or end here."""
        if _released():
            raise CompleteEarly
        super().each_iteration(item, numbers)


class UntilReleasedInSteps(Traceable, ContinuableJob):
    """The same in a step."""

    durability = every(items=1)

    def perform(self) -> None:
        """Call the step."""

        @self.step("count", start=0)
        def count(step: Step) -> None:
            while not _released():
                _note(step.cursor)
                step.advance()


class UntilSignalled(Numbers):
    """Is at its first number until a signal has asked its process to stop."""

    def each_iteration(self, item: int, numbers: int = MANY) -> None:
        """Do one number."""
        if item == 0:
            _wait_for_the_signal()
        super().each_iteration(item, numbers)


class Stubborn(UntilReleased):
    """Hangs in its third number until a test lets its process go on."""

    def each_iteration(self, item: int, numbers: int = MANY) -> None:
        """Do one number, or hang."""
        super().each_iteration(item, numbers)
        job = get_current_job()
        if item == 2 and job is not None:
            job.connection.blpop([f"go:{os.getpid()}"], PATIENCE)


class TakenOver(Numbers):
    """Is requeued by another process in its third number, and then goes on, or fails."""

    resume_errors_after_advancing = False

    def build_enumerator(self, numbers: int = MANY, *, fail: bool = False, cursor: Any) -> Enumerator[int]:
        """Go through the numbers."""
        return super().build_enumerator(numbers, cursor=cursor)

    def each_iteration(self, item: int, numbers: int = MANY, *, fail: bool = False) -> None:
        """Do one number, and be replaced in the third."""
        super().each_iteration(item, numbers)
        lease = leases.current
        job = get_current_job()
        if item == 2 and lease is not None and job is not None:
            put_back(job.connection, queue_of(job), lease.entry, died=True)
            if fail:
                raise RuntimeError("cannot do that")


class Delayed(UntilReleased):
    """Goes on a second after each interruption."""

    resume_delay = 1


class Dies(Numbers):
    """Is killed by its third number, whenever it comes to it."""

    max_crashes = 2

    def each_iteration(self, item: int, numbers: int = MANY) -> None:
        """Do one number, or crash."""
        if item == 2:
            _note("dies")
            os.kill(os.getpid(), signal.SIGKILL)
        super().each_iteration(item, numbers)


def plain(numbers: int) -> int:
    """Do numbers in a function that knows nothing of this package."""
    for number in range(numbers):
        _note(number)
    return numbers


def day_after(day: date) -> date:
    """Return the next day, which JSON cannot hold, and note in the job's meta what JSON cannot hold either."""
    job = get_current_job()
    assert job is not None
    job.meta["seen"] = {1, 2}
    job.save_meta()
    return day + timedelta(days=1)


def plain_until_released() -> None:
    """Do one number after the other until the test releases it."""
    for number in itertools.count():
        if _released():
            return
        _note(number)


def hangs() -> None:
    """Never end."""
    while True:
        signal.pause()


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
    """Record a success: a callback of RQ."""
    connection.rpush(f"called:{job.id}", "success")


def failed(job: Job, connection: Redis, *exc_info: object) -> None:
    """Record a failure: a callback of RQ."""
    connection.rpush(f"called:{job.id}", "failure")


def stopped(job: Job, connection: Redis) -> None:
    """Record a job that was stopped on command: a callback of RQ."""
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

    def _dequeued(self, timeout: float | None) -> tuple[Job, Queue] | None:
        taken = super()._dequeued(timeout)
        _signal_myself()
        return taken


class KilledAtDequeue(Worker):
    """Is killed when a job has just left its queue."""

    def _dequeued(self, timeout: float | None) -> tuple[Job, Queue] | None:
        taken = super()._dequeued(timeout)
        if taken is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return taken


class Endless(IterationJob):
    """Has no last item; makes a file when it has begun."""

    def build_enumerator(self, path: str, *, cursor: Any) -> Enumerator[int]:
        """Go through more numbers than anybody waits for."""
        return items(range(10**9), cursor=cursor)

    def each_iteration(self, item: int, path: str) -> None:
        """Do one number."""
        if item == 3:
            Path(path).touch()


def command_lines() -> None:
    """Note the command lines of this process and its parent, and this process's environment."""
    job = get_current_job()
    assert job is not None
    commands = [Path(f"/proc/{pid}/cmdline").read_text() for pid in (os.getpid(), os.getppid())]
    ours = {name: value for name, value in os.environ.items() if name.startswith("HARNESS_")}
    job.connection.rpush("lines", json.dumps({"commands": commands, "environment": ours}))
