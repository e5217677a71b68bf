"""Sessions that read pages: SQLAlchemy's plain ones and ``AsyncSession``.

Pages are read by plain code. An ``AsyncSession`` runs that code in a greenlet, which returns to the event
loop while a statement waits for the database. So both read the same pages, with the same cursors and checks.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import Session, scoped_session

from harness.runtime.loops import is_async_session


def opened(name: str, session: Any) -> tuple[Session, Any]:
    """Return the plain session to read with, and the AsyncSession that it belongs to; None without one.

    :param name: name of the called function, for errors. :raises TypeError: for anything but a session.
    """
    # If the caller has an async session, this is already imported.
    scoped: Any = getattr(sys.modules.get("sqlalchemy.ext.asyncio"), "async_scoped_session", scoped_session)
    found = session() if isinstance(session, (scoped_session, scoped)) else session
    if isinstance(found, Session):
        return found, None
    plain = getattr(found, "sync_session", None)
    if is_async_session(found) and isinstance(plain, Session):
        return plain, found
    raise TypeError(f"{name} takes a Session or an AsyncSession; got {type(session).__name__}")


async def read_pages(
    session: Any, pages: Callable[[], Iterator[Iterable[tuple[Any, Any]]]]
) -> AsyncIterator[tuple[Any, Any]]:
    """Yield the pairs of pages that plain code reads with an ``AsyncSession``."""
    reading_on = pages()

    def following(_: Session) -> Iterable[tuple[Any, Any]] | None:
        return next(reading_on, None)

    while (page := await session.run_sync(following)) is not None:
        for pair in page:
            yield pair


@contextmanager
def reading(session: Session) -> Iterator[None]:
    """End the transaction that the block begins, but not one that was already open."""
    if session.in_transaction():
        yield
        return
    expire, session.expire_on_commit = session.expire_on_commit, False
    try:
        with session.begin():
            yield
    finally:
        session.expire_on_commit = expire
