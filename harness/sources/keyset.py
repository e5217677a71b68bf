"""Items from SQLAlchemy: selects read in pages after a cursor.

A page is ``WHERE key > cursor ORDER BY key LIMIT batch_size``; no OFFSET, and never two pages in memory::

    records(session, Order, cursor=cursor)                     # one object or row at a time
    batches(session, Order.pending(), cursor=cursor)           # lists of them
    ranges(session, Order, cursor=cursor, batch_size=10_000)   # selects, for bulk UPDATE and DELETE

With an ``AsyncSession`` they give the same pairs by ``async for``, and the loop goes on while a page is read.

**The key** is the primary key, or what ``columns`` names, such as ``[Order.status, Order.id.desc()]``. It must
tell all rows of the select apart, or rows at the edge of a page would be skipped. Where primary keys, unique
constraints and joins do not show that it does, the primary keys that are missing are added at its end, in the
direction of its last column. So a cursor is the value of the one key column or the tuple of the values of
several, those added included. A row whose key changes while the job runs may be skipped or come again.

Of a view nothing shows that. There the ``primary_key=`` of its mapper counts, or the caller vouches for the columns:
``columns=[view.c.id], unique=True``. That is checked while reading: two rows with equal keys, also across the edge of a
page, or a NULL are an error. A page has a row more for that, and of text a query more, for a collation may find equal
what Python does not; before the first page and after the last NULL is looked for.

**NULL** compares with nothing. So a column that may be NULL can be in the key where the select leaves NULL out, by
``.where(Order.due.is_not(None))`` or by any comparison of the column: in each branch of an OR.
The database may allow NULL where the model says NOT NULL, for example if a migration is missing. So a query looks for
NULL before the first page and after the last one, in each key column that is in no primary key. It does not look if the
select excludes NULL.

**A cursor** holds what the types of the columns make of the values: int, str, datetime, UUID, Decimal and so
on. Where that would not come back equal, from JSON or from the database, it holds ``{"stored": …}``, the
value as the database keeps it: of an Enum, or of a time written by SQLite's ``CURRENT_TIMESTAMP``, which is
text that sorts before the same time written by SQLAlchemy. A driver's wrapper of a value is removed, so that
a job may continue with another driver. The last cursor of a page goes through JSON before the page is
yielded.

**Transactions.** Where the session has no transaction, the one that reading a page begins ends with the page:
the objects stay attached and loaded, and nothing is open while the job works. A transaction that is there
already, as it is after an unflushed change, is the caller's and is left alone.

**Indexes.** Where all key columns go one way, pages compare row values, ``(a, b) > (?, ?)``, which an index over
both answers; SQLite looks up only ``a`` in it if ``b`` is an integer primary key. So do all databases where the
columns go different ways. That is slow if ``a`` has few values.

**A guard.** With ``guard=True`` a cursor also has how many rows there were when the job began, how many were passed,
and the key of the last one. As many must lie after the cursor as are left, and the last must be the same: that is
asked at the beginning of every execution, two queries, and known at the end. So it finds rows that moved behind the
cursor, which would be skipped, and rows that came or moved after it or went from there. Rows that leave the select
once they are done, as those of ``where(Order.sent.is_(None))``, are no change. What is not noticed is changes that make
up for one another before the last row: one row goes from there, another comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, pairwise, starmap
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import sqlalchemy as sa
from sqlalchemy.orm import Session, scoped_session

from harness.runtime import guards
from harness.sources.enumerators import Enumerator
from harness.sources.pages import Keyset
from harness.sources.sessions import read_pages

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

_Session: TypeAlias = Union[Session, scoped_session[Any], "AsyncSession", "async_scoped_session[Any]"]
_Pages: TypeAlias = Iterator[Iterable[tuple[Any, Any]]]


def records(
    session: _Session,
    select: Any,
    *,
    cursor: Any,
    columns: Any = None,
    batch_size: int = 100,
    guard: bool = False,
    unique: bool = False,
) -> Enumerator[Any]:
    """Yield the rows of a select, one at a time.

    :param session: what reads, and what the objects belong to: a ``Session``, or for an async job an
        ``AsyncSession``.
    :param select: a select or a mapped class. Of one entity or column, it yields that; of several, rows.
    :param cursor: of the last item done, or None.
    :param columns: one column or a list of them, each perhaps with ``.desc()``; None is the primary key.
    :param batch_size: rows in a page; a page is one query.
    :param guard: check that no rows come, go or move after the cursor; see the module.
    :param unique: the caller vouches that *columns* tell all rows apart and are never NULL; reading checks it.
    :raises JobDefinitionError: if the select cannot be read in pages, or not by this key; while iterating, if two rows
        have one key.
    :raises CursorError: if the cursor is not one of this key; while iterating, if a key is NULL, or no cursor can
        hold it.
    :raises CollectionChanged: while iterating, if *guard* finds a change.
    """
    keyset = Keyset("records()", session, select, columns, batch_size, unique=unique)
    keyset.refuse_expiry()
    tally = keyset.tally(cursor, guard=guard)

    def pages() -> _Pages:
        found = starmap(zip, keyset.pages(tally.position))
        return tally.over(((item, cursor, 1) for item, cursor in page) for page in found) if guard else found

    return _enumerator(keyset, pages, size=tally.size, keyed=True, expect=tally.expect)


def batches(
    session: _Session,
    select: Any,
    *,
    cursor: Any,
    columns: Any = None,
    batch_size: int = 100,
    guard: bool = False,
    unique: bool = False,
) -> Enumerator[list[Any]]:
    """Yield the rows of a select in lists of *batch_size*, each with the cursor of its last row.

    The size counts rows. Parameters and errors are those of :func:`records`.
    """
    keyset = Keyset("batches()", session, select, columns, batch_size, unique=unique)
    tally = keyset.tally(cursor, guard=guard)

    def pages(after: Any) -> Iterator[tuple[list[Any], Any, int]]:
        return ((items, cursors[-1], len(items)) for items, cursors in keyset.pages(after))

    def batched(found: Callable[[], Iterator[tuple[list[Any], Any, int]]]) -> Enumerator[list[Any]]:
        return _enumerator(
            keyset,
            lambda: _singly(tally, found()),
            size=tally.size,
            batched=True,
            until=until,
            expect=tally.expect,
        )

    def until(*ends: Any) -> Enumerator[list[Any]]:
        borders = [guards.split("batches()", each, guard=guard)[0] for each in ends]

        def found() -> Iterator[tuple[list[Any], Any, int]]:
            for begin, end in pairwise([tally.position, *borders]):
                items = keyset.part(begin, end)
                yield from [(items, end, len(items))] if items else []
            yield from pages(borders[-1])

        return batched(found)

    return batched(lambda: pages(tally.position))


def ranges(
    session: _Session,
    select: Any,
    *,
    cursor: Any,
    columns: Any = None,
    batch_size: int = 100,
    guard: bool = False,
    unique: bool = False,
) -> Enumerator[sa.Select[Any]]:
    """Yield the unexecuted select of each page: the given one, restricted to a range of keys, in their order.

    Finding the end of a page is one query of the key alone. The size counts pages. Use it for bulk changes,
    which ignore options of the select such as ``with_loader_criteria()``::

        session.execute(update(Order).where(page.whereclause).values(…))
        session.execute(delete(Order).where(Order.id.in_(page.with_only_columns(Order.id))))    # of a join

    Parameters and errors are those of :func:`records`.
    """
    keyset = Keyset("ranges()", session, select, columns, batch_size, unique=unique)
    tally = keyset.tally(cursor, guard=guard)

    def until(*ends: Any) -> Enumerator[sa.Select[Any]]:
        borders = [guards.split("ranges()", each, guard=guard)[0] for each in ends]

        def found() -> Iterator[tuple[sa.Select[Any], Any, int]]:
            for begin, end in pairwise([tally.position, *borders]):
                after, last = keyset.parse(begin), keyset.parse(end)
                rows = keyset.count(after) - keyset.count(last)
                if rows:
                    yield keyset.between(after, last).order_by(*keyset.order), end, rows
            yield from keyset.ranges(borders[-1])

        return paged(found)

    def count() -> int:
        return -(-tally.size() // batch_size)

    def paged(found: Callable[[], Iterator[tuple[sa.Select[Any], Any, int]]]) -> Enumerator[sa.Select[Any]]:
        return _enumerator(
            keyset, lambda: _singly(tally, found()), size=count, until=until, expect=tally.expect
        )

    return paged(lambda: keyset.ranges(tally.position))


def _singly(tally: guards.Tally, found: Iterator[tuple[Any, Any, int]]) -> _Pages:
    """Guard what is read one at a time."""
    # An iterator of one, which forgets it when it has been read.
    return tally.over(iter([each]) for each in found)


def _enumerator(
    keyset: Keyset, pages: Callable[[], _Pages], *, size: Callable[[], int], **known: Any
) -> Enumerator[Any]:
    """Return the enumerator of pages that the keyset's session reads."""
    session = keyset.awaiting
    if session is None:
        return Enumerator(lambda: chain.from_iterable(pages()), size=size, origin=keyset.origin, **known)
    counted = partial(session.run_sync, lambda _: size())
    return Enumerator(partial(read_pages, session, pages), size=counted, origin=keyset.origin, **known)


def within(
    session: _Session, select: Any, after: Any, until: Any, *, columns: Any = None, unique: bool = False
) -> sa.Select[Any]:
    """Return a select restricted to the rows after one cursor, up to and including another; None is no limit.

    :raises CursorError: for anything but a cursor of :func:`records` with these columns.
    """
    keyset = Keyset("within()", session, select, columns, 1, unique=unique)
    return keyset.between(keyset.parse(after), keyset.parse(until))
