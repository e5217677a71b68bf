"""Trials in several processes, one for each core.

The verdict is the same as with a single process. The processes are forked after the clean run. Each has its
own external state (:mod:`.copies`), runs its trials, and returns plain data. The parent asks for the results
in the order of the plan, so the assignment of trials to processes makes no difference. It assigns trials
ahead of the plan, and drops results that are not needed.

A process that reaches external state without a copy stops before it touches it. The parent then runs this
trial and all later ones itself.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from harness.errors import UsageError
from harness.explore.copies import own, why_alone
from harness.explore.findings import Finding
from harness.explore.planned import PlannedTrial, parse_trial
from harness.stores.sql import SqlStore

if TYPE_CHECKING:
    from harness.explore.external_state import ExternalState
    from harness.explore.recording import Recording
    from harness.progress import Store

DEPTH = 4
"""Number of trials that a process has in its queue, so that it does not wait for the parent."""
AHEAD = 64
"""Number of trials assigned ahead of the one the parent waits for."""
FEW = 24
"""Minimum number of trials for which other processes are worth their start."""
XDIST = "PYTEST_XDIST_WORKER"
"""Environment variable of a pytest-xdist worker, which has at most one core."""

Ahead = Callable[[int], Sequence[PlannedTrial]]
"""Returns the next trials, up to a number, if no result changes the plan."""


@dataclass(frozen=True)
class Found:
    """Result of a trial as plain data.

    :ivar finding: the finding, or None. :ivar refused: reason why a new version refused. :ivar recovered:
        number of points of each kind that the recovery from a crash passed. :ivar reached: whether the job
        reached the crash point.
    """

    finding: Finding | None = None
    refused: str | None = None
    recovered: dict[str, int] | None = None
    reached: bool = True

    def line(self) -> bytes:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"


def found_in(data: dict[str, Any]) -> Found:
    """Return the result in a line."""
    finding = data["finding"]
    if finding is not None:
        finding = {key: tuple(value) if isinstance(value, list) else value for key, value in finding.items()}
        data = {**data, "finding": Finding(**finding)}
    return Found(**data)


def usable_cores() -> int:
    """Return the default number of processes: the cores that this process may use; 1 in a worker of pytest-xdist."""
    if XDIST in os.environ or not hasattr(os, "sched_getaffinity"):
        return 1
    return len(os.sched_getaffinity(0))


def check(number: int | None, outcome: Any, queue: str, store: Store | None) -> int:
    """Return the number of processes to use.

    It is 1 with an outcome, a store or messages that may be in a place that the processes share.

    :raises UsageError: if it is no number of processes.
    """
    if number is not None and (not isinstance(number, int) or number < 1):
        raise UsageError(f"processes={number!r}; use a number of 1 or more")
    if outcome is not None or queue not in {"inline", "rq"} or not isinstance(store, SqlStore | None):
        return 1
    return usable_cores() if number is None else number


@dataclass
class _Child:
    """Process that runs trials; ``given`` are the names of those without an answer."""

    pid: int
    commands: int
    answers: int
    given: list[str] = field(default_factory=list)
    rest: bytes = b""
    ended: bool = False


class Crew:
    """Processes that run trials.

    :param run: runs a trial; called in the processes. :param number: number of processes.
    """

    def __init__(self, external: ExternalState, run: Callable[[PlannedTrial], Found], number: int) -> None:
        self._external, self._run = external, run
        self._answers: dict[str, Found] = {}
        self._given: set[str] = set()
        self._folder = tempfile.mkdtemp(prefix="harness-explore-")
        self._children: list[_Child] = []
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()  # otherwise each process would write the buffered output
        self._alive = os.pipe()
        try:
            with external.let_go():
                for index in range(number):
                    self._children.append(self._fork(index))
        except BaseException:
            self.close()
            raise

    def get(self, trial: PlannedTrial, ahead: Ahead) -> Found | None:
        """Return the result of a trial; None if this process has to run it and all later ones.

        Ask for trials in the order of the plan.
        """
        name = str(trial)
        while name not in self._answers:
            owner = next((each for each in self._children if name in each.given), None)
            if owner is not None and owner.ended:
                return None
            self._give([name, *map(str, ahead(AHEAD))])
            if all(each.ended or not each.given for each in self._children):
                return None
            self._receive()
        return self._answers.pop(name)

    def close(self) -> None:
        """End the processes and remove their copies. An error here leaves no process behind."""
        for child in self._children:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
            os.close(child.commands)
            os.close(child.answers)
        for end in self._alive:
            with suppress(OSError):
                os.close(end)
        self._children.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _give(self, names: list[str]) -> None:
        """Assign some unassigned trials to each process."""
        waiting = iter([name for name in names if name not in self._given])
        for child in self._children:
            while not child.ended and len(child.given) < DEPTH:
                name = next(waiting, None)
                if name is None:
                    return
                self._given.add(name)
                child.given.append(name)
                # A process that has ended accepts no more trials; the end of its answers shows that.
                with suppress(BrokenPipeError):
                    os.write(child.commands, name.encode() + b"\n")

    def _receive(self) -> None:
        """Wait for results and take them."""
        working = {child.answers: child for child in self._children if not child.ended}
        for answers in select.select(list(working), [], [])[0]:
            child = working[answers]
            data = os.read(answers, 1 << 16)
            child.ended = not data
            *lines, child.rest = (child.rest + data).split(b"\n")
            for line in lines:
                self._answers[child.given.pop(0)] = found_in(json.loads(line))

    def _fork(self, index: int) -> _Child:
        commands, answers = os.pipe(), os.pipe()
        folder = os.path.join(self._folder, str(index))  # noqa: PTH118
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(commands[1])
                os.close(answers[0])
                _die_with(self._alive, folder, parent)
                self._serve(commands[0], answers[1], folder)
                code = 0
            finally:
                _end(folder, code)
        os.close(commands[0])
        os.close(answers[1])
        return _Child(pid, commands[1], answers[0])

    def _serve(self, commands: int, answers: int, folder: str) -> None:
        """Run trials until there are no more; after any error, the parent runs the trial again and gets the error."""
        own(self._external, folder, _leave)
        with os.fdopen(commands) as names:
            for name in names:
                line = self._run(parse_trial(name.strip())).line()
                with suppress(Exception):
                    sys.stdout.flush()
                while line:
                    line = line[os.write(answers, line) :]


def _leave() -> NoReturn:
    """End this process before the job touches external state without a copy."""
    os._exit(0)


def _die_with(alive: tuple[int, int], folder: str, parent: int) -> None:
    """End this process when its parent ends: the pipe from the parent is then closed."""
    os.close(alive[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends this process
    for number in (signal.SIGTERM, signal.SIGIO):  # a SIGTERM may be sent to the whole process group
        signal.signal(number, lambda *_: _end(folder))
    fcntl.fcntl(alive[0], fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(alive[0], fcntl.F_SETFL, fcntl.fcntl(alive[0], fcntl.F_GETFL) | os.O_ASYNC)
    if os.getppid() != parent:  # the parent ended before the signal was set up
        _end(folder)


def _end(folder: str, code: int = 1) -> NoReturn:
    """Remove the copies of this process and end it; the last process also removes the common folder."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        os.rmdir(os.path.dirname(folder))  # noqa: PTH106, PTH120 - as in copies.py
    os._exit(code)


def crew(
    external: ExternalState,
    recording: Recording,
    run: Callable[[PlannedTrial], Found],
    number: int,
    trials: int,
) -> Crew | None:
    """Return processes for an exploration, or None if one process is used.

    :param number: number of processes. :param trials: number of planned trials.
    """
    if number < 2 or trials < FEW or why_alone(external, recording):
        return None
    return Crew(external, run, number)
