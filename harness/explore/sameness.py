"""Digest of external state: two states with the same digest are the same for a job that starts there.

It covers every row of a database, and the fields of stored progress from which a job resumes. It ignores the
number, times and ends of executions.
"""

from __future__ import annotations

import hashlib
import json
import marshal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from harness.explore.postgres import PROGRESS, PostgresResource
from harness.explore.redis import RedisResource
from harness.explore.redis_tables import EXPLORED
from harness.explore.resources import ProgressResource, SqliteResource

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from harness.explore.resources import Resource

RESUMED_FROM = (
    "id", "job", "begun", "completed", "current", "proof", "attributes", "done", "total", "all_done", "failures",
    "quarantined", "digest",
)  # fmt: skip
"""Fields of stored progress from which an execution resumes."""
_JOB = b"rq:job:"
_PROGRESS = b"continuation"
"""Field of RQ's job that holds progress."""
_TIMES = {b"created_at", b"ended_at", b"enqueued_at", b"last_heartbeat", b"started_at", b"worker_name"}
"""Fields of RQ's job that differ in each execution, and that no execution resumes from."""
_EXECUTIONS = (
    b"rq:clean_groups", b"rq:execution:", b"rq:executions:", b"rq:wip:", b"rq:worker", b"harness:history:",
    b"harness:leases", b"harness:owners", b"harness:pulse:",
)  # fmt: skip
"""Prefixes of the keys in which RQ and this package record executions, workers and times."""
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
        elif isinstance(place, RedisResource):
            held = queue(
                place.keep(_EXECUTIONS if place.has(_JOB + EXPLORED) else ()) if kept is ... else kept
            )
        else:
            held = place.keep() if kept is ... else kept
        found.append((key, held))
    return _hashed(found)


def queue(keys: Any) -> Any:
    """Return the values in the Redis of an explored job on RQ from which it resumes; all keys of any other Redis.

    Only one execution is alive, so the owner of the job is not compared. Unknown keys and fields are compared.
    """
    if not any(key.startswith(_JOB + EXPLORED) for key in keys):
        return keys
    found: list[Any] = []
    for key, (kind, value, left) in sorted(keys.items()):
        if key.startswith(_EXECUTIONS):
            continue
        if kind == b"hash" and key.startswith(_JOB):
            fields = {name: field for name, field in value.items() if name not in _TIMES | {_PROGRESS}}
            text = value.get(_PROGRESS)
            found.append((key, sorted(fields.items()), text and _resumed_from(text)))
        else:
            found.append((key, kind, value, left))
    return found


def _hashed(found: Any) -> bytes:
    try:
        data = marshal.dumps(found, 2)
    except ValueError:  # it contains more than plain data
        data = repr(found).encode(errors="surrogatepass")
    return hashlib.blake2b(data, digest_size=16).digest()


@dataclass
class _Known:
    """Cache of digests of the rows of a database.

    :ivar by_file: digests by the digest of the file, because most files recur byte for byte. :ivar now: the version of
        the database for which a digest was returned last, and this digest.
    """

    by_file: dict[bytes, bytes] = field(default_factory=dict)
    now: tuple[Any, bytes] = (None, b"")


_digests: WeakKeyDictionary[SqliteResource, _Known] = WeakKeyDictionary()


def _of_database(place: SqliteResource, kept: Any) -> bytes:
    known = _digests.setdefault(place, _Known())
    if kept is not ...:
        return _of_file(place, kept, kept, known)
    version = place.version
    if version is None or version != known.now[0]:
        known.now = version, _of_file(place, [place.file()], None, known)
    return known.now[1]


def _of_file(place: SqliteResource, parts: Sequence[bytes], kept: Any, known: _Known) -> bytes:
    """Return the digest of the rows in a file.

    :param parts: the file, cut at any place after its header. :param kept: the snapshot; None for the current content.
    """
    file = hashlib.blake2b(digest_size=16)
    for number, part in enumerate(parts):
        view = memoryview(part)
        # The file's header counts its changes.
        for each in [view] if number else [view[:24], view[28:92], view[100:]]:
            file.update(each)
    name = file.digest()
    if name not in known.by_file:
        known.by_file[name] = _hashed(_rows(place.everything(kept)))
    return known.by_file[name]


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
