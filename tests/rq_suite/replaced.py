"""Our workers in place of RQ's, a Redis server of the run's own, and a record of each test's outcome.

Each interpreter of the run imports this as ``rq_suite.replaced`` when it starts (``sitecustomize``): RQ's tests are a
package called ``tests`` as well, and they start ``rq worker`` and spawned horses as processes. In the one that runs the
tests it is a pytest plugin, too.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
import redis.connection
import rq
import rq.worker
import rq.worker_pool

from harness.queues import rq as ours

if TYPE_CHECKING:
    import pytest

WORKERS = "RQ_SUITE_WORKERS"
"""Environment variable: ``rq`` runs RQ's own workers, ``json`` ours, and ``pickle`` ours with pickle let through."""

PORT, OUTCOMES = "RQ_SUITE_PORT", "RQ_SUITE_OUTCOMES"
"""Environment variables: the port of the Redis server, and the file for the outcomes."""

RUNNER = "RQ_SUITE_RUNNER"
"""Environment variable: the id of the process that started the run, in a session of the run's own."""

DEFAULT_PORT = 6379

RQ_WORKER = rq.Worker


class Worker(ours.Worker):
    """In place of RQ's ``Worker``."""


class SimpleWorker(ours.SimpleWorker):
    """In place of RQ's ``SimpleWorker``."""


class SpawnWorker(ours.SpawnWorker):
    """In place of RQ's ``SpawnWorker``."""


class RoundRobinWorker(Worker, rq.worker.RoundRobinWorker):
    """In place of RQ's ``RoundRobinWorker``."""


class RandomWorker(Worker, rq.worker.RandomWorker):
    """In place of RQ's ``RandomWorker``."""


REPLACED: list[type[Any]] = [Worker, SimpleWorker, SpawnWorker, RoundRobinWorker, RandomWorker]
"""Workers that take the place of RQ's. HerokuWorker stays RQ's: this package has none."""


def install() -> None:
    """Put our workers where RQ's tests and commands find RQ's, and change the default port of Redis."""
    for connects in (redis.Redis, redis.connection.Connection):
        initialise: Any = inspect.unwrap(connects.__init__)
        port = int(os.environ[PORT])
        initialise.__defaults__ = tuple(
            port if each == DEFAULT_PORT else each for each in initialise.__defaults__
        )
    if os.environ[WORKERS] == "rq":
        return
    if os.environ[WORKERS] == "pickle":
        _let_pickle_through()
    for worker_class in REPLACED:
        for module in (rq, rq.worker, rq.worker_pool):
            if hasattr(module, worker_class.__name__):
                setattr(module, worker_class.__name__, worker_class)
    for function in (rq.worker_pool.WorkerPool.__init__, rq.worker_pool.run_worker):
        given = function.__defaults__ or ()
        function.__defaults__ = tuple(Worker if each is RQ_WORKER else each for each in given)


def _let_pickle_through() -> None:
    """Have our workers keep the serializer that they are given, so that all else can be compared.

    This goes further than ``HARNESS_ALLOW_PICKLE``, with which the worker's own serializer and its queues' stay JSON.

    :raises LookupError: if the function that refuses pickle has another name by now.
    """
    modules = [each for name, each in sys.modules.items() if name.startswith("harness.queues.rq.")]
    refusing = [each for each in modules if hasattr(each, "_no_pickle")]
    if not refusing:
        raise LookupError(
            "no module of harness.queues.rq has _no_pickle(); name the function that refuses pickle"
        )
    for module in refusing:
        module._no_pickle = lambda serializer: serializer  # type: ignore[attr-defined]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write down the outcome of a phase of a test."""
    _end_with_runner()
    if report.when == "call" or report.outcome != "passed":
        with Path(os.environ[OUTCOMES]).open("a") as file:
            file.write(json.dumps({"test": report.nodeid, "outcome": report.outcome}) + "\n")


def _end_with_runner() -> None:
    """End the run and its Redis if the runner was killed: the run would write into the outcomes of the next one."""
    if os.getppid() == int(os.environ[RUNNER]):
        return
    with suppress(redis.RedisError):
        redis.Redis().shutdown(nosave=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def pytest_unconfigure() -> None:
    """End this process: it would wait for the processes that a failed test has left behind."""
    sys.stdout.flush()
    os._exit(os.EX_OK)
