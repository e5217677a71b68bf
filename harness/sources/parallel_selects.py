"""Several instances of a job that share the rows of a select.

::

    def build_enumerator(self, *, cursor):
        return parallel_records(self.session, Order.pending(), instances=4, cursor=cursor)

The slices are ranges of the key, with nearly the same number of rows when the job starts. Every key of
:func:`~harness.sources.keyset.records` is possible, and each slice reads its own part of the index. Rows that
come later fall into the slice where their key lies.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from harness.errors import UsageError
from harness.runtime.loops import is_async_session
from harness.sources.enumerators import Enumerator
from harness.sources.keyset import batches, ranges, records, within
from harness.sources.parallel import SLICES_PER_INSTANCE, Parallel, check_instances


def parallel_records(
    session: Any,
    select: Any,
    *,
    instances: int,
    cursor: Any,
    columns: Any = None,
    batch_size: int = 100,
    unique: bool = False,
) -> Parallel:
    """Share the rows of a select among several instances, one row at a time.

    :param instances: number of concurrent instances.

    The other parameters and the errors are those of :func:`~harness.sources.keyset.records`.
    """
    key = {"columns": columns, "unique": unique}
    read = partial(records, session, batch_size=batch_size, **key)
    return _parallel(read, session, select, key=key, instances=instances, cursor=cursor, batched=False)


def parallel_batches(
    session: Any,
    select: Any,
    *,
    instances: int,
    cursor: Any,
    columns: Any = None,
    batch_size: int = 100,
    unique: bool = False,
) -> Parallel:
    """Share the rows of a select among several instances, in lists of *batch_size*; see :func:`parallel_records`."""
    key = {"columns": columns, "unique": unique}
    read = partial(batches, session, batch_size=batch_size, **key)
    return _parallel(read, session, select, key=key, instances=instances, cursor=cursor, batched=True)


def _parallel(
    read: Any, session: Any, select: Any, *, key: dict[str, Any], instances: int, cursor: Any, batched: bool
) -> Parallel:
    check_instances(instances)
    if is_async_session(session):
        raise UsageError(
            "a parallel run of a select takes a Session; got AsyncSession; make a Session on a plain engine of that "
            "database for build_enumerator, or share items() by parallel_items()"
        )

    def plan() -> list[tuple[Any, Any]]:
        size = records(session, select, cursor=None, **key).size or 0
        rows = -(-size // (SLICES_PER_INSTANCE * instances)) or 1
        edges = [edge for _, edge in ranges(session, select, cursor=None, batch_size=rows, **key)]
        # The last slice has no end, and the first no beginning, so every later row is in a slice.
        return list(zip([None, *edges[:-1]], [*edges[:-1], None], strict=True))

    def open_slice(edges: tuple[Any, Any], inner: Any, _slices: int) -> Enumerator[Any]:
        after, until = edges
        found: Enumerator[Any] = read(within(session, select, after, until, **key), cursor=inner)
        return found

    return Parallel(plan, open_slice, instances=instances, cursor=cursor, batched=batched)
