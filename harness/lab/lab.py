"""Lab: a private broker, database and mailbox, and trials that interrupt jobs in it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy

from harness.boundary.environment import variables
from harness.errors import UsageError
from harness.lab.backends import KINDS
from harness.lab.embedded import EmbeddedTrial
from harness.lab.fork_server import ForkServer
from harness.lab.mailbox import Mailbox
from harness.lab.processes import RECOVER_SECONDS, ProcessTrial
from harness.lab.services import Services
from harness.lab.trial import Settings, Trial
from harness.scenario import Scenario
from harness.stores.sql import SqlStore

if TYPE_CHECKING:
    from harness.durability import Durability
    from harness.interruptions import Interruption


class Lab:
    """Runner of trials, one at a time; a context manager that removes everything at the end.

    Jobs find the database and the mail server in the environment variables ``HARNESS_DATABASE_URL`` and
    ``HARNESS_SMTP``.

    :param directory: an existing folder for database files, journals and logs.
    :param size: the size of the data.
    :param pace: duration of the work on an item, in seconds. In embedded trials,
        triggers by time count only this duration; with a pace of 0 there is no wait, and an item counts as 20 ms.
    :param queue: ``rq``, ``celery`` or ``dramatiq``.
    :param broker: ``fakeredis``, the default of RQ: the worker is in this process. ``redis``, the default of the
        others, or the URL of an empty Redis database: workers are processes, and can be killed. ``rabbitmq``, for
        Celery and Dramatiq: the same, with the messages on a private RabbitMQ.
    :param database: None for files of SQLite, ``postgresql`` for a private server, or the URL of an empty database.
    :param recover_seconds: limit, in seconds, for workers to detect a crash that only an expired lease shows.
    :raises MissingService: if a private server is asked for and not installed.
    """

    def __init__(
        self,
        directory: Path,
        *,
        size: str = "quick",
        pace: float = 0.0,
        queue: str = "rq",
        broker: str | None = None,
        database: str | None = None,
        recover_seconds: float = RECOVER_SECONDS,
    ) -> None:
        if not 0 <= pace < float("inf"):
            raise UsageError(f"got a pace of {pace!r}; use seconds of 0 or more")
        self.directory, self.size, self.pace, self._recover_seconds = directory, size, pace, recover_seconds
        self.services = Services(broker, database, queue)
        self.kind = KINDS[queue]
        self._processes = ForkServer(*self.kind.preload)
        self._templates: dict[str, Path] = {}
        self.mailbox = Mailbox()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.mailbox.stop()
        self._processes.close()
        self.services.close()

    @contextmanager
    def prepared(
        self, scenario: Scenario, form: str, durability: Durability | None = None
    ) -> Iterator[Trial]:
        """Set up fresh data, a fresh broker and an empty mailbox for one trial, and remove them afterwards."""
        scenario.check_form(form)
        services = self.services
        with ExitStack() as stack:
            url = stack.enter_context(self._database(scenario))
            self.mailbox.empty()
            stack.enter_context(variables(HARNESS_DATABASE_URL=url, HARNESS_SMTP=self.mailbox.address))
            stack.callback(scenario.close)
            if services.database is not None:
                stack.callback(scenario.clear)
                scenario.fill(self.size)
            stack.callback(services.empty_broker)
            store = (
                stack.enter_context(_progress_in(url)) if durability and durability.transactional else None
            )
            names = self.kind.name, services.broker_name, services.database_name
            settings = Settings(scenario, form, durability, *names, self.pace)
            if services.broker is None or services.redis is None:
                yield EmbeddedTrial(settings, self.mailbox, store)
                return
            backend = self.kind.made(services.broker, services.redis, scenario, form)
            stack.callback(backend.close)
            yield ProcessTrial(
                settings, backend, self.mailbox, self._processes, self.directory,
                program=self.kind.program, broker=services.broker, redis=services.redis,
                store=url if store else None, recover_seconds=self._recover_seconds,
            )  # fmt: skip

    def run(
        self, scenario: Scenario, form: str, interruption: Interruption, durability: Durability | None = None
    ) -> dict[str, Any]:
        """Run one trial to its end and return its record.

        :param durability: replaces the job's own. With ``with_transaction()`` progress lives in the database.
        :raises NothingInterrupted: if the interruption never happened; the trial then shows nothing.
        """
        with self.prepared(scenario, form, durability) as trial:
            return trial.run(interruption)

    @contextmanager
    def _database(self, scenario: Scenario) -> Iterator[str]:
        if self.services.database is not None:
            yield self.services.database
            return
        template = self._templates.get(scenario.name) or self._seeded(scenario)
        path = self.directory / f"{scenario.name}-trial.db"
        shutil.copyfile(template, path)
        try:
            yield f"sqlite:///{path}"
        finally:
            for each in self.directory.glob(f"{path.name}*"):  # with SQLite's additional files
                each.unlink()

    def _seeded(self, scenario: Scenario) -> Path:
        path = self.directory / f"{scenario.name}-seeded.db"
        with variables(HARNESS_DATABASE_URL=f"sqlite:///{path}"):
            try:
                scenario.fill(self.size)
            finally:
                scenario.close()
        self._templates[scenario.name] = path
        return path


def environment(size: str, pace: float, packages: Sequence[str]) -> dict[str, Any]:
    """Return a description of the environment for a comparison, without host and path."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count() or 1,
        "packages": {name: version(name) for name in packages},
        "size": size,
        "pace_s": pace,
        "generated": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@contextmanager
def _progress_in(url: str) -> Iterator[SqlStore]:
    """Create the tables for progress in the database of the work."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    store = SqlStore(engine)
    store.create()
    try:
        yield store
    finally:
        store.drop()
        engine.dispose()
