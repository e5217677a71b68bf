"""Digest of external state: equal where a job that starts there can see no difference.

Of a database every row counts, and of stored progress what a job goes on from. The number of its executions, when they
were and how they ended are left out.
"""

from __future__ import annotations

import hashlib
import json
import marshal
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from harness.explore.postgres import PROGRESS, PostgresResource
from harness.explore.resources import ProgressResource, SqliteResource

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.explore.resources import Resource

RESUMED_FROM = (
    "id", "job", "begun", "completed", "current", "proof", "attributes", "done", "total", "all_done", "failures",
    "quarantined", "digest",
)  # fmt: skip
"""Fields of stored progress that an execution goes on from."""
ENDS = {"completed", "cancelled"}
"""States of stored progress after which no execution follows."""


def digest(places: Iterable[tuple[str, Resource, Any]]) -> bytes:
    """Return the digest of a state.

    :param places: each with its key, and what was kept of it; ``...`` for what it holds now.
    """
    found = []
    for key, place, kept in places:
        if isinstance(place, SqliteResource):
            held: Any = _of_database(place, kept)
        elif isinstance(place, PostgresResource):
            held = _rows(place.everything(None if kept is ... else kept))
        elif isinstance(place, ProgressResource):
            texts, shared = place.keep() if kept is ... else kept
            held = {job_id: _resumed_from(text) for job_id, text in texts.items()}, shared
        else:
            held = place.keep() if kept is ... else kept
        found.append((key, held))
    return _hashed(found)


def _hashed(found: Any) -> bytes:
    try:
        data = marshal.dumps(found, 2)
    except ValueError:  # there is more in it than plain data
        data = repr(found).encode(errors="surrogatepass")
    return hashlib.blake2b(data, digest_size=16).digest()


_digests: WeakKeyDictionary[SqliteResource, dict[bytes, bytes]] = WeakKeyDictionary()
"""Digests of the rows of database files, by the digest of the file: most files come again byte by byte."""


def _of_database(place: SqliteResource, kept: Any) -> bytes:
    pages = place.keep() if kept is ... else kept
    known = _digests.setdefault(place, {})
    file = hashlib.blake2b(digest_size=16)
    for number, page in enumerate(pages):
        # The file's header counts its changes.
        file.update(page if number else page[:24] + page[28:92] + page[100:])
    name = file.digest()
    if name not in known:
        known[name] = _hashed(_rows(place.everything(None if kept is ... else kept)))
    return known[name]


def _rows(tables: dict[str, tuple[list[str], list[tuple[Any, ...]]]]) -> Any:
    found = []
    for name, (columns, rows) in sorted(tables.items()):
        if set(columns) >= PROGRESS:
            place = {column: index for index, column in enumerate(columns)}
            kept: Any = [(row[place["job_id"]], _resumed_from(row[place["progress"]])) for row in rows]
        else:
            kept = rows
        found.append((name, kept))
    return found


def _resumed_from(text: str) -> Any:
    """Return what an execution goes on from, of progress as it is stored."""
    data = json.loads(text)
    return [*(data.get(name) for name in RESUMED_FROM), data.get("state") in ENDS]
