"""Real workers of Celery and Dramatiq for tests: start, signal and kill them."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis import Redis

from harness.boundary.environment import variables
from harness.lab.queue_suite import wait_until
from harness.queues.holding import pid_of

CELERY, DRAMATIQ = "celery", "dramatiq"
COMMANDS = {
    CELERY: (
        "celery", "-A", "tests.queues.celery_app", "worker", "-c", "2", "-l", "INFO", "--without-mingle",
        "--without-gossip",
    ),
    DRAMATIQ: ("dramatiq", "tests.queues.dramatiq_app", "-p", "2", "-t", "1"),
}  # fmt: skip
PATIENCE = 300
"""Seconds that a test waits for a worker on a busy machine."""


class Fleet:
    """A queue on real servers, with one worker at a time.

    :param broker: URL of the broker, None for the Redis server. :param settings: more variables of the environment.
    """

    def __init__(
        self, kind: str, redis_url: str, folder: Path, *, broker: str | None = None, **settings: str
    ) -> None:
        self.kind, self._folder = kind, folder
        with Redis.from_url(redis_url) as connection:
            connection.flushall()
        self.settings = {
            "TEST_REDIS": f"{redis_url}?db=2", "TEST_BROKER": broker or self._url(redis_url, 0),
            "TEST_BACKEND": self._url(redis_url, 1), **settings,
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        with variables(**self.settings):
            sys.modules.pop(f"tests.queues.{kind}_app", None)
            self.module: Any = importlib.import_module(f"tests.queues.{kind}_app")
        self.api: Any = importlib.import_module(f"harness.queues.{kind}")
        self.app: Any = self.module.app if kind == CELERY else self.module.broker
        self.queue: Any = self.api.installed(self.app)

    def _url(self, redis_url: str, number: int) -> str:
        if self.kind == CELERY:
            return redis_url.replace("unix://", "redis+socket://") + f"?virtual_host={number}"
        return f"{redis_url}?db={number}"

    @property
    def log(self) -> Path:
        """The log of all workers."""
        return self._folder / f"{self.kind}.log"

    @property
    def running(self) -> bool:
        """True while the worker's main process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the worker's main process."""
        assert self._process is not None
        return self._process.pid

    def start(self, *arguments: str) -> None:
        """Start a worker, with more arguments."""
        self._process = self.spawn(self.log, *COMMANDS[self.kind], *arguments)

    def spawn(self, path: Path, *module: str) -> subprocess.Popen[bytes]:
        """Start a module with its arguments, which writes a log."""
        with path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *module], stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, **self.settings, "PYTHONPATH": os.pathsep.join(sys.path)},
            )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the main process."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Return the exit code of the main process, when it has ended."""
        assert self._process is not None
        return self._process.wait(PATIENCE)

    def kill_all(self) -> None:
        """Kill all processes of the worker at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def close(self) -> None:
        """End the worker and the connections of this process."""
        if self._process is not None:
            self.kill_all()
        self.queue.close()
        self.queue.connection.close()
        self.app.close()

    def enqueue(self, job_class: Any, *args: Any, job_id: str, **options: Any) -> Any:
        """Enqueue a job under an id."""
        name = "task_id" if self.kind == CELERY else "message_id"
        return self.api.enqueue(self.app, job_class, *args, options={name: job_id, **options})

    def result(self, handle: Any) -> Any:
        """Return the result of the whole job, when it is there."""
        if self.kind == CELERY:
            return handle.get(timeout=PATIENCE)
        return handle.get_result(backend=self.app.get_results_backend(), block=True, timeout=PATIENCE * 1000)

    def state(self, job_id: str) -> str:
        """Return the state of a ticket."""
        return str(self.queue.tickets.read(job_id).get("state", ""))

    def owner(self, job_id: str) -> int | None:
        """Return the process that runs a job, or None."""
        ticket = self.queue.tickets.read(job_id)
        return pid_of(ticket.get("owner", "")) if ticket.get("state") == "running" else None


def lines(path: Path) -> list[str]:
    """Return the lines of a file that a job writes."""
    return path.read_text("utf-8").split("\n")[:-1] if path.exists() else []


def wait_for_lines(path: Path, number: int) -> None:
    """Return when a job has written so many lines."""
    wait_until(lambda: len(lines(path)) >= number, PATIENCE)
