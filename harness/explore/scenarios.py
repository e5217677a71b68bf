"""Exploration of the demonstration jobs, each with its own data."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from sqlalchemy import MetaData, NullPool, create_engine, inspect

from harness.errors import UsageError
from harness.lab.servers import postgresql_server
from harness.stores.sql import SqlStore

if TYPE_CHECKING:
    from harness.durability import Durability
    from harness.scenario import Scenario


PRIVATE = "postgresql"
"""Name of a private PostgreSQL server."""


@contextmanager
def seeded(scenario: Scenario, size: str, database: str | None = None) -> Iterator[str]:
    """Create a database with the scenario's data of a size, yield its URL, and remove the data afterwards.

    :param database: see :func:`prepared`.
    """
    with (
        _empty(database) as url,
        mock.patch.dict(os.environ, {"HARNESS_DATABASE_URL": url, "HARNESS_SMTP": "mail:25"}),
    ):
        try:
            scenario.fill(size)
            yield url
        finally:
            scenario.close()


@contextmanager
def _empty(database: str | None) -> Iterator[str]:
    """Yield the URL of an empty database.

    :raises UsageError: if the given database is not empty.
    """
    if database is None:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{Path(folder) / 'explored.db'}"
        return
    if database == PRIVATE:
        with postgresql_server() as server:
            yield server.url
        return
    engine = create_engine(database, poolclass=NullPool)
    if tables := inspect(engine).get_table_names():
        raise UsageError(
            f"the database has tables ({', '.join(sorted(tables)[:3])}); a scenario needs an empty one, which is "
            "emptied again: use another database"
        )
    try:
        yield database
    finally:
        made = MetaData()
        made.reflect(engine)
        made.drop_all(engine)
        engine.dispose()


@contextmanager
def prepared(
    scenario: Scenario,
    form: str,
    size: str,
    durability: Durability | None,
    *,
    name: str | None = None,
    database: str | None = None,
) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Create the data, and yield the explorer's arguments for a form: the job with its arguments, and options.

    Under ``with_transaction()`` the progress is in the database of the work.

    :param database: SQLite in a temporary file by default; ``postgresql`` for a private server, or the URL of an empty
        PostgreSQL database.
    :param name: name by which ``harness explore`` finds the scenario; default: the name of a built-in one.
    :raises UsageError: if the scenario does not know the form or the size.
    """
    scenario.check_form(form)
    with ExitStack() as stack:
        url = stack.enter_context(seeded(scenario, size, database))
        found = name or f"scenarios.{scenario.name}"
        command = f"harness explore {found} --form {form} --size {size} --trial {{trial}}"
        options: dict[str, Any] = {"command": command}
        if database is not None:
            command = f"{command} --database {PRIVATE if database == PRIVATE else 'URL'}"
            options = {"command": command, "database": url}
        if form == "plain":
            yield [scenario.forms[form], scenario.arguments()], options
            return
        if durability is not None:
            options.update(durability=durability, command=f"{command} --durability '{durability}'")
            if durability.transactional:
                options["store"] = stack.enter_context(_progress_beside_the_work())
        yield [scenario.forms[form]], options


@contextmanager
def _progress_beside_the_work() -> Iterator[SqlStore]:
    """Use a store in the :func:`seeded` database, which ``with_transaction()`` needs."""
    engine = create_engine(os.environ["HARNESS_DATABASE_URL"], poolclass=NullPool)
    store = SqlStore(engine)
    store.create()
    try:
        yield store
    finally:
        engine.dispose()
