"""Jobs that start processes, hold the interpreter, or catch what they should not."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from rq.executions import Execution
from rq.job import Job, get_current_job

from harness import Enumerator, items
from harness.queues.rq import Worker
from tests.worker_jobs import Numbers, UntilReleased, _note

FORK = multiprocessing.get_context("fork")


def _double(number: int) -> int:
    return 2 * number


def _signals(_: int) -> tuple[str, str, int]:
    """Return the handlers of a child, and how many signals it blocks."""
    handlers = [repr(signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    return handlers[0], handlers[1], len(signal.pthread_sigmask(signal.SIG_BLOCK, []))


class Pools(Numbers):
    """Uses a pool of processes in each item, one that is never asked to end by itself."""

    method = "fork"

    def each_iteration(self, item: int, numbers: int = 0) -> None:
        """Do one number in another process; leaving the block terminates the pool."""
        with multiprocessing.get_context(self.method).Pool(1) as pool:
            assert pool.map(_double, [item]) == [2 * item]
            _note(pool.map(_signals, [item])[0], "signals")
        super().each_iteration(item, numbers)


class SpawnPools(Pools):
    """The same with processes that begin with a fresh interpreter."""

    method = "spawn"


class Terminates(Numbers):
    """Starts a process that would run for ever, and ends it."""

    def each_iteration(self, item: int, numbers: int = 0) -> None:
        """Do one number."""
        process = FORK.Process(target=signal.pause)
        process.start()
        process.terminate()
        process.join()
        assert process.exitcode == -signal.SIGTERM
        super().each_iteration(item, numbers)


class OwnHandler(Numbers):
    """Sets a signal handler of its own, which its children must inherit."""

    def each_iteration(self, item: int, numbers: int = 0) -> None:
        """Do one number."""
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with FORK.Pool(1) as pool:
            _note(pool.map(_signals, [item])[0], "signals")
            signal.signal(signal.SIGTERM, before)
            pool.close()
            pool.join()
        super().each_iteration(item, numbers)


class Parent(UntilReleased):
    """Has a child that works on with each number, and records the child's pid."""

    def each_iteration(self, item: int, numbers: int = 0) -> None:
        """Do one number."""
        if item == 2:
            process = FORK.Process(target=signal.pause, daemon=True)
            process.start()
            _note(process.pid, "child")
        super().each_iteration(item, numbers)


class HoldsTheLock(Numbers):
    """Lets no other thread run in its third number, until the test writes into a pipe."""

    def build_enumerator(self, path: str, *, cursor: Any) -> Enumerator[int]:  # type: ignore[override]
        """Go through five numbers."""
        return items(range(5), cursor=cursor)

    def each_iteration(self, item: int, path: str) -> None:  # type: ignore[override]
        """Do one number."""
        super().each_iteration(item)
        if item == 2:
            with Path(path).open("rb", buffering=0) as pipe:
                # PyDLL keeps the interpreter's lock during the call.
                ctypes.PyDLL(None).read(pipe.fileno(), ctypes.create_string_buffer(1), 1)


class Swallows(Numbers):
    """Takes each error of an item for one of the item's, as people write it."""

    error_delay = 0
    swallowed: type[BaseException] = Exception

    def each_iteration(self, item: int, numbers: int = 0) -> None:
        """Do one number; RQ's time is over at the third, in the first execution."""
        super().each_iteration(item, numbers)
        job = get_current_job()
        assert job is not None
        if item == 2 and job.connection.incr(f"waited:{job.id}") == 1:
            try:
                self.overrun(job)
            except self.swallowed as error:
                _note(type(error).__name__, "swallowed")

    def overrun(self, job: Job) -> None:
        """Get the signal that RQ's timeout is."""
        signal.raise_signal(signal.SIGALRM)


class SwallowsAll(Swallows):
    """Catches everything."""

    swallowed = BaseException


class Stuck(Swallows):
    """Switches the timeout off, and waits for what never comes."""

    def overrun(self, job: Job) -> None:
        """Wait."""
        signal.alarm(0)
        job.connection.blpop(["never"], 0)


class NeverAdvances(Swallows):
    """Is at its first number for ever."""

    def each_iteration(self, item: int, numbers: int = 0) -> None:
        """Be at it for too long."""
        job = get_current_job()
        assert job is not None
        while True:
            with suppress(Exception):
                self.overrun(job)


class Impatient(Worker):
    """Takes the time of a job for over long ago, once it has looked at it for the first time."""

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """Send the heartbeat."""
        super().maintain_heartbeats(job, execution)
        job.timeout = -1000
