"""Databases for tests: SQLite in a file, PostgreSQL in a separate schema; engines of other drivers, also async ones."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from scenarios import services
from tests.workers import PATIENCE

KINDS = ["sqlite", "postgresql"]
"""The parameters of a fixture that gives each test both."""

ASYNC = {"aiosqlite": "sqlite", "asyncpg": "postgresql", "psycopg_async": "postgresql"}
"""Async drivers, each with the kind of its database."""


@contextmanager
def empty_database(request: pytest.FixtureRequest, folder: Path, options: str = "") -> Iterator[sa.Engine]:
    """Yield the engine of a database with nothing in it, and leave nothing; its URL leads others there too.

    :param request: of a fixture whose parameter is one of KINDS, or an async driver. :param folder: for the file.
    :param options: more command-line options for PostgreSQL.
    """
    kind = ASYNC.get(request.param, request.param)
    schema = f"test_{uuid.uuid4().hex}" if kind == "postgresql" else None
    if schema:
        url = sa.make_url(request.getfixturevalue("postgresql_url"))
        url = url.update_query_dict({"options": f"-csearch_path={schema} {options}"})
    else:
        url = sa.make_url(f"sqlite:///{folder / 'test.db'}")
    engine = sa.create_engine(url, connect_args={} if schema else {"timeout": PATIENCE})
    if schema:
        with engine.begin() as connection:
            connection.execute(sa.schema.CreateSchema(schema))
    try:
        yield engine
    finally:
        if schema:
            with engine.begin() as connection:
                connection.execute(sa.schema.DropSchema(schema, cascade=True))
        engine.dispose()


@contextmanager
def of_driver(database: sa.Engine, driver: str, *statements: str) -> Iterator[sa.Engine]:
    """Yield an engine of another driver, such as psycopg2 or pg8000, for a PostgreSQL of :func:`empty_database`.

    :param driver: of an async one, the plain side of an async engine. :param statements: run at the beginning of each
        connection, if it is none; an async one has the options of the database.
    """
    if driver in ASYNC:
        yield async_engine(database, driver).sync_engine
        return
    url = database.url.set(drivername=f"postgresql+{driver}")
    if driver == "pg8000":
        host = str(url.query["host"])
        url = url.set(query={"unix_sock": f"{host}/.s.PGSQL.5432"})
    with database.connect() as connection:
        schema = connection.scalar(sa.text("SELECT current_schema()"))
    engine = sa.create_engine(url)

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for statement in (f"SET search_path TO {schema}", *statements):
            cursor.execute(statement)
        cursor.close()
        connection.commit()

    try:
        yield engine
    finally:
        engine.dispose()


def async_engine(database: sa.Engine, driver: str) -> AsyncEngine:
    """Return an async engine for a database of :func:`empty_database`; no connection outlives its use, or its loop.

    :param driver: one of ASYNC.
    """
    url = database.url.set(drivername=f"{ASYNC[driver]}+{driver}")
    arguments: dict[str, Any] = {"timeout": PATIENCE} if driver == "aiosqlite" else {}
    if driver == "asyncpg":
        options = str(url.query["options"]).split()
        url = url.difference_update_query(["options"])
        settings = dict(each.removeprefix("-c").split("=") for each in options)
        arguments = {"server_settings": settings}
    return create_async_engine(url, connect_args=arguments, poolclass=sa.NullPool)


@contextmanager
def used_by_services(monkeypatch: pytest.MonkeyPatch, url: sa.URL | str) -> Iterator[sa.Engine]:
    """Have the services of the demonstration jobs use a database, and yield the engine that they use."""
    monkeypatch.setenv("HARNESS_DATABASE_URL", sa.make_url(url).render_as_string(hide_password=False))
    try:
        yield services.engine()
    finally:
        services.dispose()
