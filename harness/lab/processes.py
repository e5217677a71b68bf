"""Trials with real processes: workers of RQ, Celery or Dramatiq that are signalled and killed, and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.interruptions import parse_interruption
from harness.lab.journal import JournalContent
from harness.lab.parent_pipe import ParentPipe
from harness.lab.trial import Attempt, Settings, Trial
from harness.lab.worker import CONFIG, FIRED, Config
from harness.queues.periodic import DEFAULT_SECONDS, SETTING

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.interruptions import Interruption
    from harness.lab.backends import Backend
    from harness.lab.fork_server import Child, ForkServer
    from harness.lab.mailbox import Mailbox

LIMIT_SECONDS = 300.0
"""Time limit of a trial; a job that takes longer is taken as endless, even on a busy machine."""
PLAIN_SECONDS = 5.0
"""Wait for a plain form that its queue delivers again only after a long timeout."""
RECOVER_SECONDS = 0.6
"""``HARNESS_RECOVER_SECONDS`` of trials that need an expired lease; the others keep the default of 15 s.

On a busy machine, such a short lease can expire before its holder runs again.
"""
LEAVE_SECONDS = 600.0
"""Time limit for a worker without a job to exit."""
MAX_FAILURES = 10
"""Number of consecutive failures after which a worker is not started again."""
LOOK_SECONDS = 0.01


def kill_both(worker: int, horse: int) -> None:
    """Kill a worker and its work horse at the same time, as the end of a container does.

    Neither may react to the end of the other. The worker would requeue the job of a killed horse, so it gets SIGSTOP
    first. The horse would stop at its next checkpoint if its worker ended first.

    :param worker: process id. :param horse: process id; the process may have ended.
    """
    os.kill(worker, signal.SIGSTOP)
    with suppress(ProcessLookupError):
        os.kill(horse, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)


class ProcessTrial(Trial):
    """Trial whose worker is a separate process, restarted each time it ends, as a supervisor does.

    :param program: function of the worker's process. :param broker: URL of the server with the messages.
    :param redis: URL of a Redis that is empty but for this trial.
    :param processes: forks the workers. :param directory: for the journal and the worker's log.
    :param store: URL of the database where progress lives; None where the queue keeps it.
    :param recover_seconds: limit, in seconds, to detect a crash that only an expired lease shows.
    """

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        mailbox: Mailbox,
        processes: ForkServer,
        directory: Path,
        *,
        program: str,
        broker: str,
        redis: str,
        store: str | None,
        recover_seconds: float,
    ) -> None:
        super().__init__(settings, backend, mailbox)
        self._processes, self._program = processes, program
        self._broker, self._redis, self._store = broker, redis, store
        self._recover_seconds = recover_seconds
        self._exits: list[float] = []
        self.limit_seconds = LIMIT_SECONDS
        self.disturb: Callable[[Child, Path], object] | None = None
        """Called repeatedly while the job runs, with the worker's process and the journal."""
        self._journal, self._log = directory / "journal", directory / "worker.log"
        for each in (self._journal, self._log):
            each.unlink(missing_ok=True)

    def so_far(self) -> list[Attempt]:
        """Return the executions in the journal."""
        return JournalContent(self._journal).attempts

    def _run(self, interruption: Interruption) -> bool:
        settings = self.settings
        config = Config(
            broker=self._broker,
            redis=self._redis,
            queue=self._backend.queue_name,
            journal=str(self._journal),
            interruption=interruption.name,
            items=self.items,
            plain=self.plain,
            pace=settings.pace,
            durability=str(settings.durability) if settings.durability else None,
            store=self._store,
        )
        self._backend.connection.delete(FIRED)
        pipe = ParentPipe()
        try:
            self._supervise(config, pipe)
        finally:
            pipe.close()  # this also ends orphans, which are no longer needed
        story = JournalContent(self._journal)
        self._attempts, self._marked, self._bytes = story.attempts, story.marked, story.largest
        if isinstance(interruption.by, signal.Signals):
            for attempt in self._attempts:
                # A stop request waits for the worker, not for the job.
                if attempt.requested is not None:
                    attempt.stopped = min((at for at in self._exits if at >= attempt.requested), default=None)
        return story.fired

    def _supervise(self, config: Config, pipe: ParentPipe) -> None:
        by = parse_interruption(config.interruption).by
        # A worker notices the crash of its horse, and an orphan requeues its job: both need no expired lease.
        waits = by == "kill:both" and not self._backend.detects
        seconds = self._recover_seconds if waits or self.disturb is not None else DEFAULT_SECONDS
        left_alone = self.plain and self._backend.leaves_alone(by)
        until = time.monotonic() + self.limit_seconds + config.items * config.pace
        worker, failures = self._start(config, pipe, seconds), 0
        try:
            while self._backend.status() is None:
                if time.monotonic() > until:
                    if not left_alone:
                        worker.kill()  # it runs a job that never ends
                    return  # the record shows that the job did not finish
                if worker.poll() is not None:
                    self._exits.append(time.monotonic())
                    if left_alone:
                        until = self._exits[-1] + PLAIN_SECONDS
                    failures = failures + 1 if (worker.returncode or 0) > 0 else 0
                    if failures > MAX_FAILURES:  # a single failure may be an unreachable broker
                        raise HarnessError(f"the worker failed; it said: {self._last_output()}")
                    worker = self._start(config, pipe, seconds)
                elif self.disturb is not None:
                    self.disturb(worker, self._journal)
                time.sleep(LOOK_SECONDS)
        except BaseException:  # Ctrl-C, or an error of the lab: do not wait for the job, which may never stop
            worker.kill()  # the parent pipe ends the others
            raise
        finally:
            worker.terminate()
            try:
                self._leave(worker)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()

    def _leave(self, worker: Child) -> None:
        """Wait until a worker has exited; or, if it exits slowly, until its last execution has ended.

        :raises subprocess.TimeoutExpired: if neither happens in time.
        """
        if not self._backend.slow:
            worker.wait(LEAVE_SECONDS)
            return
        until = time.monotonic() + LEAVE_SECONDS
        while worker.poll() is None and self._at_work() and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
        worker.kill()  # the parent pipe ends its pool
        worker.wait()

    def _at_work(self) -> bool:
        attempts = self.so_far()
        return bool(attempts) and attempts[-1].ended == "killed"  # it did not record its end

    def _start(self, config: Config, pipe: ParentPipe, seconds: float) -> Child:
        environment = {**os.environ, SETTING: str(seconds), CONFIG: config.to_json()}
        with self._log.open("ab") as log:
            return self._processes.start(
                self._program, environment=environment, streams=(pipe.theirs, log, log)
            )

    def _last_output(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing"
