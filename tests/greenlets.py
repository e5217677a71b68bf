"""Suites of plain tests that also hold for ``AsyncSession``: a test runs in a greenlet, as code under ``run_sync()``.

A fixture yields :func:`session_on` of an engine. With an async driver a test gets the plain side of an AsyncSession. It
then runs inside an event loop (see ``pytest_pyfunc_call`` in conftest.py), and what it reads by :data:`records`,
:data:`batches` and :data:`ranges` comes by ``async for`` from the AsyncSession.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util.concurrency import await_only, greenlet_spawn

import harness
from harness import Enumerator
from tests.databases import ASYNC, KINDS, async_engine

T = TypeVar("T")

BY_DEFAULT = "asyncpg"
EVERY_KIND = [
    *KINDS,
    *(pytest.param(each, marks=[pytest.mark.full] * (each != BY_DEFAULT)) for each in ASYNC),
]
"""Parameters for a quick suite: plain and async sessions, by default those of one async driver."""

EVERY_KIND_IN_FULL = [*KINDS, pytest.param(BY_DEFAULT, marks=pytest.mark.full)]
"""Parameters for a long suite: async sessions in the full run only, on one driver; short suites have all three."""


def as_asked(engine: sa.Engine, request: pytest.FixtureRequest) -> sa.Engine:
    """Return the engine of a database for the driver that a fixture's parameter names, if it is an async one."""
    return async_engine(engine, request.param).sync_engine if request.param in ASYNC else engine


@contextmanager
def session_on(engine: sa.Engine, **options: Any) -> Iterator[Session]:
    """Yield a session on an engine; if its driver is async, the plain side of an AsyncSession."""
    if not engine.dialect.is_async:
        with Session(engine, **options) as session:
            yield session
        return
    with asyncio.Runner() as runner:
        awaiting = AsyncSession(AsyncEngine(engine), expire_on_commit=False, **options)
        session = awaiting.sync_session
        session.info.update(awaiting=awaiting, runner=runner)
        try:
            yield session
        finally:
            runner.run(awaiting.close())


def call(session: Session, function: Callable[..., T], /, *args: Any, **options: Any) -> T:
    """Call a function that uses the session, from outside of a test."""
    runner: asyncio.Runner | None = session.info.get("runner")
    if runner is None:
        return function(*args, **options)
    return runner.run(greenlet_spawn(function, *args, **options))


def call_test(item: pytest.Function) -> bool | None:
    """Call a test in the greenlet of its async session; None if it has none."""
    for each in item.funcargs.values():
        if isinstance(each, Session) and "runner" in each.info:
            arguments = {name: item.funcargs[name] for name in item._fixtureinfo.argnames}
            call(each, item.obj, **arguments)
            return True
    return None


def _bridged(read: Callable[..., Enumerator[Any]]) -> Callable[..., Enumerator[Any]]:
    @functools.wraps(read)
    def bridged(session: Any, *args: Any, **options: Any) -> Enumerator[Any]:
        awaiting = session.info.get("awaiting") if isinstance(session, Session) else None
        found = read(awaiting or session, *args, **options)
        return _plain(found) if awaiting else found

    return bridged


def _plain(found: Enumerator[Any]) -> Enumerator[Any]:
    assert found.is_async
    return Enumerator(
        lambda: _pairs(found),
        size=lambda: await_only(found.find_size()),
        batched=found.batched,
        witness=found.witness,
        keyed=found.keyed,
        until=found.until and (lambda *cursors: _plain(found.until(*cursors))),  # type: ignore[misc]  # it is there
    )


def _pairs(found: Enumerator[Any]) -> Iterator[Any]:
    pairs = aiter(found)
    while (pair := await_only(anext(pairs, None))) is not None:
        yield pair


records, batches, ranges = map(_bridged, (harness.records, harness.batches, harness.ranges))
"""The enumerators, which read with the AsyncSession of a session of :func:`session_on`."""
