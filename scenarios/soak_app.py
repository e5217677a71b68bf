"""The application as the soak's workers load it: it has used its database when a work horse forks.

In every second worker it is a newer release of the code: a step more, an attribute more.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, cast

import sqlalchemy as sa

from harness import ContinuableJob, Enumerator, IterationJob, Step, attribute, items, with_transaction
from harness.queues.rq import Worker
from harness.stores.sql import SqlStore
from scenarios import emails, orders, reports, services

RELEASE = "HARNESS_SOAK_RELEASE"
"""Environment variable with the release that a worker runs: ``old`` or ``new``."""

PACE_SECONDS = 0.01

METADATA = sa.MetaData()
CHARGES = sa.Table(
    "soak_charges",
    METADATA,
    sa.Column("job", sa.Integer, nullable=False),
    sa.Column("item", sa.Integer, nullable=False),
)
"""One row for each time an item was done; nothing keeps an item from being there twice."""


class Preloaded(Worker):
    """A worker in whose process the application is loaded."""


class Charge(IterationJob):
    """Charges some items; a crash in one must leave it undone."""

    durability = with_transaction()
    max_crashes = 10_000

    @classmethod
    def progress_store(cls) -> SqlStore:
        """Keep progress where the charges are."""
        return SqlStore(services.engine())

    @contextmanager
    def around_iterate(self) -> Iterator[None]:
        """Hold a session open for an execution."""
        with services.session() as self.session:
            yield

    def build_enumerator(self, job: int, count: int, *, cursor: Any) -> Enumerator[int]:
        """Go through the items."""
        del job
        return items(range(count), cursor=cursor)

    def each_iteration(self, item: int, job: int, count: int) -> None:
        """Charge one."""
        assert item < count
        with self.transaction() as session:
            session.execute(sa.insert(CHARGES).values(job=job, item=item))
            time.sleep(PACE_SECONDS)


def prepare(engine: sa.Engine) -> None:
    """Make the tables."""
    METADATA.create_all(engine)
    SqlStore(engine).create()


def newer(base: type[Any]) -> type[Any]:
    """Return the newer release of a job class, under the name of the older."""
    if issubclass(base, ContinuableJob):

        def perform(self: Any) -> None:
            base.perform(self)
            self.step("audit")

        def audit(self: Any, step: Step) -> None:
            del self, step

        body: dict[str, Any] = {"perform": perform, "audit": audit}
    else:

        def each_iteration(self: Any, item: Any, *args: Any, **kwargs: Any) -> None:
            base.each_iteration(self, item, *args, **kwargs)
            self.seen += 1

        body = {"each_iteration": each_iteration, "seen": attribute(default=0, type=int)}
    named = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    metaclass: Any = type(base)
    return cast("type[Any]", metaclass(base.__name__, (base,), {**named, **body}))


def install(module: ModuleType) -> None:
    """Replace the job classes of a module by those of the newer release."""
    for name, value in list(vars(module).items()):
        own = isinstance(value, type) and value.__module__ == module.__name__
        if own and issubclass(value, ContinuableJob | IterationJob):
            setattr(module, name, newer(value))


def _sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


if "faketime" in os.environ.get("LD_PRELOAD", ""):
    # Under libfaketime, time.sleep() raises EINVAL: it does not pass on clock_nanosleep() with an absolute time.
    time.sleep = _sleep  # type: ignore[assignment]
if os.environ.get(RELEASE) == "new":
    for each in (orders, reports, emails, sys.modules[__name__]):
        install(each)
if os.environ.get(RELEASE):
    with services.engine().connect() as _connection:
        _connection.execute(sa.text("select 1"))
