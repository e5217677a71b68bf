"""Digest of external state: equal if a job that starts there sees no difference.

It covers every row of a database, and the fields of stored progress from which a job resumes. It ignores the
number, times and ends of executions.
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
"""Fields of stored progress from which an execution resumes."""
ENDS = {"completed", "cancelled"}
"""States of stored progress after which no execution follows."""


def digest(places: Iterable[tuple[str, Resource, Any]]) -> bytes:
    """Return the digest of a state.

    :param places: each resource with its key and its snapshot; ``...`` for its current content.
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
"""Digests of the rows of database files, by the digest of the file: most files recur byte for byte."""


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
    """Return the fields of stored progress from which an execution resumes."""
    data = json.loads(text)
    return [*(data.get(name) for name in RESUMED_FROM), data.get("state") in ENDS]
