"""Explores the demonstration jobs, each with data of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from sqlalchemy import NullPool, create_engine

from harness.stores.sql import SqlStore

if TYPE_CHECKING:
    from harness.durability import Durability
    from harness.scenario import Scenario


@contextmanager
def seeded(scenario: Scenario, size: str) -> Iterator[None]:
    """Set up a SQLite database with the scenario's data of that size, and remove it afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        variables = {
            "HARNESS_DATABASE_URL": f"sqlite:///{Path(folder) / 'explored.db'}",
            "HARNESS_SMTP": "mail:25",
        }
        with mock.patch.dict(os.environ, variables):
            try:
                scenario.fill(size)
                yield
            finally:
                scenario.close()


@contextmanager
def prepared(
    scenario: Scenario, form: str, size: str, durability: Durability | None, name: str | None = None
) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Create the data, and yield the explorer's arguments for that form: the job with its arguments, and options.

    Under ``with_transaction()`` the progress is in the database of the work.

    :param name: name by which ``harness explore`` finds the scenario; default: the name of a built-in one.
    :raises UsageError: if the scenario does not know the form or the size.
    """
    scenario.check_form(form)
    with ExitStack() as stack:
        stack.enter_context(seeded(scenario, size))
        found = name or f"scenarios.{scenario.name}"
        command = f"harness explore {found} --form {form} --size {size} --trial {{trial}}"
        if form == "plain":
            yield [scenario.forms[form], scenario.arguments()], {"command": command}
            return
        options: dict[str, Any] = {"command": command}
        if durability is not None:
            options.update(durability=durability, command=f"{command} --durability '{durability}'")
            if durability.transactional:
                options["store"] = stack.enter_context(_progress_beside_the_work())
        yield [scenario.forms[form]], options


@contextmanager
def _progress_beside_the_work() -> Iterator[SqlStore]:
    """Have a store in the database that was :func:`seeded`, as ``with_transaction()`` needs it."""
    engine = create_engine(os.environ["HARNESS_DATABASE_URL"], poolclass=NullPool)
    store = SqlStore(engine)
    store.create()
    try:
        yield store
    finally:
        engine.dispose()
